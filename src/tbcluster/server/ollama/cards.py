"""What the Ollama dialect tells of the served model."""

import hashlib
import json
from typing import Any, TypeAlias

from tbcluster.answers.format import AnswerFormat
from tbcluster.cluster.cluster import Cluster
from tbcluster.server.ollama.answers import timestamp

# A model stays as long as the server runs.
NEVER = "9999-12-31T23:59:59Z"
_DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}

JsonObject: TypeAlias = dict[str, Any]


def list_body(cluster: Cluster) -> JsonObject:
    """The answer of /api/tags."""
    card = {**_card(cluster), "modified_at": timestamp(cluster.created_at)}
    return {"models": [card]}


def running_body(cluster: Cluster) -> JsonObject:
    """The answer of /api/ps."""
    card = _card(cluster)
    running = {"expires_at": NEVER, "size_vram": card["size"]}
    return {"models": [{**card, **running, "context_length": cluster.longest_sequence}]}


def show_body(cluster: Cluster, answers: AnswerFormat) -> JsonObject:
    """The answer of /api/show."""
    return {
        "modelfile": f"FROM {cluster.model_name}\n",
        "parameters": _parameters(cluster.folder.generation_config),
        "template": _template(cluster.tokenizer),
        "details": _details(cluster),
        "model_info": _model_info(cluster),
        "capabilities": _capabilities(cluster, answers),
        "modified_at": timestamp(cluster.created_at),
    }


def _card(cluster: Cluster) -> JsonObject:
    return {
        "name": cluster.model_name,
        "model": cluster.model_name,
        "size": sum(file.stat().st_size for file in cluster.folder.path.glob("*.safetensors")),
        "digest": _digest(cluster),
        "details": _details(cluster),
    }


def _digest(cluster: Cluster) -> str:
    """Tells models apart; hashing the weights themselves would take minutes."""
    config = json.dumps(cluster.folder.config, sort_keys=True)
    return hashlib.sha256(f"{cluster.model_name}\n{config}".encode()).hexdigest()


def _details(cluster: Cluster) -> JsonObject:
    family = str(cluster.folder.config.get("model_type", ""))
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": "",
        "quantization_level": _quantization(cluster.folder.config),
    }


def _quantization(config: JsonObject) -> str:
    quantization = config.get("quantization")
    if isinstance(quantization, dict) and isinstance(quantization.get("bits"), int):
        return f"Q{quantization['bits']}"
    dtype = config.get("torch_dtype") or config.get("dtype")
    return _DTYPES.get(str(dtype), "")


def _model_info(cluster: Cluster) -> JsonObject:
    """The sizes in GGUF's names, where the config tells them."""
    config = cluster.folder.config
    text_config = config.get("text_config")
    config = {**config, **(text_config if isinstance(text_config, dict) else {})}
    family = str(cluster.folder.config.get("model_type", ""))
    sizes = {
        "context_length": cluster.context_length,
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


def _capabilities(cluster: Cluster, answers: AnswerFormat) -> list[str]:
    """Every model gives embeddings; a model that was made for them says how they are pooled."""
    known = {
        "tools": answers.has_tools,
        "thinking": answers.has_reasoning,
        "embedding": bool(cluster.folder.pooling_config),
    }
    return ["completion", *(name for name, is_known in known.items() if is_known)]
