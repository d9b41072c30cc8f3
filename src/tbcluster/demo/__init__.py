"""The bundled demo model: a tiny chat model that needs no download.

It is an ordinary Hugging Face folder of the llama architecture, small enough to travel with the
package, so that a first run, the tests and the benchmarks all have a real model to serve.
`scripts/train_demo_model.py` makes it from nothing; `model/MODEL_CARD.md` says what it knows.
"""

from pathlib import Path

__all__ = ["MODEL_PATH"]

MODEL_PATH: Path = Path(__file__).parent / "model"
"""Folder of the bundled model, readable by `mlx_lm.load` as it stands."""
