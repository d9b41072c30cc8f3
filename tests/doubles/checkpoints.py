"""Random llama checkpoints on disk, of any size, laid out as Hugging Face does."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

BOS, EOS = "<bos>", "<eos>"
SPECIAL_IDS = {BOS: 0, EOS: 1}
# Byte-level text needs every byte besides the special tokens.
MIN_TOKENIZER_VOCAB = len(SPECIAL_IDS) + 256
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class LlamaSizes:
    """The parts of a llama config that decide its size; the names are the config's own."""

    num_hidden_layers: int = 4
    hidden_size: int = 64
    intermediate_size: int = 128
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    vocab_size: int = 300
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = False


def write_llama(
    path: Path,
    sizes: LlamaSizes | None = None,
    *,
    dtype: str = "float32",
    num_shards: int = 1,
    seed: int = 0,
    with_tokenizer: bool = False,
) -> Path:
    """Write config.json, weights and, if asked, a tokenizer into `path` (made if missing).

    Weights are made and written one shard at a time, so memory holds one shard.

    Args:
        dtype: MLX's name of a floating type.
        num_shards: 1 writes model.safetensors, more write numbered files and their index.

    Raises:
        ValueError: More shards than tensors, or a vocabulary too small for the tokenizer.
    """
    sizes = sizes or LlamaSizes()
    path.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "torch_dtype": dtype,
        "bos_token_id": SPECIAL_IDS[BOS],
        "eos_token_id": SPECIAL_IDS[EOS],
        **asdict(sizes),
    }
    _write_json(path / "config.json", config)
    _write_weights(path, _shapes(config), getattr(mx, dtype), num_shards, seed)
    if with_tokenizer:
        write_tokenizer(path, sizes.vocab_size, sizes.max_position_embeddings)
    return path


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    # The parameters of a module that was never evaluated take no memory.
    model = llama.Model(llama.ModelArgs.from_dict(config))
    return {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}


def _write_weights(
    path: Path,
    shapes: dict[str, tuple[int, ...]],
    dtype: mx.Dtype,
    num_shards: int,
    seed: int,
) -> None:
    if not 1 <= num_shards <= len(shapes):
        raise ValueError(f"{num_shards} shards for {len(shapes)} tensors")
    keys = dict(zip(shapes, mx.random.split(mx.random.key(seed), len(shapes)), strict=True))
    weight_map: dict[str, str] = {}
    total_bytes = 0
    for number, names in enumerate(_parts(shapes, num_shards), start=1):
        file = f"model-{number:05}-of-{num_shards:05}.safetensors"
        if num_shards == 1:
            file = "model.safetensors"
        tensors = {name: _random(shapes[name], dtype, keys[name]) for name in names}
        mx.save_safetensors(str(path / file), tensors, {"format": "mlx"})
        weight_map |= dict.fromkeys(names, file)
        total_bytes += sum(tensor.nbytes for tensor in tensors.values())
        del tensors
        mx.clear_cache()
    if num_shards > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        _write_json(path / "model.safetensors.index.json", index)


def _parts(shapes: dict[str, tuple[int, ...]], num_parts: int) -> list[list[str]]:
    """Consecutive names in parts of about equal size, none of them empty."""
    total = sum(math.prod(shape) for shape in shapes.values())
    parts: list[list[str]] = [[]]
    size = 0
    for left, (name, shape) in zip(range(len(shapes), 0, -1), shapes.items(), strict=True):
        is_full = size >= total * len(parts) / num_parts
        if parts[-1] and len(parts) < num_parts and (is_full or left == num_parts - len(parts)):
            parts.append([])
        parts[-1].append(name)
        size += math.prod(shape)
    return parts


def _random(shape: tuple[int, ...], dtype: mx.Dtype, key: mx.array) -> mx.array:
    # Of a size that keeps activations finite through any number of layers.
    noise = mx.random.normal(shape, key=key)
    scaled = noise * (0.7 / math.sqrt(shape[-1])) if len(shape) > 1 else 1 + 0.1 * noise
    return scaled.astype(dtype)


def write_tokenizer(path: Path, vocab_size: int, context_length: int) -> None:
    """A byte-level tokenizer without merges; ids past the bytes are words, so that every id of a
    random model decodes to some text."""
    if vocab_size < MIN_TOKENIZER_VOCAB:
        raise ValueError(f"the tokenizer needs a vocabulary of {MIN_TOKENIZER_VOCAB} at least")
    vocab = dict(SPECIAL_IDS)
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[byte] = len(vocab)
    for token in range(len(vocab), vocab_size):
        vocab[f"Ġw{token}"] = token
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL_IDS])
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context_length,
    }
    _write_json(path / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_endless_llama(path: Path) -> Path:
    """A small model with a context so long that its greedy answer ends only if it is ended."""
    return write_llama(path, LlamaSizes(max_position_embeddings=10**9), with_tokenizer=True)
