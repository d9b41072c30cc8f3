"""A coordinator that has models fetched, one after another: run on the head node of a rack.

    python -m tests.doubles.fetch_driver

Each line of standard input is a JSON object: `hub`, `model` and the layers of each node, such as
{"head": [0, 3], "two": [3, 6]}, of which the first also gets what belongs to no layer. Each is
answered with a line: folders, statuses and needed spans, by node.
"""

import json
import sys
from dataclasses import asdict, astuple
from typing import Any

from tbcluster.checkpoint import Span
from tbcluster.cluster.rack.fetching import FetchStatus
from tbcluster.cluster.rack.rack import Rack
from tbcluster.weights.library import ModelSource, open_model_source
from tbcluster.weights.store import headers_in


def needs_of(source: ModelSource, layers: range, *, has_rest: bool) -> list[Span]:
    """The tensors of these layers, and, if so, of none."""
    found = []
    for header in headers_in(source.folder, source.listing).values():
        for name, span in header.tensors.items():
            words = name.split(".")
            layer = int(words[words.index("layers") + 1]) if "layers" in words else None
            if layer in layers or (has_rest and layer is None):
                found.append(span)
    return found


def fetch(rack: Rack, hub: str, model: str, layers: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Do what one line asks for."""
    source = open_model_source(model, hub=hub)
    first = next(iter(layers))
    needs = {
        node: needs_of(source, range(*bounds), has_rest=node == first)
        for node, bounds in layers.items()
    }
    seen: list[tuple[FetchStatus, ...]] = []
    rack.await_nodes(list(needs))
    return {
        "folders": rack.fetch(source, needs, seen.append, hub=hub),
        "statuses": {status.node: asdict(status) for status in seen[-1]},
        "needs": {node: [astuple(span) for span in spans] for node, spans in needs.items()},
    }


def main() -> None:
    """Until the input ends."""
    with Rack() as rack:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(fetch(rack, **json.loads(line))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
