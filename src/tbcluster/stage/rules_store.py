"""The states of logit rules that the last stage keeps, by id."""

from collections.abc import Sequence

from tbcluster.core import Sample
from tbcluster.errors import StageError
from tbcluster.model.grammar_mask import GrammarMasks
from tbcluster.model.logit_rules import RowRules
from tbcluster.wire.operations import DropRules, NewRules


class RulesStore:
    """Holds the states; those of requests that go on are told each token that is sampled."""

    def __init__(self, grammars: GrammarMasks) -> None:
        self._grammars = grammars
        self._rules: dict[int, RowRules] = {}

    def clear(self) -> None:
        """Free them all."""
        self._rules.clear()

    def apply(self, operation: NewRules | DropRules) -> None:
        """Do what the operation says; a grammar's compiling begins and is not waited for."""
        match operation:
            case NewRules(rules_id, rules, prompt, generated):
                grammar = rules.grammar
                followed = self._grammars.follow(grammar, generated) if grammar else None
                self._rules[rules_id] = RowRules(rules, prompt, generated, followed)
            case DropRules(rules_id):
                self._rules.pop(rules_id, None)

    def of(self, samples: Sequence[Sample]) -> list[RowRules | None]:
        """The rules of each row of a step; empty where no row has any.

        Raises:
            StageError: A row names rules that are not there.
        """
        ids = [sample.rules_id for sample in samples]
        if all(rules_id is None for rules_id in ids):
            return []
        missing = next((i for i in ids if i is not None and i not in self._rules), None)
        if missing is not None:
            raise StageError(f"no logit rules {missing} on this stage")
        return [self._rules[i] if i is not None else None for i in ids]
