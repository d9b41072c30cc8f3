"""Whatever a tool prints, half of it or something else, every reader takes it."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.hardware.commands import Output
from tbcluster.hardware.macos.probe import COMMANDS, describe
from tbcluster.machine import InterfaceKind, Machine, ThunderboltPort
from tests.doubles.mac import DESKTOP, FIXTURES, recorded

BASE = Machine("mini1", "Darwin 26.0", "arm64", "0.1.0", "3.11.7", num_cores=10, memory_bytes=7)
TEXTS = [recorded(path.name) for path in sorted(FIXTURES.iterdir())]
LINES = sorted({line for text in TEXTS for line in text.splitlines()})


@st.composite
def garbled(draw: st.DrawFn) -> str:
    """A recorded text that was cut off, or lost and gained characters and lines."""
    text = draw(st.sampled_from(TEXTS))
    lines = text[: draw(st.integers(0, len(text)))].splitlines()
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(lines)))
        lines[place : place + draw(st.integers(0, 2))] = [draw(st.sampled_from(LINES))]
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(0, len(lines) - 1)))
        lines[place : place + 1] = [
            line.replace(draw(st.sampled_from(line or " ")), draw(st.text(max_size=3)))
            for line in lines[place : place + 1]
        ]
    return "\n".join(lines)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def mutate(draw: st.DrawFn, value: Any) -> Any:
    """JSON of the same shape, in which any part may be something else or missing."""
    if draw(st.integers(0, 15)) == 0:
        return draw(ANYTHING)
    if isinstance(value, dict):
        return {key: mutate(draw, its) for key, its in value.items() if draw(st.integers(0, 15))}
    return [mutate(draw, its) for its in value] if isinstance(value, list) else value


@st.composite
def garbled_json(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from([path.name for path in sorted(FIXTURES.glob("*.json"))]))
    return json.dumps(mutate(draw, json.loads(recorded(name))))


def check(machine: Machine) -> None:
    """What everyone else takes for granted."""
    assert machine.num_cores >= 0
    assert len(machine.probe_errors) == len(set(machine.probe_errors))
    for interface in machine.interfaces:
        assert isinstance(interface.kind, InterfaceKind)
        assert all(0 <= address.prefix_length <= 128 for address in interface.addresses)
    for port in machine.thunderbolt:
        assert isinstance(port, ThunderboltPort)
        assert all(isinstance(name, str) for name in (port.receptacle, *port.via, *port.devices))
        assert isinstance(port.peer_port_id, str | None)


@settings(deadline=None)
@given(st.fixed_dictionaries({name: garbled() | st.text(max_size=30) for name in COMMANDS}))
def test_text(texts: dict[str, str]) -> None:
    check(describe(BASE, {name: Output(text) for name, text in texts.items()}))


@settings(deadline=None)
@given(thunderbolt=garbled_json(), hardware=garbled_json())
def test_json(thunderbolt: str, hardware: str) -> None:
    texts = {name: recorded(file) for name, file in DESKTOP.items()}
    texts |= {"rdma": "enabled", "sysctl": "", "thunderbolt": thunderbolt, "hardware": hardware}
    check(describe(BASE, {name: Output(text) for name, text in texts.items()}))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_place_to_cut(name: str) -> None:
    texts = {name: recorded(file) for name, file in DESKTOP.items()} | {"rdma": "enabled\n"}
    whole = texts[name]
    for end in range(0, len(whole), max(1, len(whole) // 60)):
        cut = {**texts, name: whole[:end]}
        check(describe(BASE, {tool: Output(text) for tool, text in cut.items()}))


def test_numbers_too_long_to_be_numbers() -> None:
    # int() refuses more than 4300 digits.
    digits = "9" * 5000
    texts = {name: re.sub(r"\d+", digits, recorded(file)) for name, file in DESKTOP.items()}
    texts["rdma"] = digits
    check(describe(BASE, {name: Output(text) for name, text in texts.items()}))
