"""Where settings are kept."""

from pathlib import Path

import pytest

from tbcluster.hardware.folders import config_folder


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {}, "~/.config/tbcluster"),
        ("linux", {"XDG_CONFIG_HOME": "/x/y"}, "/x/y/tbcluster"),
        ("linux", {"XDG_CONFIG_HOME": "relative"}, "~/.config/tbcluster"),
        ("linux", {"XDG_CONFIG_HOME": ""}, "~/.config/tbcluster"),
        ("darwin", {"XDG_CONFIG_HOME": "/x"}, "~/Library/Application Support/tbcluster"),
    ],
)
def test_each_system_has_its_place(platform: str, environ: dict[str, str], expected: str) -> None:
    assert config_folder(platform, environ) == Path(expected).expanduser()
