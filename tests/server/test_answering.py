"""How the outputs of one choice are read."""

from pathlib import Path

from tbcluster.answers.format import AnswerFormat
from tbcluster.answers.pieces import CallArguments, CallStart
from tbcluster.core import FinishReason, Output, Request, SampledToken
from tbcluster.server.answering import ChoiceReader
from tbcluster.server.deltas import Finish
from tbcluster.server.intake import Generation
from tests.doubles.tokenizers import answer_tokenizer

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("weather", "stop")
]
# Calls of this format are known when its block ends: here with the answer, for want of a marker.
TWO_CALLS = "<|tool_call_start|>[weather(), stop()]"


def last_output(text: str) -> Output:
    return Output(
        text=text,
        sampled=SampledToken(1),
        num_prompt_tokens=1,
        num_generated_tokens=1,
        started_at=0.0,
        first_token_at=0.0,
        emitted_at=0.0,
        finish_reason=FinishReason.STOP,
    )


def test_calls_beyond_the_most_are_left_out_at_the_end_too(tmp_path: Path) -> None:
    form = AnswerFormat(answer_tokenizer(tmp_path / "pythonic", "pythonic"))

    def names(max_calls: int | None) -> list[str]:
        generation = Generation(
            requests=(Request("id", (1,), 9),),
            num_choices=1,
            new_splitter=lambda: form.splitter(TOOLS, False),
            max_calls=max_calls,
        )
        pieces, finish = ChoiceReader(generation).read(last_output(TWO_CALLS))
        assert finish == Finish(FinishReason.STOP, True)
        started = [piece for piece in pieces if isinstance(piece, CallStart)]
        grown = {piece.index for piece in pieces if isinstance(piece, CallArguments)}
        assert grown <= {piece.index for piece in started}
        return [piece.name for piece in started]

    assert names(None) == ["weather", "stop"]
    assert names(1) == ["weather"]
