"""The hub's client: what it asks for, what it shows to whom, and what it says of refusals."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tbcluster.checkpoint import ListedFile, Span
from tbcluster.errors import FetchError, ModelNotFoundError
from tbcluster.weights import hub as hub_client
from tbcluster.weights.hub import Hub
from tests.doubles.hub import HubServer
from tests.doubles.weights import MODEL

TOKEN = "hf_secretsecret"  # noqa: S105 - of no account


@pytest.fixture
def file(hub: HubServer) -> ListedFile:
    files = Hub(hub.url).listing(MODEL).files
    return next(file for file in files if file.holds_weights)


@pytest.fixture
def private_hub(
    repositories: Path, online: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer(repositories, token=TOKEN) as server:
        # As HF_ENDPOINT does.
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


def test_the_listing_is_pinned_and_holds_what_is_used(hub: HubServer, repositories: Path) -> None:
    (repositories / MODEL / "pytorch_model.bin").write_bytes(b"not used")
    (repositories / MODEL / "modeling.py").write_bytes(b"never run")
    (repositories / MODEL / ".config.json").write_bytes(b"hidden")
    listing = Hub(hub.url).listing(MODEL)
    for name in ("pytorch_model.bin", "modeling.py", ".config.json"):
        (repositories / MODEL / name).unlink()
    assert len(listing.revision) == 40
    assert listing.source == MODEL
    names = [file.path for file in listing.files]
    assert names == sorted(path.name for path in (repositories / MODEL).iterdir())
    for file in listing.files:
        assert file.size == (repositories / MODEL / file.path).stat().st_size
        assert (file.sha256 is not None) == file.holds_weights


def test_ranges_are_what_they_say(hub: HubServer, file: ListedFile, repositories: Path) -> None:
    client = Hub(hub.url)
    revision = client.listing(MODEL).revision
    content = (repositories / MODEL / file.path).read_bytes()
    for start, length in ((0, 1), (1, 100_000), (file.size - 1, 1), (0, file.size)):
        hub.sent.clear()
        found = client.read(MODEL, revision, Span(file.path, start, length), file.size)
        assert found == content[start : start + length]
        assert hub.sent_bytes == length


def test_connections_are_used_again(hub: HubServer, file: ListedFile) -> None:
    client = Hub(hub.url)
    revision = client.listing(MODEL).revision
    before = hub.num_connections
    for start in range(5):
        client.read(MODEL, revision, Span(file.path, start, 300_000), file.size)
    assert hub.num_connections <= before + 1


def test_a_file_of_another_size_is_refused(hub: HubServer, file: ListedFile) -> None:
    client = Hub(hub.url)
    revision = client.listing(MODEL).revision
    for span in (Span(file.path, 0, 10), Span(file.path, 0, file.size + 1)):
        with pytest.raises(FetchError, match="not the file that was listed"):
            client.read(MODEL, revision, span, file.size + 1)


def test_the_token_goes_to_the_hub_alone_and_into_no_log(
    private_hub: HubServer, repositories: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with HubServer(repositories) as elsewhere:
        private_hub.mischief.cdn = elsewhere.url
        client = Hub(private_hub.url)
        listing = client.listing(MODEL)
        file = next(file for file in listing.files if file.holds_weights)
        assert len(client.read(MODEL, listing.revision, Span(file.path, 5, 100), file.size)) == 100
        assert private_hub.seen_tokens == [f"Bearer {TOKEN}"]
        assert elsewhere.seen_tokens == [None]
        assert (private_hub.sent_bytes, elsewhere.sent_bytes) == (0, 100)
    assert TOKEN not in caplog.text


def test_a_signed_address_that_has_expired_is_asked_for_again(
    hub: HubServer, file: ListedFile, repositories: Path
) -> None:
    waits: list[float] = []
    client = Hub(hub.url, waits.append)
    revision = client.listing(MODEL).revision
    with HubServer(repositories) as elsewhere:
        hub.mischief.cdn = elsewhere.url
        elsewhere.mischief.statuses = [403]
        assert len(client.read(MODEL, revision, Span(file.path, 5, 100), file.size)) == 100
    assert len(waits) == 1


def test_without_a_token_it_says_what_to_do(
    private_hub: HubServer, repositories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    client = Hub(private_hub.url)
    with pytest.raises(ModelNotFoundError, match="hf auth login"):
        client.listing(MODEL)
    with pytest.raises(FetchError, match=r"is gated: accept its conditions at .*owner/gated"):
        client.listing("owner/gated")


def test_it_gives_up_in_the_end(
    hub: HubServer, file: ListedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    client = Hub(hub.url, waits.append)
    revision = client.listing(MODEL).revision
    hub.mischief.statuses = [503] * 20
    with pytest.raises(FetchError, match="answers 503"):
        client.read(MODEL, revision, Span(file.path, 0, 10), file.size)
    assert waits == list(hub_client.RETRY_DELAYS_S)


def test_a_revision_that_is_gone_is_named(hub: HubServer, file: ListedFile) -> None:
    with pytest.raises(FetchError, match="no longer has the files"):
        Hub(hub.url).read(MODEL, "f" * 40, Span(file.path, 0, 10), file.size)


def test_a_hub_that_somebody_else_names_is_shown_no_token(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    listing = Hub(hub.url).listing(MODEL)
    assert Hub(hub.url).gives(listing)
    assert hub.seen_tokens == [None]


def test_whether_it_gives_a_model_is_asked_once(
    private_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Hub(private_hub.url).listing(MODEL)
    assert Hub(private_hub.url).gives(listing)
    assert private_hub.sent_bytes == 1
    private_hub.mischief.statuses = [503]
    assert Hub(private_hub.url).gives(listing)
    monkeypatch.delenv("HF_TOKEN")
    assert not Hub(private_hub.url).gives(listing)
    assert not Hub("http://127.0.0.1:9").gives(listing)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not Hub(private_hub.url).gives(listing)
