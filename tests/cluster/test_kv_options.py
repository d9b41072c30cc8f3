"""Options that make no sense are refused, and budgets follow what sequences take."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.kv_options import (
    DEFAULT_DISK_BYTES,
    KV_SHARE,
    MIN_CAPACITY_TOKENS,
    REFERENCE_TOKENS,
    KvOptions,
    StageMemory,
    kv_budgets,
)
from tbcluster.core import CacheCost
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.errors import PlanError

ATTENTION = CacheCost(0, 100)
COSTS = ([ATTENTION] * 3, [ATTENTION])


def smallest(costs: Any, num_tokens: int = MIN_CAPACITY_TOKENS) -> tuple[int, ...]:
    return KvMemory(costs, [0] * len(costs)).bytes_for(num_tokens)


def one_machine(limit_bytes: int, weight_bytes: int, num_stages: int = 2) -> list[StageMemory]:
    """All stages beside one another, the weights with the first."""
    weights = [weight_bytes] + [0] * (num_stages - 1)
    return [StageMemory("here", limit_bytes, size) for size in weights]


def by_hand(num_bytes: int) -> KvOptions:
    return KvOptions(memory_bytes=num_bytes)


def test_the_defaults() -> None:
    options = KvOptions()
    assert (options.memory_bytes, options.bits, options.prefix_folder) == (None, None, None)
    assert options.prefix_cache
    assert options.prefix_disk_bytes == DEFAULT_DISK_BYTES


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 8},
        {"bits": 4},
        {"memory_bytes": 1},
        {"prefix_cache": False},
        {"prefix_folder": Path("/somewhere"), "prefix_disk_bytes": 1},
    ],
)
def test_allowed(fields: dict[str, Any]) -> None:
    options = KvOptions(**fields)
    assert {name: getattr(options, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 3}, "caches of 3 bits: ask for 8 or 4"),
        ({"bits": 0}, "0 bits"),
        ({"bits": 16}, "16 bits"),
        ({"memory_bytes": 0}, "0 bytes of KV memory"),
        ({"memory_bytes": -5}, "-5 bytes of KV memory"),
        ({"prefix_disk_bytes": 0}, "0 bytes for prefixes on disk"),
        ({"prefix_disk_bytes": -1}, "-1 bytes for prefixes"),
        ({"prefix_folder": Path("/somewhere"), "prefix_cache": False}, "without the prefix cache"),
    ],
)
def test_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        KvOptions(**fields)


def test_what_is_asked_for_is_given_to_each_stage() -> None:
    assert kv_budgets(COSTS, by_hand(10**6), one_machine(0, 10**12)) == (10**6, 10**6)


def test_what_is_left_is_shared_out_by_need() -> None:
    budgets = kv_budgets(COSTS, KvOptions(), one_machine(10**9, 2 * 10**8))
    room = 8 * 10**8 * KV_SHARE
    assert sum(budgets) == pytest.approx(room, abs=2)
    assert budgets[0] == pytest.approx(3 * budgets[1], abs=3)


def test_each_machine_shares_out_its_own() -> None:
    costs = ([ATTENTION], [ATTENTION], [ATTENTION])
    machines = [
        StageMemory("a", 10**9, 10**8),
        StageMemory("b", 10**8, 10**7),
        StageMemory("b", 10**8, 10**7),
    ]
    alone, first, second = kv_budgets(costs, KvOptions(), machines)
    assert alone == pytest.approx(9 * 10**8 * KV_SHARE, abs=2)
    assert first == second == pytest.approx(4 * 10**7 * KV_SHARE, abs=2)


def test_what_was_promised_is_kept_whatever_is_left() -> None:
    machines = [
        StageMemory("a", 10**6, 10**6 - 1000, other_bytes=10**6, promised_bytes=10**5),
        StageMemory("b", 10**9, 0, promised_bytes=10**5),
    ]
    tight, wide = kv_budgets(COSTS[1:] * 2, KvOptions(), machines)
    assert tight == 10**5
    assert wide == pytest.approx(10**5 + (10**9 - 10**5) * KV_SHARE, abs=2)


def test_what_activations_take_is_left_to_them() -> None:
    machines = [StageMemory("a", 10**9, 10**8, other_bytes=5 * 10**8, promised_bytes=10**6)]
    (budget,) = kv_budgets(COSTS[1:], KvOptions(), machines)
    assert budget == pytest.approx(10**6 + 399 * 10**6 * KV_SHARE, abs=2)


def test_room_for_other_models_is_left_where_that_is_asked_for() -> None:
    machines = [StageMemory("a", 10**9, 0, promised_bytes=size) for size in (10**7, 10**6)]
    options = KvOptions(keeps_to_promise=True)
    assert kv_budgets(COSTS, options, machines) == (10**7, 10**6)


def test_the_machine_that_has_too_little_is_named() -> None:
    machines = [StageMemory("a", 10**9, 0), StageMemory("mini2", 10**6, 10**6)]
    with pytest.raises(PlanError, match=r"stage 1 has 0 bytes.*free memory on mini2"):
        kv_budgets(COSTS, KvOptions(), machines)


@given(
    st.lists(
        st.lists(
            st.builds(
                CacheCost,
                st.integers(0, 10**6),
                st.integers(0, 10**4),
                st.none() | st.integers(1, 8192),
            ),
            max_size=3,
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 10**10),
    st.integers(0, 10**10),
)
def test_no_more_is_shared_out_than_there_is(
    costs: list[list[CacheCost]], limit_bytes: int, weight_bytes: int
) -> None:
    room = max(0, limit_bytes - weight_bytes) * KV_SHARE
    try:
        machines = one_machine(limit_bytes, weight_bytes, len(costs))
        budgets = kv_budgets(costs, KvOptions(), machines)
    except PlanError:
        # Then even a sequence that is just long enough has no room, once each stage has its share.
        needed = smallest(costs)
        shares = smallest(costs, REFERENCE_TOKENS)
        assert any(
            need > room * share / max(1, sum(shares)) - 1
            for need, share in zip(needed, shares, strict=True)
        )
        return
    assert len(budgets) == len(costs)
    assert sum(budgets) <= room
    assert KvMemory(costs, budgets).capacity_tokens() >= MIN_CAPACITY_TOKENS


@pytest.mark.parametrize(
    ("memory_bytes", "limit_bytes", "weight_bytes"),
    [
        (100, 0, 0),
        (None, 10**6, 10**6),
        (None, 10**6, 10**7),
        (None, 1000, 0),
    ],
)
def test_too_little_names_the_stage_and_what_to_do(
    memory_bytes: int | None, limit_bytes: int, weight_bytes: int
) -> None:
    with pytest.raises(PlanError) as caught:
        kv_budgets(COSTS, KvOptions(memory_bytes), one_machine(limit_bytes, weight_bytes))
    needed = smallest(COSTS)[0]
    message = str(caught.value)
    assert "stage 0 has" in message
    assert f"take {needed:,}" in message
    for option in ("--kv-memory", "--kv-bits"):
        assert option in message


def test_the_least_that_is_enough() -> None:
    needed = max(smallest(COSTS))
    assert KvMemory(COSTS, (needed, needed)).capacity_tokens() >= MIN_CAPACITY_TOKENS
    machines = one_machine(0, 0)
    assert kv_budgets(COSTS, by_hand(needed), machines) == (needed, needed)
    with pytest.raises(PlanError):
        kv_budgets(COSTS, by_hand(needed - 1), machines)
