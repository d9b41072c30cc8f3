"""How many Macs a model needs, and what one more would add: the questions before buying."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tbcluster.cluster.opening import model_to_plan
from tbcluster.cluster.plan_rack import NETWORKS, rack_of_file
from tbcluster.cluster.planning import METAL
from tbcluster.cluster.rack_file import LinkKind, RackFile, RackLink, RackNode
from tbcluster.cluster.rack_shapes import NodeKind, RackShapes, check_chip, ports_of
from tbcluster.errors import PlanError
from tbcluster.hardware.chips import Chip, find_chip
from tbcluster.planner.capacity import Addition, Goal, Sized, addition, check_goal, smallest_rack
from tbcluster.planner.plan import Wishes
from tbcluster.planner.profile import ModelProfile

# What somebody who asks may buy, or have: chip and GB of memory. Those that the table of chips does
# not know are left out.
CANDIDATES = (
    NodeKind("M4", 32),
    NodeKind("M4 Pro", 64),
    NodeKind("M4 Max", 128),
    NodeKind("M3 Ultra", 256),
    NodeKind("M3 Ultra", 512),
    NodeKind("M5 Max", 128),
    NodeKind("M5 Ultra", 512),
)
KIND = re.compile(r"\s*(\S(?:.*\S)?)\s*:\s*(\d+(?:\.\d+)?)\s*(?:GB)?\s*", re.IGNORECASE)
MAX_MEMORY_GB = 1 << 14


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kind of Mac, and the smallest rack of it that does."""

    kind: NodeKind
    sized: Sized


@dataclass(frozen=True, slots=True)
class Described:
    """A model before anything of it is loaded.

    Attributes:
        notes: Lines that a user should see.
    """

    profile: ModelProfile
    notes: tuple[str, ...]


def describe(model: str | None, bits: int | None, kv_bits: int | None) -> Described:
    """The model as a rack of Macs would compute it.

    Raises:
        TbclusterError: It cannot be found or read, or not in so many bits.
    """
    opened = model_to_plan(model, bits, kv_bits, device=METAL)
    return Described(opened.profile, opened.notes)


def node_kind(text: str, own: Sequence[Chip] = ()) -> NodeKind:
    """ "M4 Pro:64" as a kind of machine.

    Args:
        own: Chips of a rack file.

    Raises:
        PlanError: It is none, or the chip is not known.
    """
    found = KIND.fullmatch(text)
    memory_gb = float(found[2]) if found is not None else 0.0
    if found is None or not 0 < memory_gb <= MAX_MEMORY_GB:
        raise PlanError(
            f"{text[:80]!r} is no kind of machine: write its chip and its memory in GB, such as "
            '"M4 Pro:64"'
        )
    chip = found[1].removeprefix("Apple ")
    check_chip(chip, own)
    return NodeKind(chip, memory_gb)


def smallest_racks(
    profile: ModelProfile, goal: Goal, kinds: Sequence[NodeKind] = (), link: LinkKind | None = None
) -> tuple[Candidate, ...]:
    """For each kind the smallest rack that does; those that do first, by nodes.

    Args:
        kinds: None for `CANDIDATES`.

    Raises:
        PlanError: The speed or the promise is out of range, or a chip is not known.
    """
    check_goal(goal)
    shapes = RackShapes(profile.weight_kind, link or "thunderbolt5")
    asked = list(dict.fromkeys(kinds)) or [k for k in CANDIDATES if find_chip(k.chip) is not None]
    found = [
        Candidate(
            kind,
            smallest_rack(profile, partial(shapes.of_one_kind, kind), goal),
        )
        for kind in asked
    ]
    return tuple(sorted(found, key=_size))


def added(
    profile: ModelProfile,
    file: RackFile,
    kinds: Sequence[NodeKind],
    wishes: Wishes,
    link: LinkKind | None = None,
) -> Addition:
    """What these machines together would add to a rack.

    Raises:
        RackFileError: The file lacks what a plan needs.
        PlanError: The promise is out of range.
    """
    now = rack_of_file(file, profile.weight_kind)
    then = rack_of_file(with_more(file, kinds, link or "thunderbolt5"), profile.weight_kind)
    return addition(profile, now, then, wishes)


def with_more(file: RackFile, kinds: Sequence[NodeKind], link: LinkKind) -> RackFile:
    """The rack with these machines, each linked with as many of the others as have a port left, in
    their order; with all of them over a network."""
    nodes, links = list(file.nodes), list(file.links)
    taken = Counter(end for one in links if one.kind not in NETWORKS for end in one.between)
    names = {node.name for node in nodes}
    for kind in kinds:
        number = next(n for n in range(1, len(names) + 2) if f"new-{n}" not in names)
        name = f"new-{number}"
        ends = [
            node.name
            for node in nodes
            if link in NETWORKS or taken[node.name] < ports_of(node.chip or "")
        ]
        if link not in NETWORKS:
            ends = ends[: ports_of(kind.chip)]
        links += [RackLink(between=(name, end), kind=link) for end in ends]
        taken.update((*ends, *([name] * len(ends))))
        names.add(name)
        nodes.append(
            RackNode(name=name, chip=kind.chip, memory_gb=kind.memory_gb, gpu_cores=kind.gpu_cores)
        )
    return file.model_copy(update={"nodes": tuple(nodes), "links": tuple(links)})


def _size(candidate: Candidate) -> tuple[float, float]:
    figures, best = candidate.sized.figures, candidate.sized.best
    if figures is not None:
        return (0, figures.num_nodes)
    return (1, -best.stream_tokens_per_s) if best is not None else (2, math.inf)
