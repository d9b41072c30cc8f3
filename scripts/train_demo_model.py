"""Train the bundled demo model from nothing, on a synthetic corpus, and write it into the package.

    pip install -e '.[train]'
    python scripts/train_demo_model.py

About half an hour on two CPU cores, with a C++ compiler (`--no-compile` without). The same seed
and number of threads give the same model, as far as torch allows.
"""

import argparse
import itertools
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# A waiting thread sleeps instead of spinning: on a busy machine spinning starves the other thread.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from demo_export import CONTEXT, END, PAD, ROLES, VOCAB_SIZE, token_id, train_tokenizer, write_model  # noqa: E402, I001
from benchmarks.demo_questions import Question, held_out_questions  # noqa: E402
from benchmarks.demo_questions.chats import Corpus, Message  # noqa: E402

BUNDLED_MODEL = ROOT / "src" / "tbcluster" / "demo" / "model"
SEED = 7
BATCH_TOKENS = 4096
ROW_TOKENS = 256
LONG_EVERY = 10  # one batch in so many holds conversations that fill the context
PROMPT_WEIGHT = 0.05  # of a prompt's token in the loss, beside 1 for a token of a reply
PEAK_RATE = 2.5e-3
WARM_UP_STEPS = 200
MAX_REPLY_TOKENS = 64
LINE_S = 5.0  # between two lines on how far it is


@dataclass(frozen=True)
class Shape:
    """Sizes of the model, named as in `config.json`."""

    vocab_size: int = VOCAB_SIZE
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    max_position_embeddings: int = CONTEXT
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; modules are named as in a llama file."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.num_groups = shape.num_attention_heads // shape.num_key_value_heads
        self.head_dim = shape.head_dim
        queries = shape.num_attention_heads * shape.head_dim
        keys = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        heads = [
            proj(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        ]
        q, k, v = _rotated(heads[0], rope), _rotated(heads[1], rope), heads[2]
        k, v = (t.repeat_interleave(self.num_groups, dim=1) for t in (k, v))
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None
        )
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """The gated feed-forward part of a layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One transformer block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The llama architecture with tied embeddings; `mask` is None for plain causal attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        cos, sin = _rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise(shape.num_hidden_layers)

    def _initialise(self, num_layers: int) -> None:
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # What writes to the residual stream starts smaller, so that depth adds up to 1.
                writes = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=0.04 / math.sqrt(2 * num_layers) if writes else 0.04)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (rows, length, vocabulary) of token ids (rows, length)."""
        x = self.embed_tokens(ids)
        rope = (self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x, rope, mask)
        return functional.linear(self.norm(x), self.embed_tokens.weight)


def _rope_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    frequencies = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
    angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rope
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


# --- batches ---------------------------------------------------------------------------------

Encoded = list[tuple[int, float]]
"""Token ids of a chat, each with the weight of predicting it."""


@dataclass(frozen=True)
class Batch:
    """Packed rows; all tensors are (rows, length). `documents` tells the chats of a row apart."""

    ids: Tensor
    weights: Tensor
    documents: Tensor

    def mask(self) -> Tensor:
        """Causal attention inside each chat, (rows, 1, length, length)."""
        same = self.documents[:, :, None] == self.documents[:, None, :]
        return same.tril()[:, None]


def encode_chat(tokenizer: Tokenizer, chat: list[Message]) -> Encoded:
    """The tokens that the chat template gives, with their weights in the loss."""
    tokens: Encoded = []
    for role, content in chat:
        weight = 1.0 if role == "assistant" else PROMPT_WEIGHT
        tokens.append((token_id(tokenizer, ROLES[role]), 0.0))
        ids = tokenizer.encode(content, add_special_tokens=False).ids
        tokens += [(token, weight) for token in ids]
        tokens.append((token_id(tokenizer, END), 1.0 if role == "assistant" else 0.0))
    return tokens


def batches(tokenizer: Tokenizer) -> Iterator[Batch]:
    """An endless, seeded stream of batches."""
    corpus = Corpus(SEED)
    chats = (encode_chat(tokenizer, chat) for chat in corpus.chats())
    short = (chat for chat in chats if len(chat) <= ROW_TOKENS)
    pad = token_id(tokenizer, PAD)
    for step in itertools.count():
        if step % LONG_EVERY == LONG_EVERY - 1:
            rows = [[_long_chat(tokenizer, corpus)] for _ in range(BATCH_TOKENS // CONTEXT)]
            yield _batch(rows, CONTEXT, pad)
        else:
            yield _batch(_packed_rows(short), ROW_TOKENS, pad)


def _long_chat(tokenizer: Tokenizer, corpus: Corpus) -> Encoded:
    chat, tokens = corpus.chat(1), 0
    while (tokens := tokens + len(encode_chat(tokenizer, chat[-2:]))) < CONTEXT:
        chat += corpus.turn()
    return encode_chat(tokenizer, chat)[:CONTEXT]


def _packed_rows(chats: Iterator[Encoded]) -> list[list[Encoded]]:
    """Rows of chats, each chat in the first row that has room, until one finds none."""
    num_rows = BATCH_TOKENS // ROW_TOKENS
    rows: list[list[Encoded]] = [[] for _ in range(num_rows)]
    room = [ROW_TOKENS] * num_rows
    for chat in chats:
        fit = next((row for row in range(num_rows) if room[row] >= len(chat)), None)
        if fit is None:
            break
        rows[fit].append(chat)
        room[fit] -= len(chat)
    return rows


def _batch(rows: list[list[Encoded]], length: int, pad: int) -> Batch:
    ids = torch.full((len(rows), length), pad)
    weights = torch.zeros(len(rows), length)
    documents = torch.full((len(rows), length), -1)
    for row, chats in enumerate(rows):
        start = 0
        for number, chat in enumerate(chats):
            end = start + len(chat)
            ids[row, start:end] = torch.tensor([token for token, _ in chat])
            weights[row, start:end] = torch.tensor([weight for _, weight in chat])
            documents[row, start:end] = number
            start = end
    return Batch(ids, weights, documents)


# --- training --------------------------------------------------------------------------------


def loss_of(model: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Tensor:
    """Mean cross-entropy of the weighted tokens (a chat's first token has weight 0)."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(batch.ids, batch.mask())[:, :-1].float()
    targets, weights = batch.ids[:, 1:], batch.weights[:, 1:].flatten()
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def learning_rate(step: int, num_steps: int) -> float:
    """Linear warm-up, then a cosine down to nothing."""
    if step < WARM_UP_STEPS:
        return PEAK_RATE * (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, num_steps - WARM_UP_STEPS)
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_of(model: Llama) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.dim() == 2]
    gains = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def train(model: Llama, tokenizer: Tokenizer, args: argparse.Namespace) -> None:
    """Run all steps, with a line of progress every `LINE_S` seconds and a checkpoint every 500."""
    optimizer = optimizer_of(model)
    forward = torch.compile(model, dynamic=False) if args.compile else model
    first = _resume(model, optimizer, args) if args.resume else 0
    started, seen = time.monotonic(), 0
    said_at = started
    for step, batch in itertools.islice(enumerate(batches(tokenizer)), first, args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps)
        loss = loss_of(forward, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seen += int((batch.documents >= 0).sum())
        done = step + 1
        if time.monotonic() - said_at >= LINE_S or done == args.steps:
            said_at = time.monotonic()
            speed = seen / (time.monotonic() - started)
            eta = (args.steps - done) * (time.monotonic() - started) / (done - first)
            print(
                f"step {done}/{args.steps}  loss {loss.item():.4f}  {speed:,.0f} tokens/s  "
                f"ETA {eta / 60:.1f} min",
                flush=True,
            )
        if done % 500 == 0 and done < args.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": done}, args.work_dir / "checkpoint.pt")
            report(model, tokenizer, held_out_questions()[::4])


def _resume(model: Llama, optimizer: torch.optim.AdamW, args: argparse.Namespace) -> int:
    state = torch.load(args.work_dir / "checkpoint.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


# --- score -----------------------------------------------------------------------------------


@torch.no_grad()
def replies(model: Llama, tokenizer: Tokenizer, prompts: list[str]) -> list[str]:
    """Greedy replies to single questions, all decoded side by side."""
    end = token_id(tokenizer, END)
    texts = [f"{ROLES['user']}{prompt}{END}{ROLES['assistant']}" for prompt in prompts]
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    starts = [len(row) for row in rows]
    unfinished = list(range(len(rows)))
    for _ in range(MAX_REPLY_TOKENS):
        # Padding comes after the tokens, where causal attention does not see it.
        length = max(len(rows[index]) for index in unfinished)
        ids = torch.tensor([rows[i] + [end] * (length - len(rows[i])) for i in unfinished])
        last = torch.tensor([len(rows[index]) - 1 for index in unfinished])
        best = model(ids)[torch.arange(len(unfinished)), last].argmax(-1).tolist()
        for index, token in zip(unfinished, best, strict=True):
            rows[index].append(token)
        unfinished = [index for index in unfinished if rows[index][-1] != end]
        if not unfinished:
            break
    return [tokenizer.decode(row[start:]) for row, start in zip(rows, starts, strict=True)]


def report(model: Llama, tokenizer: Tokenizer, questions: list[Question]) -> float:
    """Print the share of right replies by task and language, and return the share of all."""
    asked, right = Counter[str](), Counter[str]()
    print(f"asking {len(questions)} held-out questions ...", flush=True)
    texts = replies(model, tokenizer, [question.prompt for question in questions])
    for question, text in zip(questions, texts, strict=True):
        group = f"{question.task}-{question.language}"
        asked[group] += 1
        right[group] += question.is_right(text)
    print("  ".join(f"{group} {right[group]}/{asked[group]}" for group in asked))
    print(f"held-out score: {right.total()}/{asked.total()}", flush=True)
    return right.total() / asked.total()


def main() -> None:
    """Train, cast to the stored type, score what will be read back, and write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build" / "demo-model")
    parser.add_argument("--output", type=Path, default=BUNDLED_MODEL)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile the model: faster by half, but takes a C++ compiler",
    )
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)  # attention makes denormals, which are ten times slower

    tokenizer = train_tokenizer(Corpus(SEED + 1))
    shape = Shape()
    model = Llama(shape)
    started = time.monotonic()
    train(model, tokenizer, args)
    minutes = (time.monotonic() - started) / 60
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    score = report(model, tokenizer, held_out_questions())
    write_model(args.output, model.state_dict(), shape, tokenizer, score, args.steps)
    print(f"wrote {args.output} after {minutes:.1f} minutes of training")


if __name__ == "__main__":
    main()
