"""Copies between nodes: real servers, real TLS, and what happens when one of them fails."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tbcluster.checkpoint import num_bytes
from tbcluster.errors import FetchError
from tbcluster.weights import header_fetching, watching
from tbcluster.weights import hub as hub_client
from tbcluster.weights.assigning import HUB, assign
from tbcluster.weights.fetching import fetch
from tbcluster.weights.library import ModelSource, open_model_source
from tbcluster.wire.errands import Fetched, FetchPart, Neighbour
from tests.doubles.hub import HubServer
from tests.doubles.weights import (
    MODEL,
    Certificates,
    fetch_spec,
    layer_spans,
    sharing,
    whole,
)
from tests.weights.test_fetching import assert_is_same, flip, revision_of

DEAD_HUB = "http://127.0.0.1:9"


@dataclass
class Node:
    """One with a store, a certificate and, while others can copy from it, an entry for them."""

    name: str
    store: Path
    own: Certificates

    def fetch(
        self,
        source: ModelSource,
        hub: str,
        parts: list[FetchPart],
        neighbours: tuple[Neighbour, ...] = (),
    ) -> Fetched:
        return fetch(
            fetch_spec(
                source,
                self.store,
                hub,
                parts=parts,
                neighbours=neighbours,
                tls_files=self.own.files,
            )
        )

    @contextmanager
    def shared_with(self, *others: "Node") -> Iterator[Neighbour]:
        with sharing(self.name, self.store, self.own, [other.own for other in others]) as entry:
            yield entry


@pytest.fixture
def first(tmp_path: Path) -> Node:
    return Node("first", tmp_path / "first", Certificates(tmp_path / "first-keys"))


@pytest.fixture
def second(tmp_path: Path) -> Node:
    return Node("second", tmp_path / "second", Certificates(tmp_path / "second-keys"))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENT_S", 0.3)
    monkeypatch.setattr(watching, "STALLED_S", 0.6)
    monkeypatch.setattr(watching, "IDLE_POLL_S", 0.05)
    monkeypatch.setattr(header_fetching, "WAIT_S", 0.3)
    monkeypatch.setattr(hub_client, "RETRY_DELAYS_S", (0.01,))


def all_from(source: ModelSource, name: str) -> list[FetchPart]:
    return [FetchPart(whole(source), name)]


def test_a_neighbours_copy_costs_the_hub_nothing(
    hub: HubServer, source: ModelSource, first: Node, second: Node, repositories: Path
) -> None:
    spans = layer_spans(source, 1, 2, 3)
    first.fetch(source, hub.url, [FetchPart(spans)])
    with first.shared_with(second) as entry:
        fetched = second.fetch(source, DEAD_HUB, [FetchPart(spans, "first")], (entry,))
    assert (fetched.hub_bytes, fetched.neighbour_bytes) == (0, num_bytes(spans))
    assert_is_same(Path(fetched.folder), repositories / MODEL, spans)


def test_what_two_need_leaves_the_hub_once(
    hub: HubServer, source: ModelSource, first: Node, second: Node, repositories: Path
) -> None:
    needs = {
        "first": layer_spans(source, 0, 1, 2, 3),
        "second": layer_spans(source, 2, 3, 4, 5),
    }
    parts = assign(needs, {})
    hub.mischief.bytes_per_s = 4_000_000
    results: dict[str, Fetched] = {}
    with first.shared_with(second) as one, second.shared_with(first) as two:
        threads = [
            threading.Thread(
                target=lambda node=node, other=other: results.__setitem__(
                    node.name,
                    node.fetch(source, hub.url, list(parts[node.name]), (other,)),
                )
            )
            for node, other in ((first, two), (second, one))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    once = num_bytes({*needs["first"], *needs["second"]})
    assert hub.sent_bytes == once
    for name, spans in needs.items():
        assert_is_same(Path(results[name].folder), repositories / MODEL, spans)
        assert results[name].neighbour_bytes > 0


def test_a_bad_byte_at_a_neighbour_is_not_taken_over(
    hub: HubServer, source: ModelSource, first: Node, second: Node, repositories: Path
) -> None:
    first.fetch(source, hub.url, all_from(source, HUB))
    bad = layer_spans(source, 3)[-1]
    path = revision_of(source, first.store).find(bad.file)
    assert path is not None
    flip(path, bad.offset)
    hub.sent.clear()
    with first.shared_with(second) as entry:
        fetched = second.fetch(source, hub.url, all_from(source, "first"), (entry,))
    assert fetched.hub_bytes == hub.sent_bytes == bad.length
    assert_is_same(Path(fetched.folder), repositories / MODEL, whole(source))


def test_a_file_that_a_neighbour_has_lost_comes_from_elsewhere(
    hub: HubServer, source: ModelSource, first: Node, second: Node
) -> None:
    """Its ledger still speaks of it."""
    first.fetch(source, hub.url, all_from(source, HUB))
    lost = layer_spans(source, 3)[-1].file
    path = revision_of(source, first.store).find(lost)
    assert path is not None
    path.unlink()
    hub.sent.clear()
    with first.shared_with(second) as entry:
        fetched = second.fetch(source, hub.url, all_from(source, "first"), (entry,))
    assert hub.sent_of(lost) == fetched.hub_bytes > 0
    assert fetched.hub_bytes + fetched.neighbour_bytes == source.listing.total_bytes


def test_a_folder_that_only_the_neighbour_has_is_copied(
    repositories: Path, first: Node, second: Node
) -> None:
    source = open_model_source(str(repositories / MODEL))
    first.fetch(source, DEAD_HUB, [])
    # The other machine has no such folder.
    elsewhere = replace(source, listing=replace(source.listing, source="/elsewhere/tiny"))
    with first.shared_with(second) as entry:
        fetched = second.fetch(elsewhere, DEAD_HUB, all_from(source, "first"), (entry,))
    assert fetched.neighbour_bytes == source.listing.total_bytes
    assert_is_same(Path(fetched.folder), repositories / MODEL, whole(source))


def test_a_folder_that_nobody_has_is_named(repositories: Path, first: Node, second: Node) -> None:
    source = open_model_source(str(repositories / MODEL))
    elsewhere = replace(source, listing=replace(source.listing, source="/elsewhere/tiny"))
    with pytest.raises(FetchError, match="/elsewhere/tiny is a folder"):
        second.fetch(elsewhere, DEAD_HUB, all_from(source, HUB))


@pytest.mark.usefixtures("impatient")
def test_a_neighbour_that_cannot_be_reached_is_replaced_by_the_hub(
    hub: HubServer, source: ModelSource, first: Node, second: Node
) -> None:
    entry = Neighbour("first", "first", ("127.0.0.1",), 9, first.own.certificate)
    fetched = second.fetch(source, hub.url, all_from(source, "first"), (entry,))
    assert fetched.hub_bytes == source.listing.total_bytes


@pytest.mark.usefixtures("impatient")
def test_a_neighbour_that_gets_nothing_is_replaced_by_the_hub(
    hub: HubServer, source: ModelSource, first: Node, second: Node
) -> None:
    with first.shared_with(second) as entry:
        fetched = second.fetch(source, hub.url, all_from(source, "first"), (entry,))
    assert fetched.hub_bytes == source.listing.total_bytes


@pytest.mark.usefixtures("impatient")
def test_whoever_is_not_accepted_gets_nothing(
    hub: HubServer, source: ModelSource, first: Node, second: Node
) -> None:
    first.fetch(source, hub.url, all_from(source, HUB))
    with (
        first.shared_with() as entry,
        pytest.raises(FetchError, match=r"cannot be (had|read)"),
    ):
        second.fetch(source, DEAD_HUB, all_from(source, "first"), (entry,))


@pytest.mark.usefixtures("impatient")
def test_a_neighbour_with_another_certificate_is_not_believed(
    hub: HubServer, source: ModelSource, first: Node, second: Node, tmp_path: Path
) -> None:
    first.fetch(source, hub.url, all_from(source, HUB))
    other = Certificates(tmp_path / "other").certificate
    with first.shared_with(second) as entry:
        wrong = Neighbour("first", "first", entry.addresses, entry.port, other)
        with pytest.raises(FetchError):
            second.fetch(source, DEAD_HUB, all_from(source, "first"), (wrong,))


def test_a_hub_that_fails_is_replaced_by_a_neighbour(
    hub: HubServer, source: ModelSource, first: Node, second: Node, impatient: None
) -> None:
    first.fetch(source, hub.url, all_from(source, HUB))
    with first.shared_with(second) as entry:
        fetched = second.fetch(source, DEAD_HUB, all_from(source, HUB), (entry,))
    assert fetched.neighbour_bytes == source.listing.total_bytes


def test_what_nobody_gives_is_not_waited_for_once_the_hub_is_gone(
    hub: HubServer,
    source: ModelSource,
    first: Node,
    second: Node,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The neighbour may be waiting for this very node."""
    second.fetch(source, hub.url, [FetchPart(())])
    monkeypatch.setattr(watching, "STALLED_S", 60.0)
    monkeypatch.setattr(watching, "STALLED_WITHOUT_HUB_S", 0.3)
    with (
        first.shared_with(second) as entry,
        pytest.raises(FetchError, match=r"cannot be had from anywhere: .* cannot be read from"),
    ):
        second.fetch(source, DEAD_HUB, all_from(source, HUB), (entry,))
