"""The list of what is here, also after crashes."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.checkpoint import ListedFile, Span
from tbcluster.weights.ledger import Dropped, Holdings, Ledger, LedgerReader, Lies, Piece, Stamp

PIECES = [Piece("a", 10 * number, 10, f"{number}") for number in range(5)]


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert not ledger.refresh()
    ledger.append([*PIECES, Stamp("a", 7), Lies("b", "/b", 3, 4)])
    ledger.append([Dropped("a", 20)])
    read = Ledger(tmp_path / "ledger")
    assert read.refresh()
    assert not read.refresh()
    assert [piece.offset for piece in read.holdings.of("a")] == [0, 10, 30, 40]
    assert read.holdings.stamps == {"a": 7}
    assert read.holdings.lies["b"].at == "/b"
    assert read.holdings.find(Span("a", 10, 10)) == PIECES[1]
    assert read.holdings.find(Span("a", 10, 9)) is None
    assert read.holdings.find(Span("a", 20, 10)) is None
    ledger.append([Dropped("a")])
    assert read.refresh()
    assert read.holdings.of("a") == ()
    assert read.holdings.stamps == {}


def test_only_all_pieces_make_a_file_whole() -> None:
    holdings = Holdings()
    file = ListedFile("a", 50)
    for number, piece in enumerate(PIECES, 1):
        holdings.apply(piece)
        holdings.apply(piece)
        assert holdings.is_whole(file) == (number == len(PIECES))


@settings(max_examples=30)
@given(cut=st.integers(0, 500))
def test_a_torn_line_counts_for_nothing_and_harms_no_other(
    cut: int, tmp_path_factory: object
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger"  # type: ignore[attr-defined]
    ledger = Ledger(path)
    ledger.append(PIECES)
    content = path.read_bytes()
    path.write_bytes(content[: min(cut, len(content))])
    whole = content[:cut].count(b"\n")
    again = Ledger(path)
    again.refresh()
    assert len(again.holdings.of("a")) == whole
    again.append([Piece("b", 0, 1, "x")])
    fresh = Ledger(path)
    fresh.refresh()
    assert fresh.holdings.of("b") == again.holdings.of("b") == (Piece("b", 0, 1, "x"),)
    # A line that lacks just its end is a line once that has come.
    assert whole <= len(fresh.holdings.of("a")) <= whole + 1


@given(st.data())
def test_a_reader_may_get_it_in_any_portions(data: st.DataObject) -> None:
    content = LINES
    reader = LedgerReader()
    while reader.position < len(content):
        size = data.draw(st.integers(1, 200))
        portion = content[reader.position : reader.position + size]
        if not reader.feed(portion):
            reader.feed(content[reader.position : reader.position + 1000])
    assert reader.holdings.of("a") == tuple(PIECES)


def _lines() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Ledger(Path(folder) / "ledger").append(PIECES)
        return (Path(folder) / "ledger").read_bytes()


LINES = _lines()


def test_another_ledger_in_its_place_is_read_from_the_start(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(PIECES)
    (tmp_path / "ledger").unlink()
    Ledger(tmp_path / "ledger").append(PIECES[:1])
    assert ledger.refresh()
    assert ledger.holdings.of("a") == (PIECES[0],)


def test_lines_of_other_versions_are_passed_over(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(PIECES[:1])
    with (tmp_path / "ledger").open("ab") as file:
        file.write(b'{"type":"unheard-of"}\n\xff\xfe\n[[[\n\n')
    ledger.append(PIECES[1:])
    assert ledger.holdings.of("a") == tuple(PIECES)
