"""The frame around what system_profiler tells."""

import pytest

from tbcluster.hardware.macos.profiler import objects, profiler_items, text_of


def test_items() -> None:
    assert profiler_items('{"A": [{"x": 1}, 7], "B": []}', "A") == [{"x": 1}]
    assert profiler_items('{"A": [{"x": 1}, 7], "B": []}', "B") == []


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"B": []}', '{"A": {}}', '{"A": null}', "[" * 100_000]
)
def test_what_is_no_answer(text: str) -> None:
    assert profiler_items(text, "A") is None


def test_values_of_other_types_are_not_there() -> None:
    assert objects(None) == objects("x") == objects({"a": 1}) == []
    item = {"a": " x ", "b": " ", "c": 7}
    assert [text_of(item, key) for key in "abcd"] == ["x", None, None, None]
