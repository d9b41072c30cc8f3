"""What the Ollama dialect tells of models."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tbcluster.answers.format import AnswerFormat
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.views import ModelView
from tbcluster.server.ollama.answers import timestamp

# A model that nobody lets go stays as long as the server runs.
NEVER = "9999-12-31T23:59:59Z"
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

JsonObject: TypeAlias = dict[str, Any]


def list_body(views: Sequence[ModelView], since: float) -> JsonObject:
    """The answer of /api/tags.

    Args:
        since: When models that are not loaded began to be listed, in seconds since 1970.
    """
    return {"models": [{**_card(view), "modified_at": _modified(view, since)} for view in views]}


def running_body(views: Sequence[ModelView]) -> JsonObject:
    """The answer of /api/ps."""
    return {"models": [_running(view) for view in views if view.cluster is not None]}


def show_body(view: ModelView, answers: AnswerFormat | None, since: float) -> JsonObject:
    """The answer of /api/show.

    Args:
        answers: What the model's chat template knows; None where it is not loaded.
    """
    cluster = view.cluster
    return {
        "modelfile": f"FROM {view.name}\n",
        "parameters": _parameters(cluster.folder.generation_config) if cluster else "",
        "template": _template(cluster.tokenizer) if cluster else "",
        "details": _details(view),
        "model_info": _model_info(view),
        "capabilities": _capabilities(cluster, answers),
        "modified_at": _modified(view, since),
    }


def _running(view: ModelView) -> JsonObject:
    card = _card(view)
    left_s = view.expires_in_s
    expires_at = NEVER if left_s is None else timestamp(time.time() + left_s)
    longest = view.cluster.longest_sequence if view.cluster else None
    running = {"expires_at": expires_at, "size_vram": card["size"], "context_length": longest}
    return {**card, **running}


def _card(view: ModelView) -> JsonObject:
    return {
        "name": view.name,
        "model": view.name,
        "size": view.size_bytes,
        "digest": _digest(view),
        "details": _details(view),
    }


def _modified(view: ModelView, since: float) -> str:
    return timestamp(since if view.cluster is None else view.cluster.created_at)


def _digest(view: ModelView) -> str:
    """Tells models apart; hashing the weights themselves would take minutes."""
    config = json.dumps(view.config(), sort_keys=True)
    return hashlib.sha256(f"{view.name}\n{config}".encode()).hexdigest()


def _details(view: ModelView) -> JsonObject:
    family = str(view.config().get("model_type", ""))
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": _quantization(view.config()),
    }


def _quantization(config: Mapping[str, Any]) -> str:
    quantization = config.get("quantization")
    if isinstance(quantization, dict) and isinstance(quantization.get("bits"), int):
        return f"Q{quantization['bits']}"
    dtype = config.get("torch_dtype") or config.get("dtype")
    return _DTYPES.get(str(dtype), "")


def _model_info(view: ModelView) -> JsonObject:
    """The sizes in GGUF's names, where the config tells them."""
    config = view.config()
    family = str(config.get("model_type", ""))
    text_config = config.get("text_config")
    config = {**config, **(text_config if isinstance(text_config, dict) else {})}
    sizes = {
        "context_length": view.context_length,
        "block_count": config.get("num_hidden_layers"),
        "embedding_length": config.get("hidden_size"),
        "attention.head_count": config.get("num_attention_heads"),
        "attention.head_count_kv": config.get("num_key_value_heads"),
    }
    known = {f"{family}.{name}": size for name, size in sizes.items() if isinstance(size, int)}
    return {"general.architecture": family, **known}


def _parameters(generation_config: JsonObject) -> str:
    """What the model's own generation_config.json suggests, a line each, as a Modelfile has it."""
    names = ("temperature", "top_p", "top_k", "min_p")
    found = [(name, generation_config[name]) for name in names if name in generation_config]
    return "\n".join(f"{name:30} {value}" for name, value in found)


def _template(tokenizer: Any) -> str:
    template = getattr(tokenizer, "chat_template", None)
    return template if isinstance(template, str) else ""


def _capabilities(cluster: Cluster | None, answers: AnswerFormat | None) -> list[str]:
    """Every model gives embeddings; a model that was made for them says how they are pooled."""
    if cluster is None or answers is None:
        return ["completion"]
    known = {
        "tools": answers.has_tools,
        "thinking": answers.has_reasoning,
        "embedding": bool(cluster.folder.pooling_config),
    }
    return ["completion", *(name for name, is_known in known.items() if is_known)]
