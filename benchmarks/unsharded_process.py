"""`python -m benchmarks.unsharded_process MODEL`: mlx-lm, told what to do by `unsharded`.

JSON lines. A request comes in, "ready" goes out once all that is not measured has been done, the
next line in starts the measurement, the answer goes out.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, TextIO

import mlx.core as mx
import mlx_lm
from mlx_lm.generate import BatchGenerator, generate_step, generation_stream

from benchmarks.decode import decode_of

# What mlx-lm itself takes where nothing else is asked for.
PREFILL_STEP_SIZE = 2048

# Yields once, when the measurement may begin, and returns the answer.
Task = Generator[None, None, dict[str, Any]]


def main() -> None:
    """Load the model, then answer until the input ends."""
    answers = _take_output()
    model, tokenizer = mlx_lm.load(sys.argv[1])[:2]
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)  # as tbcluster does: see tbcluster.model.device
    for line in sys.stdin:
        request = json.loads(line)
        task = TASKS[request.pop("task")](model, tokenizer, **request)
        next(task)
        _tell(answers, "ready")
        sys.stdin.readline()
        _tell(answers, _end(task))
        mx.synchronize(generation_stream)  # mlx-lm has begun one token more than was asked for


def _decode(model: Any, tokenizer: Any, prompt: list[int], max_tokens: int) -> Task:
    """One stream through `stream_generate`."""
    yield

    def timed() -> Any:
        responses = mlx_lm.stream_generate(model, tokenizer, prompt, max_tokens=max_tokens)
        for response in responses:
            yield response.token, time.perf_counter()

    result = decode_of(timed())
    return {"tokens": result.tokens, "ms_per_token": result.ms_per_token}


def _decode_many(model: Any, _: Any, prompts: list[list[int]], num_steps: int) -> Task:
    """Many streams through `BatchGenerator`, while all of them decode."""
    size = len(prompts)
    batch = BatchGenerator(model, prefill_batch_size=size, completion_batch_size=size)
    batch.insert(prompts, max_tokens=[num_steps + 10] * size)
    while len(batch.next_generated()) < size:
        continue
    yield
    # The step that was begun before the start is not counted.
    batch.next_generated()
    started = time.perf_counter()
    num_tokens = sum(len(batch.next_generated()) for _ in range(num_steps))
    seconds = time.perf_counter() - started
    batch.close()
    assert num_tokens == num_steps * size
    return {"tokens_per_s": num_tokens / seconds}


def _prefill(model: Any, _: Any, prompt: list[int]) -> Task:
    """A prompt through `generate_step`, up to its first token."""
    yield
    started = time.perf_counter()
    next(generate_step(mx.array(prompt), model, max_tokens=1, prefill_step_size=PREFILL_STEP_SIZE))
    return {"seconds": time.perf_counter() - started}


def _continue(model: Any, tokenizer: Any, prompt: list[int], max_tokens: int) -> Task:
    """Greedy tokens, an end-of-text token included, and by how much each one won."""
    yield
    tokens, margins = [], []
    for token, logprobs in generate_step(mx.array(prompt), model, max_tokens=max_tokens):
        second, first = mx.sort(mx.topk(logprobs, 2)).tolist()
        tokens.append(token)
        margins.append(first - second)
        if token in tokenizer.eos_token_ids:
            break
    return {"tokens": tokens, "margins": margins}


TASKS: dict[str, Callable[..., Task]] = {
    "decode": _decode,
    "decode_many": _decode_many,
    "prefill": _prefill,
    "continue": _continue,
}


def _end(task: Task) -> dict[str, Any]:
    try:
        next(task)
    except StopIteration as stopped:
        answer: dict[str, Any] = stopped.value
        return answer
    raise AssertionError("a task yields once")


def _take_output() -> TextIO:
    """The pipe to the parent; what libraries print goes to standard error from now on."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


def _tell(answers: TextIO, content: Any) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
