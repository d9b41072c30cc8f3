"""Which of two paths is better."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.links.ranking import TIE_RATIO, best_first, token_cost_us
from tbcluster.machine import Interface, InterfaceKind, Path, PathMeasurement

LOCAL = tuple(
    Interface(name, kind, True, 1500)
    for name, kind in [
        ("tb", InterfaceKind.THUNDERBOLT),
        ("eth", InterfaceKind.ETHERNET),
        ("wifi", InterfaceKind.WIFI),
        ("tun", InterfaceKind.OTHER),
    ]
)


def measured(
    name: str, round_trip_us: float, small_gbps: float, large_gbps: float
) -> PathMeasurement:
    """A path from an interface to the one of that name."""
    return PathMeasurement(Path(name, f"to-{name}", name), round_trip_us, small_gbps, large_gbps, 0)


def names(paths: tuple[PathMeasurement, ...]) -> list[str]:
    return [path.path.interface for path in paths]


def test_the_cost_is_a_hop_and_a_share_of_a_prompt() -> None:
    # 8 KB at 1 Gbit/s take 65.536 us, 8 MB at 2 Gbit/s 33.5 ms for 512 tokens.
    assert token_cost_us(measured("eth", 100, 1, 2)) == pytest.approx(50 + 65.536 + 65.536)


def test_what_counts_is_latency_first_and_throughput_too() -> None:
    thunderbolt = measured("tb", 300, 8, 30)
    ethernet = measured("eth", 250, 0.9, 0.94)
    wifi = measured("wifi", 4000, 0.4, 0.6)
    assert names(best_first([wifi, ethernet, thunderbolt])) == ["tb", "eth", "wifi"]


@pytest.mark.parametrize("worse_by", [1.0, 1.04])
def test_a_tie_goes_to_the_better_kind(worse_by: float) -> None:
    wifi = measured("wifi", 200, 5, 5)
    thunderbolt = measured("tb", 200 * worse_by, 5 / worse_by, 5 / worse_by)
    assert names(best_first([wifi, thunderbolt], LOCAL, LOCAL)) == ["tb", "wifi"]


def test_beyond_a_tie_the_kind_does_not_count() -> None:
    wifi, thunderbolt = measured("wifi", 200, 5, 5), measured("tb", 215, 4.6, 4.6)
    assert names(best_first([thunderbolt, wifi], LOCAL, LOCAL)) == ["wifi", "tb"]


def test_a_path_that_lets_nothing_through_is_the_last() -> None:
    stalled, slow = measured("tb", 100, 9, 0), measured("wifi", 90_000, 0.001, 0.001)
    unknown = measured("eth", 100, 0, 0)
    assert names(best_first([stalled, slow, unknown], LOCAL, LOCAL)) == ["wifi", "tb", "eth"]


paths = st.builds(
    measured,
    st.sampled_from([interface.name for interface in LOCAL]),
    st.floats(20, 1e6),
    st.floats(0.001, 80),
    st.floats(0.001, 80),
)


@given(st.lists(paths, max_size=8))
def test_the_order_does_not_depend_on_what_it_was(given_paths: list[PathMeasurement]) -> None:
    ordered = best_first(given_paths, LOCAL, LOCAL)
    assert sorted(map(repr, ordered)) == sorted(map(repr, given_paths))
    assert best_first(reversed(given_paths), LOCAL, LOCAL) == ordered
    assert best_first(ordered, LOCAL, LOCAL) == ordered


@given(st.lists(paths, max_size=8))
def test_no_path_that_is_worse_in_everything_comes_before(
    given_paths: list[PathMeasurement],
) -> None:
    ordered = best_first(given_paths, LOCAL, LOCAL)
    plain = best_first(given_paths)
    for index, before in enumerate(ordered):
        assert not any(is_worse(before, after, TIE_RATIO) for after in ordered[index + 1 :])
    for index, before in enumerate(plain):
        assert not any(is_worse(before, after, 1.0) for after in plain[index + 1 :])


def is_worse(one: PathMeasurement, other: PathMeasurement, by: float) -> bool:
    """Whether one is worse than the other in all three numbers, by more than a factor."""
    return (
        one.round_trip_us > other.round_trip_us * by
        and one.small_gbps * by < other.small_gbps
        and one.large_gbps * by < other.large_gbps
    )
