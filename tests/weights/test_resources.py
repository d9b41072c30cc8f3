"""The names of files and ledgers in requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.weights.resources import Resource, parse_path, path_of

PART = st.text(st.characters(exclude_characters="/\\\0", codec="utf-8"), min_size=1).filter(
    lambda name: name not in (".", "..")
)
PATH = st.lists(PART, min_size=1, max_size=3).map("/".join)


@given(PATH, PART, st.none() | PATH)
def test_what_is_asked_for_is_understood(model: str, revision: str, file: str | None) -> None:
    resource = Resource(model, revision, file)
    path = path_of(resource)
    assert path.isascii()
    assert " " not in path
    assert parse_path(path) == resource


@given(st.text())
def test_whatever_is_asked_leads_nowhere_else(text: str) -> None:
    for path in (text, f"/model/revision/{text}", f"/{text}/revision/file"):
        found = parse_path(path)
        if found is not None:
            names = [*found.model.split("/"), found.revision, *(found.file or "x").split("/")]
            assert not {"", ".", ".."} & set(names)
            assert not set("".join(names)) & {"\\", "\0"}


@pytest.mark.parametrize(
    "path",
    [
        "/model/revision",
        "/model/revision/",
        "/model/../file",
        "/model/revision/../../secret",
        "/model/revision/%2e%2e/secret",
        "/..%2Fmodel/revision/file",
        "/%2Fetc/revision/file",
        "/model/revision/a%2Fb",
        "/model/revision/file?other",
        "/model/revision/file?ledger",
        "//host/model/revision/file",
        "http://host/model/revision/file",
        "//[/revision/file",
        "model/revision/file",
        "*",
    ],
)
def test_what_is_no_resource_is_refused(path: str) -> None:
    assert parse_path(path) is None
