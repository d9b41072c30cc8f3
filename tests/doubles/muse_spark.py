"""Plain MLX stand-ins for muse_spark's Metal kernels: its slicing can be tested on a CPU."""

from typing import Any

import mlx.core as mx


def norm_add_norm(
    branch: mx.array,
    stream: mx.array,
    *,
    alpha: Any,
    beta: Any,
    post_weight: mx.array | None,
    post_eps: float,
    next_norm: Any,
) -> tuple[mx.array, mx.array | None]:
    value = branch if post_weight is None else post_weight.astype(branch.dtype) * branch
    total = alpha * stream + beta * mx.fast.rms_norm(value, None, post_eps).astype(mx.float32)
    if next_norm is None:
        return total, None
    return total, pre_norm(total, next_norm, dtype=branch.dtype)


def pre_norm(stream: mx.array, norm: Any, *, dtype: mx.Dtype) -> mx.array:
    return mx.fast.rms_norm(stream, norm.weight.astype(mx.float32), norm.eps).astype(dtype)


def qk_norm(
    qkvg: mx.array,
    *,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    eps: float,
    query_scale: Any,
) -> list[mx.array]:
    lead = qkvg.shape[:-1]
    split = n_heads * head_dim
    queries = qkvg[..., :split].reshape(*lead, n_heads, head_dim)
    keys = qkvg[..., split : split + n_kv_heads * head_dim].reshape(*lead, n_kv_heads, head_dim)
    return [mx.fast.rms_norm(queries, None, eps) * query_scale, mx.fast.rms_norm(keys, None, eps)]


def qk_norm_rope(
    qkvg: mx.array,
    *,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    eps: float,
    query_scale: Any,
    rope_base: float,
    offset: Any,
) -> list[mx.array]:
    normed = qk_norm(
        qkvg,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        eps=eps,
        query_scale=query_scale,
    )
    return [
        mx.fast.rope(
            x.swapaxes(1, 2), head_dim, traditional=True, base=rope_base, scale=1.0, offset=offset
        ).swapaxes(1, 2)
        for x in normed
    ]


def rms_norm_sigmoid_gate(x: mx.array, gate: mx.array, *, eps: float) -> mx.array:
    batch, heads, length, width = x.shape
    normed = mx.fast.rms_norm(x, None, eps).swapaxes(1, 2).reshape(batch, length, heads * width)
    return normed * mx.sigmoid(gate)


def expert_routing(
    logits: mx.array,
    bias: mx.array,
    *,
    top_k: int,
    multiplier: Any,
    score_eps: float,
    route_scale: Any,
) -> list[mx.array]:
    scores = mx.sigmoid(logits.astype(mx.float32) * multiplier)
    chosen = mx.argsort(-(scores + bias), axis=-1)[..., :top_k]
    weights = mx.take_along_axis(scores, chosen, axis=-1)
    return [
        chosen.astype(mx.uint32),
        weights / (weights.sum(-1, keepdims=True) + score_eps) * route_scale,
    ]


def post_expert_norm_combine(
    experts: mx.array, weights: mx.array, *, norm_weight: mx.array, eps: float
) -> mx.array:
    normed = mx.fast.rms_norm(experts * norm_weight, None, eps)
    return (normed * weights[..., None]).sum(-2).astype(experts.dtype)


STAND_INS = {
    function.__name__: function
    for function in (
        norm_add_norm,
        pre_norm,
        qk_norm,
        qk_norm_rope,
        rms_norm_sigmoid_gate,
        expert_routing,
        post_expert_norm_combine,
    )
}
