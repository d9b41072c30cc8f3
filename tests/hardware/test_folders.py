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
        ("linux", {"XDG_CONFIG_HOME": "/x", "TBCLUSTER_HOME": "/state/one"}, "/state/one"),
        ("darwin", {"TBCLUSTER_HOME": "~/racks/one"}, "~/racks/one"),
        ("linux", {"TBCLUSTER_HOME": ""}, "~/.config/tbcluster"),
        ("darwin", {"XDG_CONFIG_HOME": "/x"}, "~/Library/Application Support/tbcluster"),
    ],
)
def test_each_system_has_its_place(platform: str, environ: dict[str, str], expected: str) -> None:
    assert config_folder(platform, environ) == Path(expected).expanduser()


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_folder("linux", {"TBCLUSTER_HOME": "state"}) == tmp_path / "state"


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", "/u/ada/.config/tbcluster"),
        ("darwin", "/u/ada/Library/Application Support/tbcluster"),
    ],
)
def test_of_another_user(platform: str, expected: str) -> None:
    assert config_folder(platform, {}, Path("/u/ada")) == Path(expected)
