"""The catalogue of chips: names, and figures that agree with one another."""

import tomllib

import pytest

from tbcluster.hardware.chips import CATALOGUE, Chip, catalogue, find_chip, near_chips

ROWS = tomllib.loads(CATALOGUE.read_text())["chips"]


def test_a_chip_by_its_name_and_cores() -> None:
    chip = find_chip("M3 Max", 40)
    assert chip is not None
    assert (chip.name, chip.bandwidth_gbs, chip.tflops) == ("M3 Max", 400, 14.2)
    assert find_chip("Apple M3 Max", 40) == chip


@pytest.mark.parametrize("gpu_cores", [None, 30, 7])
def test_without_its_cores_it_is_the_slowest_of_its_name(gpu_cores: int | None) -> None:
    chip = find_chip("M3 Max", gpu_cores)
    assert chip is not None
    assert (chip.gpu_cores, chip.bandwidth_gbs) == (30, 300)


@pytest.mark.parametrize("name", ["", "M3 Mega", "Apple", "Intel(R) Xeon(R) Processor", "m3 max"])
def test_what_is_not_known(name: str) -> None:
    assert find_chip(name) is None


def test_what_is_not_published_follows_from_the_cores() -> None:
    few, many = find_chip("M1 Pro", 14), find_chip("M1 Pro", 16)
    assert few is not None
    assert many is not None
    assert few.tflops == pytest.approx(many.tflops * 14 / 16)
    assert few.tensor_tflops is None


APPLES = [row for row in ROWS if "backend" not in row]


@pytest.mark.parametrize("row", APPLES, ids=lambda row: f"{row['name']}-{row['gpu_cores']}")
def test_every_chip_of_apple_is_complete_and_plausible(row: dict[str, str]) -> None:
    chip = find_chip(row["name"], int(row["gpu_cores"]))
    assert chip is not None
    assert 60 <= chip.bandwidth_gbs <= 1300
    # Shaders have come to 0.28 to 0.5 TFLOPS a core; a matrix unit to three or four times that.
    assert 0.25 < chip.tflops / chip.gpu_cores < 0.55
    assert chip.tensor_tflops is None or 3 < chip.tensor_tflops / chip.tflops < 4
    assert chip.memory_gb is not None
    assert chip.thunderbolt in {4, 5}


@pytest.mark.parametrize("chip", catalogue(), ids=lambda chip: f"{chip.name}-{chip.gpu_cores}")
def test_what_chips_draw_and_cost_is_plausible(chip: Chip) -> None:
    assert (chip.idle_w is None) == (chip.max_w is None)
    if chip.idle_w is not None and chip.max_w is not None:
        assert 0 < chip.idle_w < chip.max_w / 3
    for memory_gb, usd in chip.prices:
        assert chip.memory_gb is not None
        assert memory_gb <= chip.memory_gb
        assert 500 < usd < 20_000


def test_memory_tells_apart_chips_of_one_name() -> None:
    for name, memory_gb, gpu_cores in (("M3 Ultra", 512, 80), ("M3 Ultra", 96, 60)):
        chip = find_chip(name, memory_gb=memory_gb)
        assert chip is not None
        assert chip.gpu_cores == gpu_cores
    # What nobody sells is taken for the slowest.
    beyond = find_chip("M3 Ultra", memory_gb=4096)
    assert beyond is not None
    assert beyond.gpu_cores == 60


def test_ones_own_come_first_and_makers_need_not_be_named() -> None:
    mine = Chip("M4 Pro", 20, 300, 10)
    assert find_chip("M4 Pro", own=[mine]) == mine
    assert find_chip("NVIDIA GeForce RTX 4090") == find_chip("RTX 4090")
    assert find_chip("NVIDIA H200") == find_chip("H200")


def test_names_that_look_like_it() -> None:
    assert "M4 Pro" in near_chips("m4pro")
    assert near_chips("Z80 something else") == []


def test_no_chip_is_listed_twice() -> None:
    keys = [(row["name"], row.get("gpu_cores")) for row in ROWS]
    assert len(set(keys)) == len(keys)
