"""Nodes that are cut off, come back and are drained while clients read their streams over HTTP: the
streams wait, and go on with the text that they would have had."""

from collections.abc import Iterator

import pytest

from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.faults.clients import RunningStream
from tests.doubles.faults.rack import HEAD, THREE, TWO, FaultRack
from tests.doubles.faults.signals import kill
from tests.doubles.namespaces import Network, needs_namespaces
from tests.doubles.waiting import wait_until

pytestmark = needs_namespaces

NUM_LAYERS = 6
PLACES = ("two=0-1", "three=2-3", "head=4-5")
NUM_TOKENS, ENOUGH = 80, 10
# More than can be had before something happens to the nodes.
ENDLESS = 5000
DEADLINE_S = 90.0


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultRack]:
    """Three nodes with a stage on each."""
    model = write_llama(
        tmp_path_factory.mktemp("endless") / "endless",
        LlamaSizes(NUM_LAYERS, max_position_embeddings=10**9),
        with_tokenizer=True,
    )
    options = [word for place in PLACES for word in ("--place", place)]
    with Network() as network, FaultRack(network, model, *options) as made:
        made.serve()
        yield made


@pytest.fixture(scope="module")
def undisturbed(rack: FaultRack) -> list[str]:
    """What the streams say where nothing goes wrong."""
    return finished(running(rack))


def test_a_worker_is_killed(rack: FaultRack, undisturbed: list[str]) -> None:
    streams = begun(rack)
    victim = rack.stage(1)["pid"]
    kill(victim)
    assert finished(streams) == undisturbed
    assert rack.stage(1)["pid"] != victim


def test_a_node_is_cut_off_and_comes_back(rack: FaultRack, undisturbed: list[str]) -> None:
    streams = begun(rack)
    rack.cut(THREE)
    assert finished(streams) == undisturbed
    assert THREE not in rack.nodes_in_use()
    rack.mend(THREE)
    # While nobody asks for anything it is taken in again.
    rack.await_nodes(HEAD, TWO, THREE)
    assert finished(running(rack)) == undisturbed


def test_an_agent_is_killed(rack: FaultRack, undisturbed: list[str]) -> None:
    """With it go the workers that it had started."""
    streams = begun(rack)
    rack.agents[TWO].kill()
    assert finished(streams) == undisturbed
    rack.await_nodes(HEAD, TWO, THREE)


def test_a_node_is_drained_and_taken_back(rack: FaultRack, undisturbed: list[str]) -> None:
    streams = begun(rack)
    rack.tbcluster(HEAD, "drain", TWO)
    assert TWO not in rack.nodes_in_use()
    assert finished(streams) == undisturbed
    rack.tbcluster(HEAD, "undrain", TWO)
    rack.await_nodes(HEAD, TWO, THREE)
    assert finished(running(rack)) == undisturbed


def test_too_few_nodes_are_left(rack: FaultRack, undisturbed: list[str]) -> None:
    rack.tbcluster(HEAD, "drain", HEAD)
    streams = begun(rack, ENDLESS)
    rack.cut(TWO)
    rack.cut(THREE)
    for stream in streams:
        with pytest.raises(AssertionError, match='"code": "starved"'):
            stream.finish(DEADLINE_S)
    refused = rack.complete([5, 6], 1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starved")
    assert "Retry-After" in refused.headers
    health = rack.health()
    assert health is not None
    assert health["status"] == "starved"
    assert health["num_requests"] == 0
    rack.mend(TWO)
    rack.mend(THREE)
    rack.await_well()
    assert finished(running(rack)) == undisturbed
    rack.tbcluster(HEAD, "undrain", HEAD)


def test_a_node_is_revoked(rack: FaultRack, undisturbed: list[str]) -> None:
    """For good: what follows has to do without it."""
    rack.await_nodes(HEAD, TWO, THREE)
    streams = begun(rack)
    rack.tbcluster(HEAD, "nodes", "revoke", THREE, "--yes")
    assert finished(streams) == undisturbed
    wait_until(lambda: THREE not in rack.nodes_in_use(), "it runs nothing")
    rack.await_well()
    assert finished(running(rack)) == undisturbed


def running(rack: FaultRack, num_tokens: int = NUM_TOKENS) -> list[RunningStream]:
    """All eight streams."""
    return [rack.submit(asked) for asked in rack.eight(num_tokens)]


def begun(rack: FaultRack, num_tokens: int = NUM_TOKENS) -> list[RunningStream]:
    """The same, once each has some tokens."""
    streams = running(rack, num_tokens)
    wait_until(
        lambda: all(len(stream.times) >= ENOUGH for stream in streams), "each stream has begun"
    )
    return streams


def finished(streams: list[RunningStream]) -> list[str]:
    """What they said."""
    return [stream.finish(DEADLINE_S) for stream in streams]
