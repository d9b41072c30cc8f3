"""From what the user typed to a checked model folder. Reads no weights."""

import json
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tbcluster.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from tbcluster.model.download import download

# What says that a folder holds, or should hold, weights.
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
_REPOSITORY_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose config and weight files were checked. What it does not hold is empty."""

    path: Path
    config: dict[str, Any]
    generation_config: dict[str, Any]
    pooling_config: dict[str, Any] = field(default_factory=dict)

    @property
    def context_length(self) -> int | None:
        """The longest context the model was made for, in tokens, where its config tells."""
        text_config = self.config.get("text_config")
        for config in (text_config if isinstance(text_config, dict) else {}, self.config):
            for key in ("max_position_embeddings", "max_sequence_length", "n_positions", "n_ctx"):
                if isinstance(config.get(key), int):
                    return int(config[key])
        return None


def find_model(name: str) -> ModelFolder:
    """Resolve a folder or a Hugging Face id (fetched with progress bars; `HF_HUB_OFFLINE` is
    honoured) and check it.

    Raises:
        ModelNotFoundError: There is no such folder or repository, or it cannot be reached.
        CorruptModelError: Its files cannot be read.
        UnsupportedModelError: It needs code of its own.
    """
    path = local_path(name) or _fetch(name)
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} is a file: name the folder that holds config.json")
    return check_folder(path)


def local_path(name: str) -> Path | None:
    """The file or folder of this name, if there is one."""
    path = Path(os.path.expanduser(name))  # unlike Path's own, it leaves an unknown ~user as it is
    try:
        return path if path.exists() else None
    except OSError:  # too long for a path, say
        return None


def check_folder(path: Path) -> ModelFolder:
    """Read a model folder's config and the headers of its weight files (see `find_model`)."""
    config = read_config(path / "config.json")
    for file in _weight_files(path):
        _check_weight_file(file)
    return ModelFolder(
        path=path,
        config=config,
        generation_config=_read_if_there(path / "generation_config.json"),
        # sentence-transformers': how an embedding model pools.
        pooling_config=_read_if_there(path / "1_Pooling" / "config.json"),
    )


def read_config(file: Path) -> dict[str, Any]:
    """A config file, checked as far as that can be done without knowing the architecture.

    Raises:
        CorruptModelError: It cannot be read, or names no model_type.
        UnsupportedModelError: The model needs code of its own.
    """
    config = _read_json(file)
    if not isinstance(config.get("model_type"), str):
        raise CorruptModelError(f"{file} names no model_type")
    if "model_file" in config:
        raise UnsupportedModelError(
            f"{file.parent.name} wants to run code of its own ({config['model_file']!r}): "
            "tbcluster runs no code that comes with a model"
        )
    return config


def check_config(path: Path) -> ModelFolder | None:
    """A config.json by itself, named as a file or by a folder that holds no weights; None for a
    folder that holds weights, or no config.

    Raises:
        CorruptModelError, UnsupportedModelError: See `read_config`.
    """
    file = path if path.suffix == ".json" else path / "config.json"
    has_weights = any(True for pattern in WEIGHTS for _ in file.parent.glob(pattern))
    if not file.is_file() or (has_weights and file != path):
        return None
    return ModelFolder(file.parent, read_config(file), {})


def _fetch(name: str) -> Path:
    looks_like_a_path = name.startswith((".", "/", "~")) or not _REPOSITORY_ID.fullmatch(name)
    if looks_like_a_path:
        raise ModelNotFoundError(
            f"no folder {name!r}, and it is no Hugging Face id of the form owner/name"
        )
    return download(name)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CorruptModelError(
            f"{path.parent} holds no {path.name}: is it a model folder?"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptModelError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise CorruptModelError(f"{path} holds no JSON object")
    return content


def _read_if_there(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.exists() else {}


def _weight_files(path: Path) -> list[Path]:
    index = path / "model.safetensors.index.json"
    if index.exists():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CorruptModelError(f"{index} has no weight_map")
        names = sorted({str(name) for name in weight_map.values()})
        missing = [name for name in names if not (path / name).is_file()]
        if missing:
            raise CorruptModelError(
                f"{path} lacks {len(missing)} of {len(names)} weight files, "
                f"{missing[0]} among them: fetch the model again"
            )
        return [path / name for name in names]
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise CorruptModelError(f"{path} holds no model*.safetensors: convert the model first")
    return files


def _check_weight_file(file: Path) -> None:
    """Fail early and by name on a truncated or garbled file; safetensors checks header and size."""
    try:
        with safe_open(file, framework="numpy") as tensors:
            tensors.keys()
    except (SafetensorError, OSError, struct.error) as error:
        raise CorruptModelError(
            f"{file} is truncated or no safetensors file ({error}): fetch it again"
        ) from error
