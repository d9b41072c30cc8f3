"""No part of a stop text ever reaches the client, and nothing else is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import FinishReason
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.detokenizer import TextStream, behind_prompt, first_stop, num_held_back
from tbcluster.model.source import find_model
from tbcluster.model.tokenizer import open_tokenizer
from tests.doubles.text_double import WordDetokenizer

# Few letters and short texts, so that stop texts occur, overlap and almost occur.
words = st.text("ab", max_size=3)
stops = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3).map(tuple)
finishes = st.sampled_from(list(FinishReason))


def stream_all(
    pieces: list[str], stop: tuple[str, ...], finish: FinishReason, delay: int = 0
) -> tuple[list[str], bool]:
    """The texts that a sequence of these tokens emits until it ends, and whether by a stop text."""
    stream = TextStream(WordDetokenizer(pieces, delay), stop)
    texts = []
    for token in range(len(pieces)):
        is_last = token == len(pieces) - 1
        text, stopped = stream.add(token, finish if is_last else None)
        texts.append(text)
        if stopped is not None:
            assert stopped in stop
            return texts, True
    return texts, False


def expected_text(pieces: list[str], stop: tuple[str, ...]) -> tuple[str, bool]:
    """Up to the earliest stop text in what the tokens say when the first one is complete."""
    text = ""
    for piece in pieces:
        text += piece
        found = [text.index(word) for word in stop if word in text]
        if found:
            return text[: min(found)], True
    return text, False


@given(st.lists(words, min_size=1, max_size=12), stops, finishes)
def test_the_text_up_to_the_earliest_stop(
    pieces: list[str], stop: tuple[str, ...], finish: FinishReason
) -> None:
    # The token that ends a sequence by STOP has no text of its own.
    spoken = pieces[:-1] if finish is FinishReason.STOP else pieces
    expected, is_stopped = expected_text(spoken, stop)
    texts, stopped = stream_all(pieces, stop, finish)
    assert "".join(texts) == expected
    assert stopped == is_stopped
    assert not any(word in expected for word in stop)


@given(st.lists(words, min_size=1, max_size=12), stops)
def test_nothing_is_shown_that_could_still_become_a_stop_text(
    pieces: list[str], stop: tuple[str, ...]
) -> None:
    stream = TextStream(WordDetokenizer(pieces), stop)
    shown = said = ""
    for token, piece in enumerate(pieces):
        text, stopped = stream.add(token, None)
        shown += text
        said += piece
        if stopped is not None:
            return
        # Any stop text may come next, so what is shown must end before its beginning.
        for word in stop:
            for size in range(1, len(word)):
                if said.endswith(word[:size]):
                    assert len(shown) <= len(said) - size
        # And no more is held back than that: the rest of what was said has been shown.
        assert len(said) - len(shown) <= max((len(word) - 1 for word in stop), default=0)


@given(st.lists(words, min_size=1, max_size=12), st.integers(0, 3), finishes)
def test_without_stop_texts_all_is_shown(
    pieces: list[str], delay: int, finish: FinishReason
) -> None:
    spoken = pieces[:-1] if finish is FinishReason.STOP else pieces
    texts, stopped = stream_all(pieces, (), finish, delay)
    assert "".join(texts) == "".join(spoken)
    assert not stopped


@pytest.mark.parametrize("finish", list(FinishReason))
def test_held_back_text_is_released_at_the_end(finish: FinishReason) -> None:
    stream = TextStream(WordDetokenizer(["x<", "en", "!"]), ("<end>",))
    assert stream.add(0, None) == ("x", None)
    assert stream.add(1, None) == ("", None)
    expected = "<en" if finish is FinishReason.STOP else "<en!"
    assert stream.add(2, finish) == (expected, None)


def test_a_stop_text_that_the_detokenizer_held_back_is_found_at_the_end() -> None:
    texts, stopped = stream_all(["ab", "END", "cd"], ("END",), FinishReason.LENGTH, delay=6)
    assert "".join(texts) == "ab"
    assert stopped


@pytest.mark.parametrize(
    ("text", "stop", "where"),
    [
        ("hello", (), None),
        ("hello", ("x",), None),
        ("hello", ("lo", "l"), (2, "l")),
        ("hello", ("l", "he"), (0, "he")),
    ],
)
def test_first_stop(text: str, stop: tuple[str, ...], where: tuple[int, str] | None) -> None:
    assert first_stop(text, stop) == where


@pytest.mark.parametrize(
    ("text", "stop", "size"),
    [
        ("", ("ab",), 0),
        ("xa", ("ab",), 1),
        ("xaa", ("aab",), 2),
        ("xab", ("ab",), 0),  # whole, so not a beginning any more
        ("xa", ("ab", "xab"), 2),
        ("x", ("y",), 0),
    ],
)
def test_num_held_back(text: str, stop: tuple[str, ...], size: int) -> None:
    assert num_held_back(text, stop) == size


@pytest.mark.parametrize(
    "prompt", ["The capital of", "The capital of ", "über 東", "a\n", "<|end|>"]
)
def test_an_answer_that_goes_on_in_a_text_keeps_its_first_blank(prompt: str) -> None:
    tokenizer = open_tokenizer(find_model(str(MODEL_PATH)))
    tokens = tokenizer.encode(prompt, add_special_tokens=False)
    [blank_word] = tokenizer.encode(" is", add_special_tokens=False)
    stream = TextStream(behind_prompt(lambda: tokenizer.detokenizer, tokens), ())
    assert stream.add(blank_word, FinishReason.LENGTH) == (" is", None)
    alone = TextStream(tokenizer.detokenizer, ())
    assert alone.add(blank_word, FinishReason.LENGTH) == ("is", None)
