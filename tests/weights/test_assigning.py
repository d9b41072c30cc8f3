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


@given(needs=by_node, held=by_node)
def test_each_node_gets_all_it_needs_once_and_the_hub_gives_nothing_twice(
    needs: dict[str, list[Span]], held: dict[str, list[Span]]
) -> None:
    parts = assign(needs, held)
    assert parts.keys() == needs.keys()
    from_hub: list[Span] = []
    for node, spans in needs.items():
        given_spans = [span for part in parts[node] for span in part.spans]
        assert num_bytes(given_spans) == num_bytes(set(spans))
        assert merged(given_spans) == merged(spans)
        from_hub += [span for part in parts[node] if part.source == HUB for span in part.spans]
        for part in parts[node]:
            own = Coverage([*held.get(part.source, ()), *needs.get(part.source, ())])
            assert part.source == HUB or all(own.covers(span) for span in part.spans)
    everywhere = {span for spans in held.values() for span in spans}
    missing = {span for spans in needs.values() for span in spans} - everywhere
    assert num_bytes(from_hub) == num_bytes(missing)
    assert merged(from_hub) == merged(missing)


@given(needs=by_node, held=by_node)
def test_whoever_copies_gets_it_from_a_node_that_will_have_it(
    needs: dict[str, list[Span]], held: dict[str, list[Span]]
) -> None:
    parts = assign(needs, held)
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


def test_copies_are_spread_over_holders() -> None:
    pieces = [Span("a", offset, 10) for offset in range(0, 1000, 10)]
    parts = assign({"three": pieces}, {"one": pieces, "two": [Span("a", 0, 1000)]})
    assert [num_bytes(part.spans) for part in parts["three"]] == [500, 500]
    assert [part.source for part in parts["three"]] == ["one", "two"]
