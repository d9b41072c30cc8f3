"""Hostile clients in a process of their own: what they compute is not the good client's."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.line_process import LineProcess
from tests.doubles.malformed import Attack, Outcome, attacks, perform

# Most of them take milliseconds, and some wait for a deadline of the server.
NUM_THREADS = 16
# Of a server that hangs. A valid request with a thousand tokens of tools takes a minute here.
DEADLINE_S = 180.0
DEAF_S = 2.0


class Attackers(LineProcess):
    """The process, as a context manager.

    Args:
        seed: From it and the model's name all attacks follow; they go on from call to call.
    """

    def __init__(self, port: int, model: str, seed: int) -> None:
        super().__init__("benchmarks.attackers", str(port), model, str(seed))

    def run(self, count: int, per_second: float) -> list[str]:
        """Carry out so many, one after another begun at this pace; what was not as allowed."""
        self.write(json.dumps({"count": count, "per_second": per_second}))
        complaints: list[str] = self.read()
        return complaints


def carry_out(planned: Iterator[Attack], port: int, count: int, per_second: float) -> list[Outcome]:
    """So many attacks of those that are planned."""
    started = time.monotonic()
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        running = []
        for number in range(count):
            attack = next(planned)
            time.sleep(max(0.0, started + number / per_second - time.monotonic()))
            running.append(pool.submit(perform, attack, port, DEADLINE_S, DEAF_S))
        return [future.result() for future in running]


def main(port: str, model: str, seed: str) -> None:
    """Read a line with how many, write a line with what went wrong."""
    planned = attacks(int(seed), None, model)
    for line in sys.stdin:
        outcomes = carry_out(planned, int(port), **json.loads(line))
        wrong = [f"{one.attack}: {one.complaint}" for one in outcomes if one.complaint]
        sys.stdout.write(json.dumps(wrong) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
