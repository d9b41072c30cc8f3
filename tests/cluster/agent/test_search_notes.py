from tbcluster.cluster.agent.search_notes import (
    MAX_NAMED,
    VAIN_AFTER_S,
    VAIN_AGAIN_S,
    SearchNotes,
)

TRIED = ["192.0.2.1:1", "192.0.2.2:1"]


def test_a_search_is_told_once_until_it_has_ended() -> None:
    notes = SearchNotes("lab")
    line = "looking for the head node of lab at 192.0.2.1:1, 192.0.2.2:1 and by multicast DNS"
    assert notes.began(0.0, TRIED) == line
    assert notes.began(1.0, TRIED) is None
    notes.answered(2.0)
    assert notes.began(3.0, TRIED) is None
    notes.settled()
    assert notes.began(4.0, []) == "looking for the head node of lab by multicast DNS"


def test_a_search_in_vain_is_told_after_a_while_and_then_rarely() -> None:
    notes = SearchNotes("lab")
    start = 100.0
    notes.began(start, TRIED)
    assert notes.in_vain(start + VAIN_AFTER_S - 1, TRIED, 1) is None
    first = start + VAIN_AFTER_S
    told = notes.in_vain(first, TRIED, 1)
    assert told is not None
    assert told.startswith("nothing answers at 192.0.2.1:1, 192.0.2.2:1: is `tbcluster serve`")
    assert told.endswith("let port 1 pass?")
    assert notes.in_vain(first + VAIN_AGAIN_S - 1, TRIED, 1) is None
    assert notes.in_vain(first + VAIN_AGAIN_S, [], 1) is not None


def test_who_answers_is_not_nobody() -> None:
    notes = SearchNotes("lab")
    notes.began(0.0, TRIED)
    notes.answered(VAIN_AFTER_S - 1)
    assert notes.in_vain(VAIN_AFTER_S, TRIED, 1) is None


def test_a_long_list_is_cut() -> None:
    many = [f"192.0.2.{i}:1" for i in range(MAX_NAMED + 3)]
    line = SearchNotes("lab").began(0.0, many)
    assert line is not None
    assert many[MAX_NAMED - 1] in line
    assert many[MAX_NAMED] not in line
    assert "and 3 more and by" in line
