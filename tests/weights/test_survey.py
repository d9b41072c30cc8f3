"""What a node says that it holds, before anything is fetched."""

import os
import socket
import time
from pathlib import Path

import pytest

from tbcluster.checkpoint import Span, merged, num_bytes
from tbcluster.weights import checking
from tbcluster.weights.fetching import fetch
from tbcluster.weights.library import ModelSource
from tbcluster.weights.shelf import StoreShelf
from tbcluster.weights.store import Store
from tbcluster.weights.survey import survey
from tbcluster.wire.control import Report
from tbcluster.wire.errands import Checking, Surveyed, SurveySpec
from tests.doubles.hub import HubServer
from tests.doubles.weights import MODEL, Errand, fetch_spec, layer_spans, whole


def held(source: ModelSource, store: Path, *folders: Path) -> tuple[Span, ...]:
    """What a survey of this store finds."""
    spec = SurveySpec(source.listing, str(store), tuple(map(str, folders)))
    return survey(spec, lambda _: None).spans


def test_where_nothing_is_nothing_is_made(source: ModelSource, tmp_path: Path) -> None:
    assert held(source, tmp_path / "store") == ()
    assert not (tmp_path / "store").exists()


def test_what_was_fetched_is_held_until_it_changes(
    hub: HubServer, source: ModelSource, tmp_path: Path
) -> None:
    store, spans = tmp_path / "store", layer_spans(source, 1, 4)
    view = Path(fetch(fetch_spec(source, store, hub.url, spans)).folder)
    assert held(source, store) == merged(spans)
    tensor = max(spans, key=lambda span: span.length)
    with (view / tensor.file).open("r+b") as file:
        file.seek(tensor.offset)
        (byte,) = os.pread(file.fileno(), 1, tensor.offset)
        file.write(bytes([byte ^ 1]))
    assert num_bytes(held(source, store)) == num_bytes(spans) - tensor.length


def test_what_lies_elsewhere_is_held_and_can_be_given(
    source: ModelSource, repositories: Path, tmp_path: Path
) -> None:
    """Weights by their headers; of small files a hub does not tell enough."""
    store = tmp_path / "store"
    found = held(source, store, repositories / MODEL.partition("/")[0])
    weights = {file.path for file in source.listing.files if file.holds_weights}
    assert {span.file for span in found} >= weights
    shelf = StoreShelf(store)
    for name in weights:
        given = shelf.find(source.listing.model, source.listing.revision, name)
        assert given is not None
        assert given.holds(0, given.size)
        assert given.path == repositories / MODEL / name


def test_its_process_says_so(hub: HubServer, source: ModelSource, tmp_path: Path) -> None:
    store = tmp_path / "store"
    fetch(fetch_spec(source, store, hub.url))
    errand = Errand(SurveySpec(source.listing, str(store)), module="tbcluster.weights.survey")
    assert errand.result() == Surveyed(merged(whole(source)))


def test_a_fetch_that_runs_is_not_waited_for(
    hub: HubServer, source: ModelSource, tmp_path: Path
) -> None:
    store, spans = tmp_path / "store", layer_spans(source, 1)
    fetch(fetch_spec(source, store, hub.url, spans))
    revision = Store(store).revision(source.listing.model, source.listing.revision)
    with revision.locked(source.listing):
        assert held(source, store) == merged(spans)


def test_what_is_hashed_is_told(
    hub: HubServer, source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "REPORT_S", 0.0)
    store = tmp_path / "store"
    fetch(fetch_spec(source, store, hub.url))
    reports: list[Report] = []
    survey(SurveySpec(source.listing, str(store), verifies=True), reports.append)
    total = source.listing.total_bytes
    assert reports[-1] == Checking(total, total)
    assert len(reports) > 2


def test_whether_the_hub_is_reached_is_told_where_it_is_asked(
    hub: HubServer, source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reaches(hub: str, *, tries: bool = True) -> bool:
        spec = SurveySpec(source.listing, str(tmp_path / "store"), tries_hub=tries, hub=hub)
        return survey(spec, lambda _: None).reaches_hub

    assert reaches(hub.url)
    assert hub.sent_bytes == 1
    assert not reaches(hub.url, tries=False)
    assert not reaches("http://127.0.0.1:9")
    # One that takes a connection and says nothing, as a network may that swallows everything.
    monkeypatch.setattr("tbcluster.weights.survey.HUB_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert not reaches(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 5.0
