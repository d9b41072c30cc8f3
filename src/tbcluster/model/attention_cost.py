"""What attention over the context multiplies, beside the weights, from a config's own names.

Of each token looked at a head takes its scores (a product of the keys' width) and weighs its values
(one of theirs). Latent attention keeps one narrow array for all heads: mlx-lm unpacks it for a
prompt chunk and, in a decode step, brings queries and values into its space instead (DeepSeek-V2,
https://arxiv.org/abs/2405.04434, section 2.1.2).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tbcluster.core import CacheCost
from tbcluster.model.trace import ModelTrace
from tbcluster.planner.profile import AttentionCost

# What configs call them.
HEADS = ("num_attention_heads", "num_query_heads", "num_heads", "n_heads", "n_head")
WIDTHS = ("hidden_size", "hidden_dim", "d_model", "n_embd", "dim", "model_dim")
HEAD_WIDTHS = ("head_dim", "attention_head_dim", "kv_channels")
# Of layers without a window, where they differ from the others (Gemma 4).
GLOBAL_HEAD_WIDTHS = ("global_head_dim",)
# mlx-lm's modules that bring queries into the space of the latent KV, all of the same name.
TO_LATENT = ".embed_q."


def attention_costs(
    config: Mapping[str, Any], traced: ModelTrace, caches: Sequence[tuple[CacheCost, ...]]
) -> tuple[AttentionCost, ...]:
    """For each layer; none for one whose caches do not grow (recurrent, or reading the cache of
    another), or whose heads the config does not name as others do.

    What looks at a selection of its context alone (DeepSeek V3.2) counts as if it looked at all.

    Args:
        caches: Of each layer.
    """
    latent = {layer for path, layer in traced.layer_of.items() if TO_LATENT in path}
    return tuple(
        _cost(_Names(config, layer), own, is_latent=layer in latent)
        for layer, own in enumerate(caches)
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """What a config says of a layer."""

    config: Mapping[str, Any]
    layer: int

    def __call__(self, *keys: str) -> int | None:
        """The first of these that is there; a list has a value for each layer."""
        for part in self._parts():
            for key in keys:
                value = part.get(key)
                if isinstance(value, list) and self.layer < len(value):
                    value = value[self.layer]
                if isinstance(value, int):
                    return value
        return None

    def _parts(self) -> Iterator[Mapping[str, Any]]:
        text_config = self.config.get("text_config")
        if isinstance(text_config, dict):
            yield text_config
        yield self.config


def _cost(names: _Names, caches: Sequence[CacheCost], *, is_latent: bool) -> AttentionCost:
    growing = [cost for cost in caches if cost.bytes_per_token]
    heads = names(*HEADS)
    if not growing or not heads:
        return AttentionCost()
    nope, rope = names("qk_nope_head_dim"), names("qk_rope_head_dim")
    latent = names("kv_lora_rank")
    has_window = all(cost.window for cost in growing)
    width = _head_width(names, heads, has_window=has_window)
    values = names("v_head_dim") or width
    if nope is None or rope is None or latent is None:
        flops = 2 * heads * (width + values)
        return AttentionCost(flops, flops)
    plain = 2 * heads * (nope + rope + values)
    if not is_latent:
        return AttentionCost(plain, plain)
    return AttentionCost(
        prompt_flops=plain,
        decode_flops=2 * heads * (latent + rope + latent),
        unpack_flops=2 * latent * heads * (nope + values),
    )


def _head_width(names: _Names, heads: int, *, has_window: bool) -> int:
    keys = HEAD_WIDTHS if has_window else (*GLOBAL_HEAD_WIDTHS, *HEAD_WIDTHS)
    return names(*keys) or (names(*WIDTHS) or 0) // heads
