"""Commands that wait: each is answered once, when what it asked for is there or too late."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.rack.questions import (
    INSPECT_TIMEOUT_S,
    MEASURE_TIMEOUT_S,
    Questions,
)
from tbcluster.machine import RackView


class Asker:
    """Counts its answers."""

    def __init__(self) -> None:
        self.answers: list[RackView] = []

    def __call__(self, view: RackView) -> None:
        self.answers.append(view)


def ask(questions: Questions, *nodes: str, measures: bool = False, now: float = 0.0) -> Asker:
    asker = Asker()
    questions.add(asker, nodes, measures=measures, now=now)
    return asker


def test_a_plain_question_is_due_at_once_and_only_once() -> None:
    questions = Questions()
    asker = ask(questions)
    assert questions.due(0.0, is_measuring=True) == [asker]
    assert questions.due(0.0, is_measuring=False) == []


def test_a_question_waits_until_all_have_looked() -> None:
    questions = Questions()
    asker = ask(questions, "a", "b")
    assert questions.due(0.0, is_measuring=False) == []
    questions.looked("a")
    questions.looked("a")
    questions.looked("stranger")
    assert questions.due(1.0, is_measuring=False) == []
    questions.looked("b")
    assert questions.due(2.0, is_measuring=False) == [asker]


def test_a_question_waits_for_measurements_only_if_it_asked_for_them() -> None:
    questions = Questions()
    patient, other = ask(questions, measures=True), ask(questions, "a")
    questions.looked("a")
    assert questions.due(1.0, is_measuring=True) == [other]
    assert questions.due(2.0, is_measuring=False) == [patient]


def test_both_looking_and_measuring_are_waited_for() -> None:
    questions = Questions()
    asker = ask(questions, "a", measures=True)
    assert questions.due(1.0, is_measuring=False) == []
    questions.looked("a")
    assert questions.due(1.0, is_measuring=True) == []
    assert questions.due(1.0, is_measuring=False) == [asker]


def test_nobody_waits_for_ever() -> None:
    questions = Questions()
    asker = ask(questions, "a")
    patient = ask(questions, "a", measures=True)
    assert questions.due(INSPECT_TIMEOUT_S, is_measuring=True) == []
    assert questions.due(INSPECT_TIMEOUT_S + 0.1, is_measuring=True) == [asker]
    assert questions.due(MEASURE_TIMEOUT_S, is_measuring=True) == []
    assert questions.due(MEASURE_TIMEOUT_S + 0.1, is_measuring=True) == [patient]


def test_two_equal_questions_are_two() -> None:
    questions = Questions()
    asker = Asker()
    for _ in range(2):
        questions.add(asker, ["a"], measures=False, now=0.0)
    questions.looked("a")
    assert questions.due(0.0, is_measuring=False) == [asker, asker]


@given(st.lists(st.sampled_from(["ask", "measure", "look a", "look b", "pass", "busy", "idle"])))
def test_each_question_is_answered_exactly_once(events: list[str]) -> None:
    questions, now, is_measuring = Questions(), 0.0, False
    asked: list[Asker] = []
    due = []
    for event in events:
        match event.split():
            case ["ask"]:
                asked.append(ask(questions, "a", "b", now=now))
            case ["measure"]:
                asked.append(ask(questions, "a", measures=True, now=now))
            case ["look", node]:
                questions.looked(node)
            case ["pass"]:
                now += 10.0
            case [state]:
                is_measuring = state == "busy"
        due += questions.due(now, is_measuring=is_measuring)
    due += questions.due(now + MEASURE_TIMEOUT_S + 1, is_measuring=True)
    assert sorted(map(id, due)) == sorted(map(id, asked))
