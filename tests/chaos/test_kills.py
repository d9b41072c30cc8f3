"""kill -9 of a worker at any point of its life: the streams go on as if nothing had happened."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tbcluster.cluster.status import ClusterState
from tbcluster.wire.control import Bound, Loading, Ready, Routed
from tests.chaos.scene import (
    LAST,
    MIDDLE,
    NUM_STAGES,
    TO_FIRST,
    Condition,
    Counted,
    Scene,
    both,
    crossed,
    has_rules,
    is_chunk,
    is_decode,
    is_long_chunk,
    launched,
    said,
)
from tests.chaos.streams import (
    LONG_PROMPT,
    SHARED,
    Stream,
    await_tokens,
    eight,
    finished,
    submitted,
)
from tests.doubles.waiting import wait_until

ENOUGH = 5


def has_begun(loading: Loading) -> bool:
    return loading.loaded_bytes < loading.total_bytes


# The life of a worker that is started again: what it has said last, or what was seen of it.
COMING_BACK: dict[str, Callable[[Scene], Condition]] = {
    "before its spec": lambda _: launched(MIDDLE),
    "bound": lambda _: said(MIDDLE, Bound),
    "loading": lambda _: said(MIDDLE, Loading, has_begun),
    "loaded": lambda _: said(MIDDLE, Ready),
    "connected": lambda _: said(MIDDLE, Routed),
    "in the parity probe": lambda stage: crossed((0, MIDDLE), stage.is_of_next_epoch()),
    "in the first prefill after it": lambda stage: crossed(
        TO_FIRST, both(stage.is_of_next_epoch(), is_chunk)
    ),
}
# Of one that works, and which one is killed then.
WORKING: dict[str, tuple[Callable[[], Condition], int]] = {
    "first chunk": (lambda: crossed(TO_FIRST, is_chunk), 0),
    "mid-prompt": (lambda: Counted(crossed((0, MIDDLE), is_long_chunk), 2), MIDDLE),
    "first decode": (lambda: crossed(TO_FIRST, is_decode), LAST),
    "tenth decode": (lambda: Counted(crossed((0, MIDDLE), is_decode), 10), 0),
    "grammar in use": (lambda: Counted(crossed((MIDDLE, LAST), has_rules), 5), LAST),
}


@pytest.mark.parametrize("point", COMING_BACK)
def test_killed_again_while_it_comes_back(stage: Scene, point: str) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    killed = stage.kill_when(COMING_BACK[point](stage), MIDDLE)
    stage.kill(MIDDLE)
    wait_until(killed.is_set, f"the worker is killed again {point}")
    stage.check(streams)


@pytest.mark.parametrize("point", WORKING)
def test_killed_while_it_works(stage: Scene, point: str) -> None:
    condition, victim = WORKING[point]
    killed = stage.kill_when(condition(), victim)
    streams = submitted(stage.cluster)
    wait_until(killed.is_set, f"the worker is killed: {point}")
    stage.check(streams)


def test_killed_while_nothing_runs(stage: Scene) -> None:
    stage.kill(0)
    wait_until(lambda: stage.cluster.status().state is not ClusterState.READY, "that is noticed")
    stage.await_ready()
    stage.check(submitted(stage.cluster))


def test_killed_while_another_one_comes_back(stage: Scene) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    killed = stage.kill_when(said(LAST, Bound), 0)
    stage.kill(LAST)
    wait_until(killed.is_set, "the other one is killed")
    stage.check(streams)


@pytest.mark.parametrize("victims", [(0, LAST), range(NUM_STAGES)], ids=["two", "all"])
def test_several_killed_at_once(stage: Scene, victims: Sequence[int]) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    stage.kill(*victims)
    stage.check(streams)


def test_killed_right_after_the_streams_go_on(stage: Scene) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    stage.kill(MIDDLE)
    wait_until(lambda: stage.cluster.status().state is not ClusterState.READY, "that is noticed")
    stage.await_ready()
    stage.kill(0)
    stage.check(streams)


def test_killed_while_a_stream_is_cancelled(stage: Scene) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    # The one with the long prompt, which is far from its end.
    leaving, staying = streams[1], [*streams[:1], *streams[2:]]
    leaving.cancel()
    stage.kill(MIDDLE)
    assert finished(staying) == [*stage.expected[:1], *stage.expected[2:]]
    stage.check_nothing_left()
    assert leaving.error is None
    assert not leaving.is_over.is_set()
    assert leaving.tokens == stage.expected[1][: len(leaving.tokens)]


def test_killed_while_requests_wait(stage: Scene) -> None:
    """What comes during a recovery waits, through another one too, and may be cancelled."""
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    is_back = stage.kill_when(said(MIDDLE, Ready), MIDDLE)
    stage.kill(MIDDLE)
    waiting = submitted(stage.cluster)
    leaving = Stream(stage.cluster, eight(stage.cluster)[0])
    leaving.cancel()
    wait_until(is_back.is_set, "the worker is killed again")
    assert finished(waiting) == stage.expected
    assert not leaving.outputs
    stage.check(streams)


def test_killed_during_an_embedding(stage: Scene) -> None:
    def embedded() -> Stream:
        request = stage.cluster.make_embedding_request(LONG_PROMPT, "mean", cache_prompt=False)
        return Stream(stage.cluster, request)

    undisturbed = embedded()
    undisturbed.finish()
    killed = stage.kill_when(Counted(crossed((0, MIDDLE), is_long_chunk), 2), LAST)
    disturbed = embedded()
    disturbed.finish()
    assert killed.is_set()
    # Sums of other chunks: where a prompt is cut depends on the time that steps take.
    vector = disturbed.outputs[-1].embedding
    assert vector == pytest.approx(undisturbed.outputs[-1].embedding, rel=1e-4, abs=1e-5)
    stage.check_nothing_left()


def test_killed_while_known_prefixes_are_in_use(stage: Scene) -> None:
    """The prefixes are gone with the worker, and so is what was gained from them."""

    def shared() -> list[Stream]:
        requests = [replace(asked, cache_prompt=True) for asked in eight(stage.cluster)[2:4]]
        assert all(asked.prompt[: len(SHARED)] == SHARED for asked in requests)
        return [Stream(stage.cluster, request) for request in requests]

    expected = stage.expected[2:4]
    assert finished(shared()) == expected
    again = shared()
    wait_until(lambda: all(stream.outputs for stream in again), "both have begun")
    assert all(stream.outputs[0].num_cached_tokens >= len(SHARED) for stream in again)
    stage.kill(0)
    assert finished(again) == expected
    assert finished(shared()) == expected
    stage.check_nothing_left()
