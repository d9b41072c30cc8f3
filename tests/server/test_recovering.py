"""What is told of a cluster that recovers, or has too few nodes: status pages and metrics."""

from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.cluster.status import ClusterState, ClusterStatus, RecoveryStats
from tbcluster.core import StageRange
from tbcluster.server.metrics import Metrics
from tests.doubles.clusters import ScriptedCluster, ScriptedMachine
from tests.doubles.local_server import LocalServer

MODEL = "m"


def scripted() -> ScriptedCluster:
    return ScriptedCluster(ScriptedMachine(1, {MODEL: 1}), MODEL, 1, 0)


def status(state: ClusterState, doing: str | None = None, **facts: Any) -> ClusterStatus:
    return ClusterStatus(state, MODEL, facts.pop("stages", ()), 2, None, doing, **facts)


@pytest.fixture(scope="module")
def cluster() -> ScriptedCluster:
    return scripted()


@pytest.fixture(scope="module")
def server(cluster: ScriptedCluster) -> Iterator[LocalServer]:
    with LocalServer(Models.of(cast(Cluster, cluster)), is_open=False) as running:
        yield running


def test_nothing_is_ready_before_it_was_opened(
    server: LocalServer, cluster: ScriptedCluster
) -> None:
    cluster.told = status(ClusterState.RECOVERING)
    ready = httpx.get(f"{server.url}/ready")
    server.server.open()
    assert ready.status_code == 503
    assert ready.json() == {"status": "starting"}


@pytest.mark.parametrize(
    ("state", "code", "word"),
    [
        (ClusterState.READY, 200, "ok"),
        (ClusterState.RECOVERING, 200, "recovering"),
        (ClusterState.STARVED, 503, "starved"),
        (ClusterState.FAILED, 503, "failed"),
    ],
)
def test_how_it_is(
    server: LocalServer, cluster: ScriptedCluster, state: ClusterState, code: int, word: str
) -> None:
    server.server.open()
    cluster.told = status(state, "10 GB more are needed")
    health, ready = (httpx.get(f"{server.url}/{page}") for page in ("health", "ready"))
    assert (health.status_code, ready.status_code) == (code, code)
    assert health.json()["status"] == ready.json()["status"] == word
    assert health.json()["doing"] == "10 GB more are needed"


def test_what_was_recovered_from_is_counted() -> None:
    stages = (
        StageStatus(0, StageRange(0, 1), StageState.READY),
        StageStatus(1, StageRange(1, 2), StageState.READY, num_restarts=3),
    )
    recoveries = RecoveryStats(
        num_recoveries={"mend": 2, "replan": 1},
        last_seconds=1.5,
        total_seconds=7.0,
        num_parity_checks=5,
        num_parity_failures=1,
        num_paused=4,
    )
    told = status(ClusterState.RECOVERING, stages=stages, recoveries=recoveries)
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page(told))
        for sample in family.samples
    }
    assert {name: value for name, value in found.items() if name[0].startswith(RECOVERED)} == {
        ("tbcluster_recoveries_total", MODEL, "mend"): 2,
        ("tbcluster_recoveries_total", MODEL, "replan"): 1,
        ("tbcluster_recovery_seconds_count", MODEL): 3,
        ("tbcluster_recovery_seconds_sum", MODEL): 7,
        ("tbcluster_last_recovery_seconds", MODEL): 1.5,
        ("tbcluster_stage_restarts_total", "0", MODEL): 0,
        ("tbcluster_stage_restarts_total", "1", MODEL): 3,
        ("tbcluster_streams_paused", MODEL): 4,
        ("tbcluster_parity_checks_total", MODEL): 5,
        ("tbcluster_parity_failures_total", MODEL): 1,
    }


RECOVERED = tuple(
    f"tbcluster_{name}" for name in ("recover", "last_", "stage_restarts", "streams_", "parity_")
)


def page(told: ClusterStatus) -> str:
    cluster = scripted()
    cluster.told = told
    return Metrics(lambda: {MODEL: cast(Cluster, cluster)}).exposition().decode()


def test_before_anything_was_lost_the_names_are_there() -> None:
    listed = page(status(ClusterState.READY))
    assert "# TYPE tbcluster_recoveries_total counter" in listed
    assert f'tbcluster_recovery_seconds_count{{model="{MODEL}"}} 0.0' in listed
    assert "tbcluster_last_recovery_seconds{" not in listed
