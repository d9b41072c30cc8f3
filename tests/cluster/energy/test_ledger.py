"""What requests cost, by model and by key."""

from tbcluster.cluster.energy.ledger import Bill, Costs, Ledger


def test_tokens_count_at_once_and_joules_when_they_are_known() -> None:
    ledger = Ledger()
    ledger.enter(one := Bill("m", "anna", 0.5, 10, 1.0))
    ledger.enter(Bill("m", None, 0.5, 5, 3.0))
    models, keys = ledger.costs()
    assert models == {"m": Costs(2, 15)}
    assert keys == {"anna": Costs(1, 10)}
    assert keys["anna"].joules_per_token is None
    assert ledger.due(2.0) == [one]
    assert ledger.due(2.0) == []
    ledger.settle(one, 30.0, is_estimate=True)
    models, keys = ledger.costs()
    assert keys == {"anna": Costs(1, 10, 30.0, 10, True)}
    assert models["m"].joules_per_token == 3.0
    assert models["m"].num_tokens == 15
