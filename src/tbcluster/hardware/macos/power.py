"""Sleep and heat, as `pmset -g custom` and `pmset -g therm` tell them."""

import re
from dataclasses import dataclass

_SETTING = re.compile(r"\s*(\w+)\s+(\d{1,9})\b")
_SPEED_LIMIT = re.compile(r"\s*CPU_Speed_Limit\s*=\s*(\d{1,9})\s*")
_NOMINAL = "No thermal warning level has been recorded"
_FULL_SPEED = 100


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """Idle minutes until the Mac sleeps (0: never), and whether it starts again after a power
    loss; None where macOS does not say, as notebooks do not of the latter."""

    sleep_minutes: int | None = None
    restarts_after_power_loss: bool | None = None


def power_settings(text: str) -> PowerSettings:
    """The settings on mains power. There is a section for each source of power, or, with
    `pmset -g`, one for what is in use."""
    sections: dict[str, dict[str, int]] = {}
    settings: dict[str, int] = {}
    for line in text.splitlines():
        if line.rstrip().endswith(":"):
            settings = sections.setdefault(line.strip(), {})
        elif found := _SETTING.match(line):
            settings[found[1]] = int(found[2])
    chosen = sections.get("AC Power:", sections.get("Currently in use:", {}))
    restarts = chosen.get("autorestart")
    return PowerSettings(chosen.get("sleep"), None if restarts is None else restarts == 1)


def thermal_speed_limit(text: str) -> int | None:
    """Percent of full speed. Where nothing has been too hot yet, macOS says that alone."""
    limits = [found[1] for line in text.splitlines() if (found := _SPEED_LIMIT.fullmatch(line))]
    if limits:
        return int(limits[-1])
    return _FULL_SPEED if _NOMINAL in text else None
