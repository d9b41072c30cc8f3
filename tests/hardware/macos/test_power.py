"""Sleep and heat."""

import pytest

from tbcluster.hardware.macos.power import PowerSettings, power_settings, thermal_speed_limit
from tests.doubles.mac import recorded


@pytest.mark.parametrize(
    ("fixture", "expected"),
    [
        ("pmset_custom_desktop.txt", PowerSettings(0, True)),
        # On mains power, and it has no such setting as to restart.
        ("pmset_custom_notebook.txt", PowerSettings(15, None)),
        ("pmset_in_use.txt", PowerSettings(1, False)),
    ],
)
def test_settings(fixture: str, expected: PowerSettings) -> None:
    assert power_settings(recorded(fixture)) == expected


@pytest.mark.parametrize(
    "text", ["", "AC Power:\n", "Battery Power:\n sleep 3\n", " sleep 3\n", "AC Power:\n sleep x\n"]
)
def test_settings_that_are_not_told(text: str) -> None:
    assert power_settings(text) == PowerSettings()


def test_heat() -> None:
    assert thermal_speed_limit(recorded("pmset_therm_nominal.txt")) == 100
    assert thermal_speed_limit(recorded("pmset_therm_slowed.txt")) == 62
    assert thermal_speed_limit("\n\tCPU_Speed_Limit\t= 80\n CPU_Speed_Limit = 70 \n") == 70
    assert thermal_speed_limit("Note: this Mac does not tell\n") is None
