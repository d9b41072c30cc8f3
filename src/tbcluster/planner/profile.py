"""What a model asks of a machine, layer by layer. Pure."""

from dataclasses import dataclass

from tbcluster.core import CacheCost


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """Multiplications and additions of a layer's attention, beside those with its weights.

    Attributes:
        prompt_flops: For each token of a prompt chunk and each token it looks at: scores and values
            of all heads.
        decode_flops: The same in a decode step. More where attention is latent: each head then
            works on the latent KV itself.
        unpack_flops: For each token that a prompt chunk looks at, once for the chunk: keys and
            values unpacked from latent KV.
    """

    prompt_flops: int = 0
    decode_flops: int = 0
    unpack_flops: int = 0


@dataclass(frozen=True, slots=True)
class PartProfile:
    """A layer, the embedding or the head.

    Attributes:
        weight_bytes: In memory, in the type it is computed in, routed experts included.
        flops: Multiplications and additions for one token and visit, without attention over the
            context.
        expert_bytes: How much of `weight_bytes` are routed experts, of which a token uses some.
        num_experts: Routed experts; 0 where there are none.
        experts_per_token: How many of them one token uses.
        lookup_bytes: How much of `weight_bytes` is looked up row by row (an embedding's).
        caches: The KV caches it keeps for each sequence.
        attention: What attention over the context takes; a layer whose caches all have a window
            looks no further.
    """

    weight_bytes: int
    flops: int
    expert_bytes: int = 0
    num_experts: int = 0
    experts_per_token: int = 0
    lookup_bytes: int = 0
    caches: tuple[CacheCost, ...] = ()
    attention: AttentionCost = AttentionCost()


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """A model before any of it is loaded, from its config and the headers of its files.

    Attributes:
        layers: One for each.
        embedding: What stage 0 holds beside its layers.
        head: What the last stage holds beside its layers: norm, head, a tied embedding once more.
        shared: What every stage holds, whatever its layers (a rotary table, say).
        hidden_bytes: What crosses a cut, for one token.
        legal_cuts: Layer indices before which the model may be cut, ascending.
        context_length: The longest the model was made for; None where its config does not tell.
        num_visits: How often one step passes through the stages.
        weight_kind: What most of the weights are: "float32", "bfloat16", "float16", or
            "4-bit/64" for affine quantization in groups of 64 ("mxfp4" and the like by name).
        file_bytes: All weight files together.
        active_parameters: Parameters that one token uses; `num_parameters` are all.
        tied_bytes: How much of the embedding is the head's as well: a stage that holds both has it
            once.
    """

    name: str
    architecture: str
    layers: tuple[PartProfile, ...]
    embedding: PartProfile
    head: PartProfile
    shared: PartProfile
    hidden_bytes: int
    legal_cuts: tuple[int, ...]
    context_length: int | None
    num_visits: int
    vocab_size: int
    weight_kind: str
    file_bytes: int
    num_parameters: int
    active_parameters: int
    tied_bytes: int = 0

    @property
    def speed_kind(self) -> str:
        """The kind of its weights with their width, "float32 4096": what speeds are measured
        with, because on some machines wide matrices are slower byte by byte than narrow ones."""
        width = self.hidden_bytes // (4 if self.weight_kind == "float32" else 2)
        return f"{self.weight_kind} {width}"

    @property
    def weight_bytes(self) -> int:
        """All of it on one machine."""
        parts = (*self.layers, self.embedding, self.head, self.shared)
        return sum(part.weight_bytes for part in parts) - self.tied_bytes
