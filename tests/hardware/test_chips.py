"""The catalogue of chips: names, and figures that agree with one another."""

import tomllib

import pytest

from tbcluster.hardware.chips import CATALOGUE, find_chip

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


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['name']}-{row['gpu_cores']}")
def test_every_chip_is_complete_and_plausible(row: dict[str, str]) -> None:
    chip = find_chip(row["name"], int(row["gpu_cores"]))
    assert chip is not None
    assert 60 <= chip.bandwidth_gbs <= 1300
    # Shaders have come to 0.28 to 0.5 TFLOPS a core; a matrix unit to three or four times that.
    assert 0.25 < chip.tflops / chip.gpu_cores < 0.55
    assert chip.tensor_tflops is None or 3 < chip.tensor_tflops / chip.tflops < 4


def test_no_chip_is_listed_twice() -> None:
    keys = [(row["name"], row["gpu_cores"]) for row in ROWS]
    assert len(set(keys)) == len(keys)
