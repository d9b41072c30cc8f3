"""RDMA over Thunderbolt, as `rdma_ctl status`, `ibv_devices` and `ibv_devinfo` tell it."""

import re

from tbcluster.machine import RdmaState

# Name and GUID; the headings above have other second words.
_DEVICE = re.compile(r"(\S+)\s+[0-9a-fA-F]{16}")
_STATE = re.compile(r"state:\s*(PORT_\w+)")


def rdma_state(status: str) -> RdmaState | None:
    """What `rdma_ctl status` says; None if that is neither of its two words."""
    return {"enabled": RdmaState.ENABLED, "disabled": RdmaState.DISABLED}.get(
        status.strip().lower()
    )


def rdma_devices(text: str) -> tuple[str, ...]:
    """The devices that `ibv_devices` lists, such as rdma_en3. Macs with Thunderbolt 4 have none,
    even if RDMA is on."""
    found = (_DEVICE.fullmatch(line.strip()) for line in text.splitlines())
    return tuple(device[1] for device in found if device)


def port_states(text: str) -> dict[str, str]:
    """Device -> its port's state by `ibv_devinfo`, such as rdma_en3 -> PORT_ACTIVE."""
    states: dict[str, str] = {}
    device: str | None = None
    for line in map(str.strip, text.splitlines()):
        if line.startswith("hca_id:"):
            device = line.removeprefix("hca_id:").strip()
        elif device and (state := _STATE.match(line)):
            states[device] = state[1]
    return states
