"""How long steps were on their way to each stage, added up. Pure."""

from collections.abc import Sequence

from tbcluster.tracing.clocks import US_PER_S, Clocks, parts
from tbcluster.tracing.records import StepRecord


class WayCount:
    """Adds up what steps' ways to each stage took, in microseconds; `num_stages` long."""

    def __init__(self, num_stages: int) -> None:
        self.wire_us = [0] * num_stages

    def add(self, records: Sequence[StepRecord]) -> None:
        """Steps that were not added before; those of other stages do not count."""
        clocks = Clocks(records)
        for record in records:
            if record.num_stages != len(self.wire_us):
                continue
            for part in parts(record, clocks.of(record))[0]:
                self.wire_us[part.stage] += round(part.wire_s * US_PER_S)
