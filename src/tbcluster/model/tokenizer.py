"""The tokenizer that mlx-lm would use, loaded from a checked folder without running its code."""

from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load_config, load_tokenizer

from tbcluster.errors import CorruptModelError, UnsupportedModelError
from tbcluster.model.source import ModelFolder


def open_tokenizer(folder: ModelFolder) -> TokenizerWrapper:
    """Load the tokenizer, its chat template and its end-of-text tokens.

    Raises:
        CorruptModelError: The folder holds no usable tokenizer.
        UnsupportedModelError: The tokenizer needs code of its own.
    """
    eos: Any = load_config(folder.path).get("eos_token_id")
    try:
        return load_tokenizer(
            folder.path,
            {"trust_remote_code": False},
            eos_token_ids=[eos] if isinstance(eos, int) else eos,
        )
    except Exception as error:  # transformers raises anything from KeyError to OSError here
        if "trust_remote_code" in str(error):
            raise UnsupportedModelError(
                f"{folder.path.name}'s tokenizer wants to run code of its own: tbcluster runs no "
                "code that comes with a model"
            ) from error
        raise CorruptModelError(
            f"{folder.path} has no usable tokenizer ({type(error).__name__}: {error})"
        ) from error
