"""mlx-lm in a process of its own, which decodes when it is asked to.

As a module (`python -m benchmarks.unsharded MODEL`) it is that process: JSON lines in and out.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self, TextIO

from benchmarks.decode import Decode, decode_of


class Unsharded:
    """The process, as a context manager."""

    def __init__(self, model_path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.unsharded", str(model_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def decode(self, prompt: list[int], num_tokens: int) -> Decode:
        """Continue a prompt greedily."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"prompt": prompt, "max_tokens": num_tokens}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Decode(tuple(answer["tokens"]), answer["ms_per_token"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    """Load the model, then answer each line of input with a line of output."""
    answers = _take_output()
    # Here and not above: the parent has no use for the model's side of this module.
    import mlx.core as mx
    import mlx_lm

    model, tokenizer = mlx_lm.load(sys.argv[1])[:2]
    if mx.default_device() == mx.Device(mx.cpu):
        model.set_dtype(mx.float32)  # as tbcluster does: see tbcluster.model.device
    for line in sys.stdin:
        result = _decode(model, tokenizer, json.loads(line))
        mx.synchronize()  # mlx-lm has begun one token more than was asked for
        answers.write(json.dumps({"tokens": result.tokens, "ms_per_token": result.ms_per_token}))
        answers.write("\n")
        answers.flush()


def _decode(model: Any, tokenizer: Any, request: dict[str, Any]) -> Decode:
    import mlx_lm

    def timed() -> Any:
        for response in mlx_lm.stream_generate(model, tokenizer, **request):
            yield response.token, time.perf_counter()

    return decode_of(timed())


def _take_output() -> TextIO:
    """The pipe to the parent; what libraries print goes to standard error from now on."""
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return pipe


if __name__ == "__main__":
    main()
