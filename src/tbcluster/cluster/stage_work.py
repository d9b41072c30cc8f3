"""What the workers of one replica are to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tbcluster.cluster.places import COORDINATOR
from tbcluster.core import StageRange
from tbcluster.wire.control import StageSpec


@dataclass(frozen=True, slots=True)
class StageWork:
    """What the workers are to run.

    Attributes:
        models: Where each stage loads from, as in `StageSpec`.
        kv_bits: 8 or 4 for quantized KV caches.
        saved_folders: Where each stage keeps prefixes on disk; None for nowhere.
        is_looped: Whether the last stage sends to stage 0.
        shards: What each stage holds, as in `StageSpec`; empty where nobody could take over.
        step_limit_s: As in `StageSpec`.
        replica, first_index: Which copy of the model they are, and how many stages those before it
            have: what people are told counts on from there.
    """

    models: Sequence[str]
    ranges: Sequence[StageRange]
    kv_bits: int | None = None
    saved_folders: Sequence[Path] | None = None
    is_looped: bool = False
    shards: Sequence[str] = ()
    step_limit_s: float = 0.0
    replica: int = 0
    first_index: int = 0

    def spec(self, stage: int, epoch: int) -> StageSpec:
        """Everything but what depends on the place."""
        saved = self.saved_folders
        return StageSpec(
            index=stage,
            num_stages=len(self.ranges),
            model=self.models[stage],
            layers=self.ranges[stage],
            epoch=epoch,
            inbound="",
            run_dir="",
            kv_bits=self.kv_bits,
            saved_folder=None if saved is None else str(saved[stage]),
            shard=self.shards[stage] if self.shards else "",
            step_limit_s=self.step_limit_s,
        )

    def hops(self) -> list[tuple[int, int]]:
        """Who sends to whom."""
        last = len(self.ranges) - 1
        ring = [(COORDINATOR, 0), *((i, i + 1) for i in range(last)), (last, COORDINATOR)]
        return [*ring, (last, 0)] if self.is_looped else ring
