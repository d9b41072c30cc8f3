"""Models that can be planned with nothing of them at hand: their published configs, shipped.

Only what mlx-lm reads and the context length is kept of each config.json; where it is from, its id
on the Hugging Face hub says.
"""

import json
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "known"
# Who gives other people's models out in MLX's packing, with the bits at the end of the name.
CONVERTERS = ("mlx-community", "lmstudio-community")
_PACKED = re.compile(r"-(?:mlx-)?(?:(?P<bits>[234568])[- ]?bit|(?P<plain>bf16|fp16))(?:-dwq)?")
# gpt-oss as mlx-lm converts it: experts as they are, everything else in these bits.
_MXFP4 = re.compile(r"-mxfp4-q(?P<bits>[48])")
NUM_NEAR = 3
NEAR = 0.5


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A config, and the models that have it.

    Attributes:
        file: In `FOLDER`, without its ending.
        ids: On the hub; the first is what the config was taken from.
        changes: What differs in the config of these from that of the file.
    """

    file: str
    ids: tuple[str, ...]
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """What its config.json says."""
        content: dict[str, Any] = json.loads((FOLDER / f"{self.file}.json").read_text("utf-8"))
        return content | self.changes


_KIMI_K2_0905 = {
    "max_position_embeddings": 262144,
    "rope_scaling": {
        "type": "yarn",
        "factor": 64.0,
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    },
}
_QWEN3_2507 = {"max_position_embeddings": 262144, "rope_theta": 5000000}
_QWEN3_2507_30B = _QWEN3_2507 | {"rope_theta": 10000000}
KNOWN = (
    KnownModel(
        "deepseek-v3",
        (
            "deepseek-ai/DeepSeek-R1",
            "deepseek-ai/DeepSeek-R1-0528",
            "deepseek-ai/DeepSeek-V3",
            "deepseek-ai/DeepSeek-V3-0324",
        ),
    ),
    KnownModel("deepseek-v3.1", ("deepseek-ai/DeepSeek-V3.1", "deepseek-ai/DeepSeek-V3.1-Base")),
    KnownModel("kimi-k2", ("moonshotai/Kimi-K2-Instruct", "moonshotai/Kimi-K2-Base")),
    KnownModel("kimi-k2", ("moonshotai/Kimi-K2-Instruct-0905",), _KIMI_K2_0905),
    KnownModel("qwen3-235b-a22b", ("Qwen/Qwen3-235B-A22B",)),
    KnownModel(
        "qwen3-235b-a22b",
        ("Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-235B-A22B-Thinking-2507"),
        _QWEN3_2507,
    ),
    KnownModel("qwen3-30b-a3b", ("Qwen/Qwen3-30B-A3B",)),
    KnownModel(
        "qwen3-30b-a3b",
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507"),
        _QWEN3_2507_30B,
    ),
    KnownModel("qwen3-32b", ("Qwen/Qwen3-32B",)),
    KnownModel("qwen3-8b", ("Qwen/Qwen3-8B",)),
    KnownModel("qwen3-0.6b", ("Qwen/Qwen3-0.6B",)),
    KnownModel("qwen2.5-32b", ("Qwen/Qwen2.5-32B-Instruct",)),
    KnownModel("qwen2.5-32b", ("Qwen/Qwen2.5-32B",), {"max_position_embeddings": 131072}),
    KnownModel(
        "llama-3.1-405b",
        (
            "meta-llama/Llama-3.1-405B-Instruct",
            "meta-llama/Llama-3.1-405B",
            "meta-llama/Meta-Llama-3.1-405B-Instruct",
            "meta-llama/Meta-Llama-3.1-405B",
        ),
    ),
    KnownModel(
        "llama-3.1-70b",
        (
            "meta-llama/Llama-3.3-70B-Instruct",
            "meta-llama/Llama-3.1-70B-Instruct",
            "meta-llama/Llama-3.1-70B",
            "meta-llama/Meta-Llama-3.1-70B-Instruct",
            "meta-llama/Meta-Llama-3.1-70B",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
            "meta-llama/Llama-3.3-70B",
        ),
    ),
    KnownModel(
        "llama-3.1-8b",
        (
            "meta-llama/Llama-3.1-8B-Instruct",
            "meta-llama/Llama-3.1-8B",
            "meta-llama/Meta-Llama-3.1-8B-Instruct",
            "meta-llama/Meta-Llama-3.1-8B",
        ),
    ),
    KnownModel(
        "llama-2-7b",
        (
            "meta-llama/Llama-2-7b-hf",
            "meta-llama/Llama-2-7b-chat-hf",
            "meta-llama/Llama-2-7b",
            "meta-llama/Llama-2-7b-chat",
        ),
    ),
    KnownModel("gpt-oss-120b", ("openai/gpt-oss-120b",)),
    KnownModel("gpt-oss-20b", ("openai/gpt-oss-20b",)),
    KnownModel(
        "mistral-small-24b",
        (
            "mistralai/Mistral-Small-24B-Instruct-2501",
            "mistralai/Mistral-Small-24B-Base-2501",
            "mistralai/Mistral-Small-24B",
        ),
    ),
    KnownModel(
        "mixtral-8x7b",
        (
            "mistralai/Mixtral-8x7B-Instruct-v0.1",
            "mistralai/Mixtral-8x7B-v0.1",
            "mistralai/Mixtral-8x7B",
        ),
    ),
    KnownModel(
        "gemma-3-27b",
        ("google/gemma-3-27b-it", "google/gemma-3-27b-pt", "google/gemma-3-27b"),
    ),
    KnownModel("glm-4.5-air", ("zai-org/GLM-4.5-Air", "zai-org/GLM-4.5-Air-Base")),
    KnownModel("bitnet-b1.58-2b-4t", ("microsoft/bitnet-b1.58-2B-4T",)),
)


def known_config(name: str) -> tuple[dict[str, Any], str] | None:
    """The config of a model by its id, with or without its owner, in any case; None if it is not
    known. A packed one's name says in how many bits: `mlx-community/DeepSeek-R1-4bit`.

    Returns:
        The config, and what the model is called: as it is spelled, without owner if none was given.
    """
    owner, _, short = name.rpartition("/")
    found = _known(short, owner)
    if found is not None:
        model, spelled = found
        return model.config(), spelled if owner else _short(spelled)
    for suffix in (_PACKED, _MXFP4):
        packed = re.fullmatch(f"(?P<model>.+?){suffix.pattern}", short, re.IGNORECASE)
        if packed is not None and (not owner or owner.lower() in CONVERTERS):
            found = _known(packed["model"], "")
            if found is not None:
                model, spelled = found
                full = _short(spelled) + short[packed.end("model") :]
                config = _repacked(model.config(), packed)
                return config, f"{owner}/{full}" if owner else full
    return None


def near_names(name: str) -> tuple[str, ...]:
    """Names of known models that look alike, without owners, the nearest first."""
    short = name.rpartition("/")[2].lower()
    spelled = {_short(one).lower(): _short(one) for model in KNOWN for one in model.ids}
    within = [one for one in spelled if short and short in one]
    near = get_close_matches(short, spelled, NUM_NEAR, NEAR)
    return tuple(spelled[one] for one in dict.fromkeys((*within, *near)))[:NUM_NEAR]


@cache
def _by_name() -> dict[str, tuple[KnownModel, str]]:
    """Lower-case id without owner -> the model, and the id."""
    return {_short(one).lower(): (model, one) for model in KNOWN for one in model.ids}


def _known(short: str, owner: str) -> tuple[KnownModel, str] | None:
    found = _by_name().get(short.lower())
    if found is None or (owner and found[1].lower() != f"{owner}/{short}".lower()):
        return None
    return found


def _short(name: str) -> str:
    return name.rpartition("/")[2]


def _repacked(config: dict[str, Any], packed: re.Match[str]) -> dict[str, Any]:
    """As `mlx_lm.convert` leaves the config."""
    groups = packed.groupdict()
    mxfp4 = config.pop("quantization_config", {}).get("quant_method") == "mxfp4"
    if groups.get("plain"):
        return config
    told: dict[str, Any] = {"group_size": 64, "bits": int(groups["bits"]), "mode": "affine"}
    if mxfp4 and packed.re.pattern.endswith(_MXFP4.pattern):
        experts = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
        told |= {
            f"model.layers.{layer}.mlp.experts.{part}_proj": experts
            for layer in range(config["num_hidden_layers"])
            for part in ("gate", "up", "down")
        }
    return config | {"quantization": told}
