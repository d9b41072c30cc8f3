"""RDMA over Thunderbolt, on and off."""

import pytest

from tbcluster.hardware.macos.rdma import port_states, rdma_devices, rdma_state
from tbcluster.machine import RdmaState
from tests.doubles.mac import recorded


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("enabled\n", RdmaState.ENABLED),
        ("disabled\n", RdmaState.DISABLED),
        ("\nEnabled", RdmaState.ENABLED),
        ("not enabled\n", None),
        ("", None),
    ],
)
def test_state(status: str, expected: RdmaState | None) -> None:
    assert rdma_state(status) is expected


def test_devices() -> None:
    assert rdma_devices(recorded("ibv_devices_on.txt")) == ("rdma_en3", "rdma_en2", "rdma_en4")
    assert rdma_devices(recorded("ibv_devices_none.txt")) == ()


def test_ports() -> None:
    assert port_states(recorded("ibv_devinfo.txt")) == {
        "rdma_en3": "PORT_ACTIVE",
        "rdma_en2": "PORT_DOWN",
    }
    assert port_states("state: PORT_ACTIVE (4)\nhca_id:\nstate: PORT_DOWN (1)\n") == {}
