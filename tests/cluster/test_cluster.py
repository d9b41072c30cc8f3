"""Real stage processes: parity with mlx-lm, death of a worker, and nothing left behind."""

import itertools
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import pytest

import tbcluster
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.recovery.record import RecoveryKind
from tbcluster.cluster.status import ClusterState
from tbcluster.core import Output
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.sequence import Listener
from tbcluster.errors import (
    ClusterClosedError,
    ContextLengthError,
    CorruptModelError,
    ModelNotFoundError,
    ParityError,
    PlanError,
    QueueFullError,
    RequestError,
    StageError,
    UnsupportedModelError,
)
from tests.doubles.checkpoints import LlamaSizes, write_endless_llama, write_llama
from tests.doubles.processes import is_alive, run_dirs
from tests.doubles.waiting import wait_until

NUM_PROMPTS = 50
NUM_TOKENS = 24


@pytest.fixture(autouse=True)
def own_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sockets in a folder of the test's own, which must be empty of them at the end. Under /tmp,
    since the path of a socket is short."""
    folder = Path(tempfile.mkdtemp(prefix="tbc-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    left = run_dirs(folder)
    shutil.rmtree(folder)
    assert not left


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = random.Random(0)
    lengths = [rng.randrange(1, 60) for _ in range(NUM_PROMPTS)]
    return [[rng.randrange(300, 1000) for _ in range(length)] for length in lengths]


@pytest.fixture(scope="module")
def expected(prompts: list[list[int]]) -> list[list[int]]:
    model, tokenizer = mlx_lm.load(str(MODEL_PATH))
    if not mx.metal.is_available():
        model.set_dtype(mx.float32)
    return [
        [r.token for r in mlx_lm.stream_generate(model, tokenizer, p, max_tokens=NUM_TOKENS)]
        for p in prompts
    ]


@pytest.mark.parametrize(("stages", "num_prompts"), [(1, 12), (2, 12), (3, NUM_PROMPTS), (8, 12)])
def test_tokens_equal_mlx_lm(
    stages: int, num_prompts: int, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    model, tokenizer = tbcluster.load(stages=stages)
    with model:
        assert len(model.status().stages) == stages
        got = [tokens_of(model, tokenizer, prompt) for prompt in prompts[:num_prompts]]
    assert got == expected[:num_prompts]


def test_requests_at_once_do_not_disturb_one_another(
    demo_cluster: Cluster, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    got: dict[int, list[int]] = {}

    def run(index: int) -> None:
        got[index] = tokens_of(demo_cluster, demo_cluster.tokenizer, prompts[index])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(12)] == expected[:12]


def test_statistics_count_since_the_last_reset(prompts: list[list[int]]) -> None:
    long = max(prompts, key=len)
    with Cluster(stages=2) as cluster:

        def is_reset() -> bool:
            # Again and again: the probe's last step may come back after a reset.
            cluster.reset_statistics()
            return cluster.statistics().num_steps == 0

        wait_until(is_reset, "the probe is no longer counted")
        for _ in range(2):
            tokens_of(cluster, cluster.tokenizer, long)
        counted = cluster.statistics()
        assert len(counted.stages) == len(counted.kv_used_bytes) == 2
        assert counted.num_prompt_tokens == 2 * len(long)
        assert counted.num_cached_tokens == len(long) - 1
        assert 2 <= counted.num_generated_tokens <= 2 * NUM_TOKENS
        assert counted.num_steps >= counted.num_generated_tokens
        assert counted.num_prefixes >= 1
        assert all(stage.compute_us > 0 for stage in counted.stages)
        used = zip(counted.kv_used_bytes, counted.kv_budget_bytes, strict=True)
        assert all(0 < held <= budget for held, budget in used)


def test_known_prefixes_survive_a_restart(
    tmp_path: Path, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    number, long = max(enumerate(prompts), key=lambda pair: len(pair[1]))
    kv_folder = tmp_path / "saved"
    kv = KvOptions(prefix_folder=kv_folder)

    def num_cached(cluster: Cluster) -> int:
        cluster.reset_statistics()
        assert tokens_of(cluster, cluster.tokenizer, long) == expected[number]
        return cluster.statistics().num_cached_tokens

    def is_saved(cluster: Cluster) -> bool:
        """Whether each stage has written its part of each prefix, and the coordinator knows."""
        times = {path: path.stat().st_mtime_ns for path in kv_folder.glob("*/*/*.safetensors")}
        noted = [path.stat().st_mtime_ns for path in kv_folder.glob("*/prefixes")]
        is_written = len(times) == 2 * cluster.statistics().num_prefixes > 0
        return is_written and max(noted, default=0) >= max(times.values())

    with Cluster(stages=2, kv=kv) as cluster:
        assert num_cached(cluster) == 0
        wait_until(lambda: is_saved(cluster), "all that is known is saved")
    with Cluster(stages=2, kv=kv) as cluster:
        assert num_cached(cluster) >= len(long) - 2
    # Another cut has caches of its own.
    with Cluster(stages=1, kv=kv) as cluster:
        assert num_cached(cluster) == 0


def test_without_a_prefix_cache_nothing_is_known(prompts: list[list[int]]) -> None:
    long = max(prompts, key=len)
    with Cluster(stages=1, kv=KvOptions(prefix_cache=False)) as cluster:
        for _ in range(2):
            tokens_of(cluster, cluster.tokenizer, long)
        assert cluster.statistics().num_cached_tokens == 0
        assert cluster.statistics().num_prefixes == 0


def test_little_kv_memory_lets_requests_wait_and_refuses_what_never_fits(
    prompts: list[list[int]], expected: list[list[int]]
) -> None:
    # Of 4,096 bytes a token: one of these prompts at a time, since caches grow by blocks.
    with Cluster(stages=1, kv=KvOptions(memory_bytes=3 * 2**20)) as cluster:
        with pytest.raises(ContextLengthError, match=r"stage 0 has 3\.0 MiB; more: --kv-memory"):
            tbcluster.generate(cluster, cluster.tokenizer, [300] * 500)
        got: dict[int, list[int]] = {}

        def run(index: int) -> None:
            got[index] = tokens_of(cluster, cluster.tokenizer, prompts[index])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [got[i] for i in range(6)] == expected[:6]
        assert cluster.statistics().kv_used_bytes[0] <= 3 * 2**20


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_caches_are_checked_against_quantized_caches(bits: int) -> None:
    with Cluster(stages=2, kv=KvOptions(bits=bits)) as cluster:
        assert tbcluster.generate(cluster, cluster.tokenizer, [300] * 5, max_tokens=5)


def test_an_answer_goes_on_when_a_worker_was_killed() -> None:
    with Cluster(stages=2) as cluster:
        undisturbed = tokens_of(cluster, cluster.tokenizer, [300] * 5, max_tokens=60)
        answer = tbcluster.stream_generate(cluster, cluster.tokenizer, [300] * 5, max_tokens=60)
        tokens = [next(answer).token]
        victim = cluster.status().stages[1].pid
        os.kill(victim, signal.SIGKILL)
        tokens += [part.token for part in answer]
        assert tokens == undisturbed
        status = cluster.status()
        assert status.state is ClusterState.READY
        assert status.stages[1].pid != victim
        assert [stage.num_restarts for stage in status.stages] == [0, 1]
        assert not is_alive(victim)
        (record,) = cluster.recovery_records
        assert record.kind is RecoveryKind.RESTART
        assert record.why == "stage 1 was killed by signal 9"
        assert record.resumed_at is not None
        times = [record.noticed_at, record.loaded_at, record.opened_at, record.resumed_at]
        assert times == sorted(times)
        assert status.recoveries.num_recoveries == {"restart": 1}


def test_all_workers_killed_at_once_are_replaced_at_once() -> None:
    with Cluster(stages=4) as cluster:
        for stage in cluster.status().stages:
            os.kill(stage.pid, signal.SIGKILL)
        wait_until(
            lambda: all(stage.num_restarts for stage in cluster.status().stages),
            "all stages are started again",
        )
        assert tbcluster.generate(cluster, cluster.tokenizer, [300] * 5, max_tokens=5)
        assert cluster.status().state is ClusterState.READY


def test_recovery_goes_past_a_full_queue() -> None:
    with Cluster(stages=1) as cluster:
        endings: queue.SimpleQueue[object] = queue.SimpleQueue()
        os.kill(cluster.status().stages[0].pid, signal.SIGKILL)
        num_waiting = fill_queue(cluster, endings.put)
        answers = [endings.get(timeout=60) for _ in range(num_waiting)]
        assert all(isinstance(answer, Output) for answer in answers)
        assert cluster.status().state is ClusterState.READY


def test_answers_after_a_restart_still_equal_mlx_lm(
    prompts: list[list[int]], expected: list[list[int]]
) -> None:
    with Cluster(stages=3) as cluster:
        for stage in (0, 2):
            os.kill(cluster.status().stages[stage].pid, signal.SIGKILL)
            wait_until(
                lambda stage=stage: cluster.status().stages[stage].num_restarts == 1,  # type: ignore[misc]
                "the stage is started again",
            )
            assert tokens_of(cluster, cluster.tokenizer, prompts[stage]) == expected[stage]


def test_a_stage_that_comes_back_with_other_weights_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_PATH, folder)
    with Cluster(folder, stages=2) as cluster:
        spoil(folder / "model.safetensors", "model.layers.6.mlp.down_proj.weight")
        os.kill(cluster.status().stages[1].pid, signal.SIGKILL)
        wait_until(lambda: cluster.status().state is ClusterState.FAILED, "the cluster gives up")
        assert "parity check failed" in str(cluster.status().error)
        with pytest.raises(ParityError):
            tbcluster.generate(cluster, cluster.tokenizer, [300], max_tokens=1)


def test_closing_leaves_no_process(own_tmpdir: Path) -> None:
    cluster = Cluster(stages=2).start()
    pids = [stage.pid for stage in cluster.status().stages]
    assert all(is_alive(pid) for pid in pids)
    assert run_dirs(own_tmpdir)
    cluster.close()
    cluster.close()  # a second time is fine
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(ClusterClosedError):
        tbcluster.generate(cluster, cluster.tokenizer, [300], max_tokens=1)


@pytest.mark.parametrize("end", ["kill", "exit"])
def test_workers_do_not_outlive_their_parent(end: str, own_tmpdir: Path) -> None:
    script = (
        "import tbcluster, sys, os, signal\n"
        "model, _ = tbcluster.load(stages=2)\n"
        "print(*[s.pid for s in model.status().stages], flush=True)\n"
        + ("os.kill(os.getpid(), signal.SIGKILL)\n" if end == "kill" else "")
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2, done.stderr
    wait_until(lambda: not any(is_alive(pid) for pid in pids), "the workers are gone")
    wait_until(lambda: not run_dirs(own_tmpdir), "the sockets are gone")


def test_leaving_an_answer_early_frees_its_place(tmp_path: Path) -> None:
    with Cluster(write_endless_llama(tmp_path / "model"), stages=1) as cluster:
        for _ in tbcluster.stream_generate(cluster, cluster.tokenizer, [5], max_tokens=10**9):
            break
        wait_until(lambda: cluster.status().num_requests == 0, "the request is cancelled")


def test_equal_seeds_give_equal_text_whatever_else_runs(demo_cluster: Cluster) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 1.5}

    def sample(seed: int) -> str:
        tokenizer = demo_cluster.tokenizer
        return tbcluster.generate(demo_cluster, tokenizer, [300], seed=seed, **options)

    first = sample(1)
    assert sample(2) != first
    others = [threading.Thread(target=sample, args=(seed,)) for seed in range(3, 8)]
    for other in others:
        other.start()
    assert sample(1) == first
    for other in others:
        other.join()


def test_requests_out_of_range_are_refused_by_name(demo_cluster: Cluster) -> None:
    tokenizer = demo_cluster.tokenizer
    with pytest.raises(RequestError, match="prompt is empty"):
        tbcluster.generate(demo_cluster, tokenizer, [])
    with pytest.raises(RequestError, match="token id 99999999 is not in the vocabulary"):
        tbcluster.generate(demo_cluster, tokenizer, [99999999])
    with pytest.raises(ContextLengthError, match="1024"):
        tbcluster.generate(demo_cluster, tokenizer, [300] * 1024)
    with pytest.raises(RequestError, match="temperature is -1"):
        tbcluster.generate(demo_cluster, tokenizer, [300], temperature=-1)


def test_a_tokenizer_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_PATH, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "EvilTokenizer"
    settings["auto_map"] = {"AutoTokenizer": ["evil.EvilTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer.json").unlink()
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises((UnsupportedModelError, CorruptModelError)):
        Cluster(folder).start()
    assert not (tmp_path / "ran").exists()


def test_a_closed_cluster_stays_closed() -> None:
    cluster = Cluster(stages=1)
    cluster.close()
    with pytest.raises(ClusterClosedError), cluster:
        pass


def test_unknown_options_are_refused_by_name(demo_cluster: Cluster) -> None:
    tokenizer = demo_cluster.tokenizer
    with pytest.raises(RequestError, match="no option 'temp': use"):
        tbcluster.generate(demo_cluster, tokenizer, [300], temp=1.0)  # type: ignore[call-arg]
    prompt = "The capital of France is"
    whole = tbcluster.generate(demo_cluster, tokenizer, prompt, max_tokens=12)
    stop = whole[3:6]
    cut = tbcluster.generate(demo_cluster, tokenizer, prompt, max_tokens=12, stop=stop)
    assert cut == whole[: whole.index(stop)]


def test_too_many_stages_names_the_most() -> None:
    with pytest.raises(PlanError, match=r"9 stages are too many.*at most 8"):
        Cluster(stages=9).start()


@pytest.mark.parametrize("stages", [0, -1])
def test_no_stages(stages: int) -> None:
    with pytest.raises(PlanError, match="1 or more"):
        Cluster(stages=stages)


def test_missing_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no folder"):
        Cluster(tmp_path / "nothing").start()


def test_unknown_architecture(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_llama(folder, LlamaSizes())
    config = (folder / "config.json").read_text().replace('"llama"', '"martian"')
    (folder / "config.json").write_text(config)
    with pytest.raises(UnsupportedModelError, match="martian"):
        Cluster(folder).start()


def test_truncated_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODEL_PATH, folder)
    weights = folder / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1000)
    with pytest.raises(CorruptModelError, match="truncated"):
        Cluster(folder).start()


def test_a_stage_that_cannot_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    # A broken site customisation of the user's kills every worker before it can speak.
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(3)")
    with pytest.raises(StageError, match="ended with status 3"):
        Cluster(stages=2).start()


def fill_queue(cluster: Cluster, listener: Listener) -> int:
    """Submit requests until one is refused, and say how many were not."""
    for num_submitted in itertools.count():
        try:
            cluster.submit(cluster.make_request([300], max_tokens=1), listener)
        except QueueFullError:
            return num_submitted
    raise AssertionError("the queue has no bound")


def tokens_of(
    model: Cluster, tokenizer: Any, prompt: list[int], max_tokens: int = NUM_TOKENS
) -> list[int]:
    stream = tbcluster.stream_generate(model, tokenizer, prompt, max_tokens=max_tokens)
    return [response.token for response in stream]


def spoil(path: Path, name: str) -> None:
    """Write the file anew with one tensor changed; who has the old one open keeps it."""
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    tensors[name] = -tensors[name]
    mx.eval(tensors)
    path.unlink()
    mx.save_safetensors(str(path), tensors, metadata={"format": "mlx"})
