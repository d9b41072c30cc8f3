"""The kernel's variables."""

from tbcluster.hardware.macos.sysctl import sysctl_number, sysctl_values


def test_lines() -> None:
    values = sysctl_values("\nhw.model: Mac16,11\nhw.a:7\nno colon\nx: a: b \n: 3\n")
    assert values == {"hw.model": "Mac16,11", "hw.a": "7", "x": "a: b"}


def test_numbers() -> None:
    values = {"a": "28", "b": "", "c": "-1", "d": "0x1c", "e": "²", "f": "9" * 5000, "g": "1 -> 2"}
    assert sysctl_number(values, "a") == 28
    assert {name: sysctl_number(values, name) for name in "bcdefgh"} == dict.fromkeys("bcdefgh")
