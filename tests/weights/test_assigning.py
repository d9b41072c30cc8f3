"""Who fetches what from where."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.checkpoint import Span, merged, num_bytes
from tbcluster.weights.assigning import HUB, Coverage, assign

PIECES = [Span("a", offset, 10) for offset in range(0, 200, 10)] + [
    Span("b", offset, 1000) for offset in range(0, 5000, 1000)
]
NODES = ["one", "two", "three"]
some_pieces = st.lists(st.sampled_from(PIECES), unique=True)
by_node = st.dictionaries(st.sampled_from(NODES), some_pieces)


reaching = st.sets(st.sampled_from([*NODES, "another"]))


@given(needs=by_node, held=by_node, reaching=reaching)
def test_each_node_gets_all_it_needs_once_and_the_hub_gives_nothing_twice(
    needs: dict[str, list[Span]], held: dict[str, list[Span]], reaching: set[str]
) -> None:
    parts = assign(needs, held, reaching)
    for node, spans in needs.items():
        own = [span for part in parts[node] for span in part.spans]
        # Besides, from the hub alone, what others need.
        assert all(map(Coverage(own).covers, spans))
        copied = [span for part in parts[node] if part.source != HUB for span in part.spans]
        assert num_bytes(merged([*own, *spans])) == num_bytes(own)
        assert num_bytes(merged(copied)) == num_bytes(copied)
        assert all(map(Coverage(spans).covers, copied))
    from_hub = [
        span for own in parts.values() for part in own if part.source == HUB for span in part.spans
    ]
    everywhere = {span for spans in held.values() for span in spans}
    missing = {span for spans in needs.values() for span in spans} - everywhere
    assert num_bytes(from_hub) == num_bytes(missing)
    assert merged(from_hub) == merged(missing)


@given(needs=by_node, held=by_node, reaching=reaching)
def test_the_hub_is_asked_by_those_who_reach_it_and_need_it(
    needs: dict[str, list[Span]], held: dict[str, list[Span]], reaching: set[str]
) -> None:
    for node, own in assign(needs, held, reaching).items():
        assert node in reaching or not reaching or all(part.source != HUB for part in own)
        for part in own:
            # For others only what none of them that reaches it needs.
            others = [
                spans for other, spans in needs.items() if other in reaching and other != node
            ]
            foreign = [
                piece
                for piece in PIECES
                if part.source == HUB
                and piece not in needs.get(node, ())
                and Coverage(part.spans).covers(piece)
            ]
            assert not any(piece in spans for piece in foreign for spans in others)
            assert reaching or not foreign


@given(needs=by_node, held=by_node, reaching=reaching)
def test_whoever_copies_gets_it_from_a_node_that_will_have_it(
    needs: dict[str, list[Span]], held: dict[str, list[Span]], reaching: set[str]
) -> None:
    parts = assign(needs, held, reaching)
    for node, found in parts.items():
        for part in found:
            if part.source in (HUB, node):
                continue
            # Nobody waits for one who waits: the source holds it, or gets it from the hub.
            there = Coverage(
                [
                    *held.get(part.source, ()),
                    *(
                        span
                        for own in parts.get(part.source, ())
                        if own.source == HUB
                        for span in own.spans
                    ),
                ]
            )
            for piece in set(needs[node]):
                if Coverage(part.spans).covers(piece):
                    assert there.covers(piece)


def test_the_hubs_part_is_shared_evenly_in_runs() -> None:
    pieces = [Span("a", offset, 10) for offset in range(0, 2400, 10)]
    parts = assign(dict.fromkeys(NODES, pieces), {})
    for node in NODES:
        own = next(part for part in parts[node] if part.source == HUB)
        assert 700 <= num_bytes(own.spans) <= 900
        assert len(own.spans) <= 5


def test_copies_are_spread_over_holders_in_runs() -> None:
    pieces = [Span("a", offset, 10) for offset in range(0, 1000, 10)]
    parts = assign({"three": pieces}, {"one": pieces, "two": [Span("a", 0, 1000)]})
    assert [part.source for part in parts["three"]] == ["one", "two"]
    for part in parts["three"]:
        assert 450 <= num_bytes(part.spans) <= 550
        assert len(part.spans) <= 5


def test_what_is_large_is_shared_in_large_runs() -> None:
    """As much as one request asks for."""
    mb = 1024**2
    pieces = [Span("a", offset * mb, 16 * mb) for offset in range(0, 4096, 16)]
    (parts,) = assign({"three": pieces}, dict.fromkeys(["one", "two"], pieces)).values()
    for part in parts:
        assert {span.length for span in part.spans} == {64 * mb}


def test_one_node_that_reaches_the_hub_fetches_for_all() -> None:
    needs = {"one": PIECES[:5], "two": PIECES[5:9], "three": PIECES[9:12]}
    parts = assign(needs, {"three": PIECES[9:11]}, ["one"])
    assert {part.source: num_bytes(part.spans) for part in parts["one"]} == {HUB: 100}
    assert {part.source: num_bytes(part.spans) for part in parts["two"]} == {"one": 40}
    assert {part.source: num_bytes(part.spans) for part in parts["three"]} == {
        "one": 10,
        "three": 20,
    }
