"""How the KV caches are kept, and how much memory they get. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tbcluster.core import KV_BITS, CacheCost
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.errors import PlanError

# Of memory that the plan has no use for: the rest is for copies of them while lanes are regrouped,
# as in the plan's own reserve.
KV_SHARE = 0.7
# Stages get memory in proportion to what a sequence of this length takes on each.
REFERENCE_TOKENS = 4096
# Less is of no use to anyone, and the parity probe would not fit.
MIN_CAPACITY_TOKENS = 64
DEFAULT_DISK_BYTES = 20 * 10**9


@dataclass(frozen=True, slots=True)
class KvOptions:
    """How the KV caches are kept.

    Attributes:
        memory_bytes: KV memory of each stage; None shares out what this machine has left.
        bits: 8 or 4 for quantized KV caches; None keeps the model's own type.
        prefix_cache: Whether prompts start from known prefixes.
        prefix_folder: Where prefixes are kept on disk as well; None for nowhere.
        prefix_disk_bytes: How much they may take there.
        keeps_to_promise: Whether they take no more than the plan promises, so that other models
            find room beside them; otherwise they share out what is left.

    Raises:
        PlanError: A number is out of range.
    """

    memory_bytes: int | None = None
    bits: int | None = None
    prefix_cache: bool = True
    prefix_folder: Path | None = None
    prefix_disk_bytes: int = DEFAULT_DISK_BYTES
    keeps_to_promise: bool = False

    def __post_init__(self) -> None:
        if self.bits is not None and self.bits not in KV_BITS:
            raise PlanError(f"KV caches of {self.bits} bits: ask for 8 or 4, or leave it out")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise PlanError(f"{self.memory_bytes} bytes of KV memory: ask for more than 0")
        if self.prefix_disk_bytes <= 0:
            raise PlanError(f"{self.prefix_disk_bytes} bytes for prefixes on disk: ask for more")
        if self.prefix_folder is not None and not self.prefix_cache:
            raise PlanError("a folder for prefixes is of no use without the prefix cache")


@dataclass(frozen=True, slots=True)
class StageMemory:
    """The memory of the machine that a stage runs on, and what it takes there.

    Attributes:
        name: Stages of one name share a machine.
        limit_bytes: What models may take there.
        weight_bytes: What this stage's weights take.
        other_bytes: What its activations take, and what is kept free.
        promised_bytes: KV memory that the plan promises it.
    """

    name: str
    limit_bytes: int
    weight_bytes: int
    other_bytes: int = 0
    promised_bytes: int = 0


def kv_budgets(
    costs: Sequence[Sequence[CacheCost]], options: KvOptions, machines: Sequence[StageMemory]
) -> tuple[int, ...]:
    """Bytes of KV memory for each stage: what the user says, or what was promised, and of what the
    machines have left beyond that a share for each.

    Args:
        machines: Where each stage runs, and what it takes there.

    Raises:
        PlanError: It is too little for the shortest sequence.
    """
    if options.memory_bytes is not None:
        budgets = (options.memory_bytes,) * len(costs)
    elif options.keeps_to_promise:
        budgets = tuple(machine.promised_bytes for machine in machines)
    else:
        sizes = KvMemory(costs, (0,) * len(costs)).bytes_for(REFERENCE_TOKENS)
        budgets = tuple(
            machine.promised_bytes
            + _room(machines, machine.name) * size // max(1, _total(machines, sizes, machine.name))
            for machine, size in zip(machines, sizes, strict=True)
        )
    memory = KvMemory(costs, budgets)
    if memory.capacity_tokens() < MIN_CAPACITY_TOKENS:
        stage = memory.tightest_stage(MIN_CAPACITY_TOKENS)
        needed = memory.bytes_for(MIN_CAPACITY_TOKENS)[stage]
        raise PlanError(
            f"stage {stage} has {budgets[stage]:,} bytes of KV memory, and {MIN_CAPACITY_TOKENS} "
            f"tokens take {needed:,}: give it more (--kv-memory), use fewer bits (--kv-bits), or "
            f"free memory on {machines[stage].name}"
        )
    return budgets


def _room(machines: Sequence[StageMemory], name: str) -> int:
    """Bytes that the KV caches of all stages on a machine may take beyond what was promised."""
    here = [machine for machine in machines if machine.name == name]
    used = sum(stage.weight_bytes + stage.other_bytes + stage.promised_bytes for stage in here)
    return max(0, int((here[0].limit_bytes - used) * KV_SHARE))


def _total(machines: Sequence[StageMemory], sizes: Sequence[int], name: str) -> int:
    sized = zip(machines, sizes, strict=True)
    return sum(size for machine, size in sized if machine.name == name)
