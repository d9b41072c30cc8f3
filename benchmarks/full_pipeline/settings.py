"""How large the models are and how much is measured: all the numbers of this benchmark."""

from dataclasses import dataclass

from tests.doubles.checkpoints import LlamaSizes

# 70 million parameters, wide layers (see benchmarks.single_stream). The layers are split evenly by
# number, so the vocabulary is small: the head makes the last stage 1.6 % larger than the first.
DECODE_MODEL = LlamaSizes(
    num_hidden_layers=6,
    hidden_size=896,
    intermediate_size=3072,
    num_attention_heads=14,
    num_key_value_heads=14,
    vocab_size=512,
)
# 10 million parameters: MLX computes a few GFLOP/s on a CPU core. Of the last layer a prompt needs
# only keys and values, so with few layers the last of two stages would have far less to do.
PROMPT_MODEL = LlamaSizes(
    num_hidden_layers=8,
    hidden_size=320,
    intermediate_size=864,
    num_attention_heads=5,
    num_key_value_heads=5,
    vocab_size=512,
    max_position_embeddings=4096,
)
TINY_MODEL = LlamaSizes(num_hidden_layers=4)


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """For the decode rows.

    Attributes:
        num_starts: How often the processes are started anew: where its weights lie in memory makes
            a process faster or slower for as long as it lives.
        stream_counts: Rows with more than one stream; even numbers.
        num_tokens: That one stream decodes.
        num_steps: That many streams decode while they are timed.
    """

    model: LlamaSizes = DECODE_MODEL
    num_starts: int = 3
    pairs_per_start: int = 2
    stream_counts: tuple[int, ...] = (8, 16)
    num_prompt_tokens: int = 4
    num_tokens: int = 25
    num_steps: int = 12


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """For the rows on prompts.

    Attributes:
        num_pairs: Rounds of the prompt alone that are measured, after one that is not.
        num_tokens: Of the long prompt.
        num_arrivals: Of it beside the streams, likewise.
        num_streams: That decode while it comes.
        num_stream_prompt_tokens: Of their own prompts.
        num_undisturbed_steps: That are measured before it comes.
        num_steps_between: From one such prompt to what is measured before the next.
        num_chats: Likewise.
        num_history_tokens: Of a chat's first prompt.
        num_answer_tokens: Of the answer to that.
        num_new_tokens: That the second turn adds to both.
    """

    model: LlamaSizes = PROMPT_MODEL
    num_pairs: int = 5
    num_tokens: int = 1500
    num_arrivals: int = 5
    num_streams: int = 8
    num_stream_prompt_tokens: int = 16
    num_undisturbed_steps: int = 30
    num_steps_between: int = 5
    num_chats: int = 5
    num_history_tokens: int = 800
    num_answer_tokens: int = 8
    num_new_tokens: int = 20


@dataclass(frozen=True, slots=True)
class StageSettings:
    """For the stages that take a set time, in milliseconds per micro-batch."""

    model: LlamaSizes = TINY_MODEL
    stage_ms: tuple[float, ...] = (10, 20, 10, 10)
    num_streams: int = 32
    num_steps: int = 60
    num_runs: int = 5


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """For the coordinator's own time."""

    sequence_counts: tuple[int, ...] = (1, 16, 64, 256)
    num_steps: int = 400
    num_runs: int = 5


@dataclass(frozen=True, slots=True)
class CorrectnessSettings:
    """For the random requests."""

    model: LlamaSizes = TINY_MODEL
    num_requests: int = 500
    max_open: int = 24
    max_prompt_tokens: int = 200
    max_tokens: int = 40
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """Those of each part, by its name."""

    decode: DecodeSettings = DecodeSettings()
    prompts: PromptSettings = PromptSettings()
    stages: StageSettings = StageSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    correctness: CorrectnessSettings = CorrectnessSettings()


FULL = Settings()
# To see that everything runs; the figures mean nothing.
QUICK = Settings(
    decode=DecodeSettings(model=TINY_MODEL, num_starts=1, pairs_per_start=5, num_steps=8),
    prompts=PromptSettings(model=TINY_MODEL, num_tokens=300, num_history_tokens=150),
    stages=StageSettings(num_steps=10),
    coordinator=CoordinatorSettings(num_steps=50),
    correctness=CorrectnessSettings(num_requests=60),
)
