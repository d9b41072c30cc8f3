"""Why a plan is as it is, in lines for a person. Pure."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tbcluster.planner.chains import Chain
from tbcluster.planner.cost import Promise
from tbcluster.planner.layout import Layout, Layouts
from tbcluster.planner.nodes import PlanNode, PlanRack
from tbcluster.planner.plan import LeftOut
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.replicas import Choice, max_replicas
from tbcluster.planner.step_costs import RackCosts
from tbcluster.planner.words import amount, and_list, count, milliseconds, speed

# Of larger racks not every node is named.
MAX_NAMED = 16
# Stages whose times differ by less are as good as equal.
EVEN = 1.03


def reasons(
    profile: ModelProfile, rack: PlanRack, layouts: Layouts, layout: Layout
) -> tuple[str, ...]:
    """Lines for a plan's `reasons`."""
    lines = [*_about_replicas(layouts, layout)]
    num_stages = len(layout.replicas[0][0])
    is_stacked = num_stages > len(layout.choice.replicas[0][0].nodes)
    if is_stacked:
        lines.append(_about_neighbours(rack, num_stages))
    if is_stacked or layout.num_sharing > 1:
        return tuple(lines)
    lines += _about_memory(layouts, layout)
    costs = layouts.search.costs
    cut = [(chain, promise) for chain, promise in layout.choice.replicas if len(chain.nodes) > 1]
    if cut:
        lines += _about_stages(costs, cut)
    lines += [_about_order(costs, chain, promise) for chain, promise in cut]
    if not layouts.search.is_exact:
        lines.append(
            f"{len(rack.nodes)} unequal nodes are too many to try all orders: good ones were tried "
            "and improved"
        )
    return tuple(dict.fromkeys(lines))


def left_out(
    profile: ModelProfile, rack: PlanRack, layouts: Layouts, layout: Layout
) -> tuple[LeftOut, ...]:
    """The nodes that run nothing."""
    used = {stage.node.name for stages, _ in layout.replicas for stage in stages}
    costs, promise = layouts.search.costs, layout.replicas[0][1]
    fits = costs.fits(promise)
    found = []
    for at, node in enumerate(rack.nodes):
        if node.name in used:
            continue
        head = next((one.name for one in rack.nodes if one.is_head), "the head node")
        if not (costs.enter_s[at] < float("inf") and costs.leave_s[at] < float("inf")):
            because = f"there is no way between {head} and it"
        elif not fits[at].any():
            because = f"its {amount(node.memory_bytes)} for models hold no layer of this model"
        elif (stages := layouts.wishes.stages) is not None:
            each = " for each replica" if len(layout.replicas) > 1 else ""
            because = f"{count(stages, 'stage')}{each} {'was' if stages == 1 else 'were'} asked for"
        else:
            because = _not_faster(layout.choice, node)
        found.append(LeftOut(node.name, because))
    return tuple(found)


def _not_faster(choice: Choice, node: PlanNode) -> str:
    chain, promise = choice.replicas[0]
    used = len(chain.nodes)
    more = [other for num, other in sorted(choice.by_stages.items()) if num > used]
    if len(choice.replicas) > 1:
        return "no replica would be faster with it, and one more would give the streams too little"
    if not more:
        return "no way leads through it and all the others"
    now, then = chain.tokens_per_s(promise), more[0].tokens_per_s(promise)
    if speed(then) != speed(now) and then < now:
        return (
            f"with {len(more[0].nodes)} nodes {count(promise.streams, 'stream')} would get "
            f"{speed(then)} instead of {speed(now)}"
        )
    if milliseconds(more[0].slowest_s) == milliseconds(chain.slowest_s):
        return f"with {len(more[0].nodes)} nodes nothing would be faster"
    return (
        f"with {len(more[0].nodes)} nodes the slowest stage would take "
        f"{milliseconds(more[0].slowest_s)} instead of {milliseconds(chain.slowest_s)}"
    )


def _about_replicas(layouts: Layouts, layout: Layout) -> Iterator[str]:
    number, totals = len(layout.replicas), layout.choice.totals
    if layouts.wishes.replicas is not None:
        if number > 1:
            nodes = layouts.rack.nodes
            where = _name(nodes[0]) if len(nodes) == 1 else "the same nodes"
            shared = f", side by side on {where}" if layout.num_sharing > 1 else ""
            yield f"{count(number, 'replica')}, as asked{shared}"
        return
    if number > 1:
        fewer = {n: total for n, total in totals.items() if n < number}
        slower = (
            f": {speed(totals[number])} together, {speed(max(fewer.values()))} with fewer"
            if fewer
            else ": all that the nodes hold"
        )
        yield f"{count(number, 'replica')}{slower}"
        return
    if len(layouts.rack.nodes) == 1 or not totals:
        return
    _, promise = layout.choice.replicas[0]
    others = {n: total for n, total in totals.items() if n > 1}
    if others:
        at = max(others, key=lambda n: others[n])
        then, now = speed(others[at]), speed(totals[1])
        if then == now:
            yield f"one replica: {at} would give no more than its {now}"
        elif others[at] < totals[1]:
            yield f"one replica: {at} would give less, {then} together instead of {now}"
        else:
            yield (
                f"one replica: {at} would give {then} together instead of {now}, less than the "
                "5 % more that they have to be worth"
            )
    elif promise.streams == 1:
        yield "one replica: there is one stream"
    elif max_replicas(layouts.search, promise) < 2:
        yield "one replica: there is memory for one"
    else:
        yield f"one replica: more would not give 5 % more than {speed(totals[1])} together"


def _about_neighbours(rack: PlanRack, num_stages: int) -> str:
    """That several stages share a node."""
    stages = count(num_stages, "stage")
    if len(rack.nodes) == 1:
        return f"{stages} side by side on {_name(rack.nodes[0])}"
    return f"{stages} are more than there are nodes: neighbours share one"


def _about_memory(layouts: Layouts, layout: Layout) -> Iterator[str]:
    """That one node is not enough, where none is."""
    least = layouts.search.least_stages(layout.replicas[0][1])
    if least is not None and least > 1:
        yield f"no node holds all of it: {least} do together"


def _about_stages(costs: RackCosts, replicas: Sequence[tuple[Chain, Promise]]) -> Iterator[str]:
    """What the slowest stage is, and whose memory keeps it from being faster."""
    times: dict[str, float] = {}
    full = []
    last = len(costs.bounds) - 1
    for chain, promise in replicas:
        busy, _ = costs.costs(promise, len(chain.nodes))
        fits = costs.fits(promise)
        for node, (start, end) in zip(chain.nodes, pairwise(chain.bounds), strict=True):
            name = costs.nodes[node].name
            times[name] = float(busy.stages[node, start, end])
            more = [fits[node, start - 1, end]] if start > 0 else []
            more += [fits[node, start, end + 1]] if end < last else []
            if more and not any(more):
                full.append(name)
    least, most = min(times.values()), max(times.values())
    bound = max(chain.slowest_s for chain, _ in replicas)
    if bound > most * EVEN:
        yield (
            f"a link is busy for {milliseconds(bound)} a step, longer than any stage "
            f"({milliseconds(most)} at most)"
        )
    elif most <= least * EVEN:
        yield f"layers are shared out so that every stage takes about {milliseconds(most)} a step"
    else:
        slow = [name for name, seconds in times.items() if seconds * EVEN >= most]
        others = sorted(seconds for name, seconds in times.items() if name not in slow)
        span = dict.fromkeys((milliseconds(others[0]), milliseconds(others[-1])))
        yield (
            f"{_listed(slow)} {'is' if len(slow) == 1 else 'are'} the slowest with "
            f"{milliseconds(most)} a step; others take {' to '.join(span)}"
        )
    if full:
        holds = "has no room" if len(full) == 1 else "have no room"
        yield f"{_listed(full)} {holds} for more layers"


def _about_order(costs: RackCosts, chain: Chain, promise: Promise) -> str:
    _, trip = costs.costs(promise, len(chain.nodes))
    stages = sum(
        float(trip.stages[node, start, end])
        for node, start, end in zip(chain.nodes, chain.bounds, chain.bounds[1:], strict=False)
    )
    hops = chain.trip_s - stages
    names = _listed([costs.nodes[node].name for node in chain.nodes])
    return (
        f"in the order {names} hops take {milliseconds(hops)} of the {milliseconds(chain.trip_s)} "
        "of a step's trip"
    )


def _name(node: PlanNode) -> str:
    return node.name or "this machine"


def _listed(names: Sequence[str]) -> str:
    """Some of many names, and how many there are beside them."""
    rest = len(names) - MAX_NAMED
    return and_list([*names[:MAX_NAMED], *([f"{rest} more"] if rest > 0 else [])])
