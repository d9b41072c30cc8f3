"""Two copies of a model side by side, each with stage processes of its own."""

import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import mlx_lm
import pytest

import tbcluster
from tbcluster.cluster.assembly import places_on
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.order import Order
from tbcluster.cluster.parity import TOLERANCE
from tbcluster.cluster.parity_check import NUM_PROBE_TOKENS, ConsistencyCheck, probe_prompt
from tbcluster.cluster.preparation import Preparation
from tbcluster.cluster.replicas import ReplicaSet
from tbcluster.cluster.status import ClusterState
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.errors import ParityError
from tbcluster.planner.plan import Wishes
from tests.doubles.waiting import wait_until

NUM_TOKENS = 12
TWO = Wishes(replicas=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(stages=1, wishes=TWO) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(300, 1000) for _ in range(70 + number)] for number in range(6)]


@pytest.fixture(scope="module")
def expected(prompts: list[list[int]]) -> list[list[int]]:
    model, tokenizer = mlx_lm.load(str(MODEL_PATH))
    if not mx.metal.is_available():
        model.set_dtype(mx.float32)
    return [
        [r.token for r in mlx_lm.stream_generate(model, tokenizer, p, max_tokens=NUM_TOKENS)]
        for p in prompts
    ]


def tokens_of(cluster: Cluster, prompt: list[int], *, cache_prompt: bool = True) -> list[int]:
    stream = tbcluster.stream_generate(
        cluster, cluster.tokenizer, prompt, max_tokens=NUM_TOKENS, cache_prompt=cache_prompt
    )
    return [response.token for response in stream]


def reset(cluster: Cluster) -> None:
    def is_reset() -> bool:
        # Again and again: the probe's last step may come back after a reset.
        cluster.reset_statistics()
        return cluster.statistics().num_steps == 0

    wait_until(is_reset, "all engines count from zero")


def computed(counted: EngineStatistics) -> list[bool]:
    """Which stages have computed anything."""
    return [stage.compute_us > 0 for stage in counted.stages]


def test_both_are_there_and_numbered_through(cluster: Cluster) -> None:
    status = cluster.status()
    assert status.state is ClusterState.READY
    assert [(stage.index, stage.replica) for stage in status.stages] == [(0, 0), (1, 1)]
    assert [str(stage.layers) for stage in status.stages] == ["0-7", "0-7"]
    assert len({stage.pid for stage in status.stages}) == 2
    assert cluster.plan is not None
    assert len(cluster.plan.replicas) == 2


def test_requests_at_once_go_to_both_and_equal_mlx_lm(
    cluster: Cluster, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    reset(cluster)
    got: dict[int, list[int]] = {}

    def run(index: int) -> None:
        got[index] = tokens_of(cluster, prompts[index], cache_prompt=False)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(len(prompts))] == expected
    counted = cluster.statistics()
    assert computed(counted) == [True, True]
    assert counted.num_prompt_tokens == sum(map(len, prompts))
    assert len(counted.kv_budget_bytes) == 2
    assert cluster.status().num_requests == 0


def test_a_request_goes_where_its_prefix_is(
    cluster: Cluster, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    # While something runs on the first replica, the second is less loaded and gets the prompt.
    busy = tbcluster.stream_generate(
        cluster, cluster.tokenizer, [300] * 5, max_tokens=900, cache_prompt=False
    )
    next(busy)
    assert tokens_of(cluster, prompts[0]) == expected[0]
    busy.close()
    wait_until(lambda: cluster.status().num_requests == 0, "nothing runs")
    reset(cluster)
    # Both are idle now: without a prefix it would be the first one's.
    assert tokens_of(cluster, prompts[0]) == expected[0]
    counted = cluster.statistics()
    assert computed(counted) == [False, True]
    assert counted.num_cached_tokens == len(prompts[0]) - 1


def test_while_one_recovers_the_other_answers_and_takes_over_what_was_running(
    cluster: Cluster, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    running = tbcluster.stream_generate(
        cluster, cluster.tokenizer, prompts[0], max_tokens=NUM_TOKENS, cache_prompt=False
    )
    tokens = [next(running).token]
    os.kill(cluster.status().stages[0].pid, signal.SIGKILL)
    tokens += [part.token for part in running]
    assert tokens == expected[0]
    assert cluster.status().state is ClusterState.READY
    assert tokens_of(cluster, prompts[1], cache_prompt=False) == expected[1]

    def is_back() -> bool:
        reset(cluster)
        tokens_of(cluster, [400], cache_prompt=False)
        return computed(cluster.statistics())[0]

    wait_until(is_back, "the first replica answers again")
    assert [stage.num_restarts for stage in cluster.status().stages] == [1, 0]


def test_a_replica_that_fails_for_good_leaves_the_other(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_PATH, folder)
    with Cluster(folder, stages=1, wishes=TWO) as cluster:
        # The second worker's pid first: its own weights stay as they were loaded.
        first, second = (stage.pid for stage in cluster.status().stages)
        spoil(folder / "model.safetensors", "model.layers.6.mlp.down_proj.weight")
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: cluster.status().error is not None, "the first replica is given up")
        status = cluster.status()
        assert status.state is ClusterState.READY
        assert "parity check failed" in str(status.error)
        assert len(tokens_of(cluster, [300] * 5)) > 0
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: cluster.status().state is ClusterState.FAILED, "both have failed")
        with pytest.raises(ParityError):
            tokens_of(cluster, [300] * 5)


def test_decode_steps_agree_with_prompts() -> None:
    """What is checked where no machine holds the unsharded model, with caches that round most."""
    order = Order(kv=KvOptions(bits=4), wishes=Wishes(stages=2))
    preparation = Preparation(
        order,
        None,
        lambda: False,
        on_plan=lambda _: None,
        on_fetch=lambda _: None,
        on_note=lambda _: None,
    )
    prepared = preparation.run()
    model = prepared.replicas[0]
    prompt = probe_prompt(model.tokenizer, model.facts.vocab_size)
    check = ConsistencyCheck(prompt, TOLERANCE["float32"])
    replicas = ReplicaSet(prepared.replicas, places_on(None), check, lambda _: None)
    try:
        replicas.load()
        replicas.check()
        assert replicas.statistics().num_generated_tokens == 2 * NUM_PROBE_TOKENS
    finally:
        replicas.close()


def spoil(path: Path, name: str) -> None:
    """Write the file anew with one tensor changed; who has the old one open keeps it."""
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    tensors[name] = -tensors[name]
    mx.eval(tensors)
    path.unlink()
    mx.save_safetensors(str(path), tensors, metadata={"format": "mlx"})
