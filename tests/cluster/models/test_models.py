"""Models that come and go, over clusters that take memory which does not exist."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import pytest

from tbcluster.cluster.models.catalogue import Catalogue, Loadable
from tbcluster.cluster.models.models import Models
from tbcluster.cluster.models.residency import ModelState, Rules
from tbcluster.errors import (
    ClusterClosedError,
    DoesNotFitError,
    ModelError,
    ModelNotLoadedError,
    NoRoomError,
    UnknownModelError,
)
from tests.doubles.clusters import ScriptedMachine
from tests.doubles.waiting import wait_until

GIB = 2**30
NAMES = ("a", "b", "c", "huge")
SIZES = dict.fromkeys(NAMES, 2 * GIB) | {"huge": 9 * GIB, "held": GIB}
ON_USE = Rules(loads_on_use=True)
SOON_S = 10.0


class Bench:
    """Models on a machine of 5 GiB: two of them fit."""

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        waits: bool = False,
        drain_s: float = 30.0,
    ) -> None:
        self.machine = ScriptedMachine(5 * GIB, SIZES, waits=waits)
        # What a folder holds besides.
        self.held: list[Loadable] = []
        self.notes: list[str] = []
        self.now = 0.0
        self.models = Models(
            Catalogue(tuple(Loadable(name, name) for name in NAMES), held=(lambda: self.held,)),
            self.machine,
            rules,
            drain_s=drain_s,
            on_note=self.notes.append,
            clock=lambda: self.now,
        )

    def load(self, *names: str, makes_room: bool = False) -> None:
        for name in names:
            self.models.ask(name, makes_room=makes_room).result(SOON_S)
            # Each was used later than the one before.
            self.now += 1.0

    def states(self, *names: str) -> list[str]:
        return [self.models.view(name).state.value for name in names]

    @contextmanager
    def running(self) -> Iterator["Bench"]:
        with self.models.start():
            yield self


def test_models_are_loaded_and_unloaded() -> None:
    with Bench().running() as bench:
        bench.load("a", "b")
        assert bench.states("a", "b", "c") == ["loaded", "loaded", "unloaded"]
        assert list(bench.models.clusters()) == ["a", "b"]
        bench.models.unload("a").result(SOON_S)
        assert bench.states("a", "b") == ["unloaded", "loaded"]
        bench.load("c")
        assert bench.machine.most_bytes == 4 * GIB
        assert "a is unloaded" in bench.notes


def test_two_loads_run_one_after_the_other() -> None:
    with Bench(waits=True).running() as bench:
        asked = {name: bench.models.ask(name) for name in ("a", "b")}
        wait_until(lambda: bench.machine.starting == ["a"], "the first is being loaded")
        assert bench.states("a", "b") == ["loading", "loading"]
        assert bench.models.view("b").doing == "waiting for its turn"
        bench.machine.newest("a").may_start.set()
        asked["a"].result(SOON_S)
        wait_until(lambda: bench.machine.starting == ["b"], "the second is being loaded")
        bench.machine.newest("b").may_start.set()
        asked["b"].result(SOON_S)
        assert bench.machine.order == ["a", "b"]
        assert bench.machine.most_at_once == 1


def test_many_who_ask_for_one_model_load_it_once() -> None:
    with Bench(ON_USE, waits=True).running() as bench:
        asked = [bench.models.ask_for_use("a") for _ in range(5)]
        wait_until(lambda: bench.machine.starting == ["a"], "it is being loaded")
        bench.machine.newest("a").may_start.set()
        uses = [each.result(SOON_S) for each in asked]
        assert bench.machine.order == ["a"]
        assert bench.models.view("a").num_uses == 5
        for use in uses:
            use.end()
        assert bench.models.view("a").num_uses == 0


def test_what_does_not_fit_names_the_numbers_and_what_is_in_the_way() -> None:
    with Bench().running() as bench:
        bench.load("a", "b")
        with pytest.raises(NoRoomError) as refused:
            bench.load("c")
        words = str(refused.value)
        assert "c does not fit beside a (2.00 GiB), b (2.00 GiB)" in words
        assert f"takes {2 * GIB} bytes, {GIB} are left" in words
        assert "tbcluster unload" in words
        assert bench.models.view("c").error == words
        assert bench.states("a", "b", "c") == ["loaded", "loaded", "unloaded"]


def test_what_fits_nowhere_says_so_and_nothing_goes_for_it() -> None:
    with Bench(ON_USE).running() as bench:
        with pytest.raises(DoesNotFitError, match="5368709120 are left"):
            bench.load("huge", makes_room=True)
        bench.load("a")
        with pytest.raises(DoesNotFitError, match=r"^huge takes .* 5368709120 are left$"):
            bench.load("huge", makes_room=True)
        with pytest.raises(DoesNotFitError, match="unloading others would not help"):
            bench.load("huge")
        assert bench.states("a") == ["loaded"]


def test_a_note_that_cannot_be_told_ends_no_loading() -> None:
    bench = Bench()

    def on_note(line: str) -> None:
        raise BrokenPipeError(line)

    models = Models(Catalogue((Loadable("a", "a"),)), bench.machine, on_note=on_note)
    with models.start():
        for _ in range(2):
            models.ask("a").result(SOON_S)
            models.unload("a").result(SOON_S)


def test_a_switch_unloads_no_more_than_is_in_the_way() -> None:
    with Bench().running() as bench:
        bench.load("a", "b")
        bench.load("c", makes_room=True)
        assert bench.states("a", "b", "c") == ["unloaded", "loaded", "loaded"]
        assert bench.machine.most_bytes == 4 * GIB


def test_a_model_in_use_does_not_go_for_another() -> None:
    with Bench(ON_USE).running() as bench:
        bench.load("a", "b")
        use = bench.models.use("a")
        assert use is not None
        bench.load("c", makes_room=True)
        assert bench.states("a", "b", "c") == ["loaded", "unloaded", "loaded"]
        use.end()


def test_a_busy_model_that_is_in_the_way_is_waited_for() -> None:
    with Bench(Rules(loads_on_use=True, max_loaded=1)).running() as bench:
        use = bench.models.ask_for_use("a").result(SOON_S)
        asked = bench.models.ask_for_use("b")
        wait_until(lambda: bench.states("b") == ["loading"], "its turn has come")
        assert not asked.done()
        use.end()
        asked.result(SOON_S).end()
        assert bench.states("a", "b") == ["unloaded", "loaded"]


def test_a_busy_model_is_not_waited_for_for_ever() -> None:
    with Bench(Rules(loads_on_use=True, max_loaded=1), drain_s=0.05).running() as bench:
        use = bench.models.ask_for_use("a").result(SOON_S)
        with pytest.raises(NoRoomError, match="at most 1"):
            bench.models.ask_for_use("b").result(SOON_S)
        use.end()


def test_models_that_are_used_by_turns_are_all_answered() -> None:
    """None of them goes between its load and its request, though one alone fits."""
    with Bench(Rules(loads_on_use=True, max_loaded=1)).running() as bench:

        def ask(name: str) -> None:
            for _ in range(5):
                use = bench.models.use(name) or bench.models.ask_for_use(name).result(SOON_S)
                assert use.cluster.model_name == name
                use.end()

        clients = [threading.Thread(target=ask, args=(name,)) for name in ("a", "b", "c")]
        for client in clients:
            client.start()
        for client in clients:
            client.join(SOON_S)
            assert not client.is_alive()
        assert bench.machine.most_bytes == 2 * GIB


def test_too_many_models() -> None:
    with Bench(Rules(max_loaded=1)).running() as bench:
        bench.load("a")
        with pytest.raises(NoRoomError, match="at most 1"):
            bench.load("b")
        bench.load("b", makes_room=True)
        assert bench.states("a", "b") == ["unloaded", "loaded"]


def test_unloading_waits_for_requests() -> None:
    with Bench().running() as bench:
        bench.load("a")
        use = bench.models.use("a")
        assert use is not None
        unloaded = bench.models.unload("a")
        assert bench.states("a") == ["unloading"]
        assert bench.models.use("a") is None
        assert not unloaded.done()
        assert bench.machine.newest("a").ended_with is None
        use.end()
        unloaded.result(SOON_S)


@pytest.mark.parametrize("force", [True, False], ids=["forced", "drained"])
def test_requests_that_do_not_finish_are_ended_in_words(force: bool) -> None:
    with Bench(drain_s=SOON_S if force else 0.01).running() as bench:
        bench.load("a")
        use = bench.models.use("a")
        bench.models.unload("a", force=force).result(SOON_S / 2)
        assert bench.machine.newest("a").ended_with == "a is being unloaded"
        assert use is not None
        use.end()
        # What has been unloaded can be loaded again, and old uses do not count for it.
        bench.load("a")
        use.end()
        assert bench.models.view("a").num_uses == 0


def test_what_waits_or_is_being_loaded_can_be_unloaded() -> None:
    with Bench(waits=True).running() as bench:
        asked = {name: bench.models.ask(name) for name in ("a", "b")}
        wait_until(lambda: bench.machine.starting == ["a"], "it is being loaded")
        for name in ("b", "a"):
            bench.models.unload(name).result(SOON_S)
            with pytest.raises(ClusterClosedError, match=f"{name} was unloaded before"):
                asked[name].result(SOON_S)
        assert bench.states("a", "b") == ["unloaded", "unloaded"]
        assert bench.models.view("a").error is None
        assert bench.machine.order == ["a"]


def test_a_load_that_was_given_up_can_be_asked_for_again_at_once() -> None:
    with Bench(waits=True).running() as bench:
        first = bench.models.ask("a")
        wait_until(lambda: bench.machine.starting == ["a"], "it is being loaded")
        given_up = bench.models.unload("a")
        again = bench.models.ask("a")
        with pytest.raises(ClusterClosedError, match="a was unloaded before"):
            first.result(0)
        given_up.result(SOON_S)
        wait_until(lambda: bench.machine.order == ["a", "a"], "it is being loaded again")
        bench.machine.newest("a").may_start.set()
        again.result(SOON_S)
        assert bench.states("a") == ["loaded"]


def test_one_that_leaves_and_is_wanted_can_be_unloaded_for_good() -> None:
    with Bench().running() as bench:
        bench.load("a")
        use = bench.models.use("a")
        assert use is not None
        bench.models.unload("a")
        wanted = bench.models.ask("a")
        unloaded = bench.models.unload("a")
        with pytest.raises(ClusterClosedError, match="a was unloaded before"):
            wanted.result(SOON_S)
        use.end()
        unloaded.result(SOON_S)
        bench.load("b")
        assert bench.states("a", "b") == ["unloaded", "loaded"]


def test_one_that_is_wanted_again_while_it_leaves_comes_back() -> None:
    with Bench(ON_USE).running() as bench:
        bench.load("a")
        use = bench.models.use("a")
        assert use is not None
        bench.models.unload("a")
        asked = bench.models.ask_for_use("a")
        use.end()
        again = asked.result(SOON_S)
        assert again.cluster is not use.cluster


def test_a_load_that_fails_says_why_and_harms_no_other() -> None:
    with Bench().running() as bench:
        bench.load("a")
        bench.machine.broken["b"] = ModelError("b is garbled")
        with pytest.raises(ModelError, match="garbled"):
            bench.load("b")
        assert bench.models.view("b").error == "b is garbled"
        assert "b is not loaded: b is garbled" in bench.notes
        bench.machine.broken.clear()
        bench.load("b")
        assert bench.models.view("b").error is None
        assert bench.states("a", "b") == ["loaded", "loaded"]


def test_one_that_has_failed_is_loaded_anew() -> None:
    with Bench().running() as bench:
        bench.load("a")
        bench.machine.newest("a").fail()
        bench.load("a")
        assert bench.machine.order == ["a", "a"]


def test_requests_load_models_only_where_that_is_wanted() -> None:
    with Bench(waits=True).running() as bench:
        with pytest.raises(ModelNotLoadedError, match="tbcluster load a"):
            bench.models.ask_for_use("a")
        with pytest.raises(UnknownModelError, match="'x' is not served here: use 'a' or 'b'"):
            bench.models.ask_for_use("x")
        # One that someone loads is waited for.
        bench.models.ask("a")
        used = bench.models.ask_for_use("a")
        wait_until(lambda: bench.machine.starting == ["a"], "it is being loaded")
        bench.machine.newest("a").may_start.set()
        used.result(SOON_S).end()


def test_idle_models_go_when_their_time_is_up() -> None:
    with Bench(Rules(idle_unload_s=60.0)).running() as bench:
        bench.load("a", "b")
        use = bench.models.use("b")
        assert use is not None
        bench.now = 1000.0
        use.keep(inf)  # wakes whoever looks at the clock
        wait_until(lambda: bench.states("a") == ["unloaded"], "the idle one is gone")
        use.end()
        assert bench.states("b") == ["loaded"]
        assert bench.models.view("b").expires_in_s is None


def test_idle_models_go_while_another_is_loaded() -> None:
    with Bench(Rules(idle_unload_s=60.0)).running() as bench:
        bench.load("a")
        bench.machine.waits = True
        asked = bench.models.ask("b")
        wait_until(lambda: bench.machine.starting == ["b"], "the other is being loaded")
        use = bench.models.use("a")
        assert use is not None
        use.end()
        bench.now = 1000.0
        use.keep(60.0)  # wakes whoever looks at the clock
        wait_until(lambda: bench.states("a") == ["unloaded"], "the idle one is gone")
        bench.machine.newest("b").may_start.set()
        asked.result(SOON_S)


@pytest.mark.parametrize("keep_s", [1e12, inf])
def test_a_model_that_is_to_stay_very_long_holds_nothing_up(keep_s: float) -> None:
    """No thread can be told to sleep for a trillion seconds."""
    with Bench(ON_USE).running() as bench:
        use = bench.models.ask_for_use("a").result(SOON_S)
        use.keep(keep_s)
        use.end()
        bench.load("b")
        use = bench.models.ask_for_use("b").result(SOON_S)
        use.keep(0.0)
        use.end()
        wait_until(lambda: bench.states("b") == ["unloaded"], "the other one goes")
        assert bench.states("a") == ["loaded"]


def test_a_model_that_is_leaving_is_waited_for() -> None:
    with Bench(Rules(loads_on_use=True, max_loaded=1)).running() as bench:
        use = bench.models.ask_for_use("a").result(SOON_S)
        leaving = bench.machine.newest("a")
        leaving.may_close.clear()
        asked = bench.models.ask_for_use("b")
        wait_until(lambda: bench.states("b") == ["loading"], "it waits for room")
        unloaded = bench.models.unload("a")
        use.end()
        wait_until(lambda: leaving.ended_with is not None, "the other one is on its way out")
        assert not asked.done()
        leaving.may_close.set()
        unloaded.result(SOON_S)
        asked.result(SOON_S).end()


def test_a_request_can_let_its_model_go() -> None:
    with Bench(ON_USE).running() as bench:
        use = bench.models.ask_for_use("a").result(SOON_S)
        use.keep(0.0)
        use.end()
        wait_until(lambda: bench.states("a") == ["unloaded"], "it is gone")


def test_a_model_loaded_in_this_thread_and_one_in_the_other_do_not_meet() -> None:
    bench = Bench()
    assert bench.models.load_now("a").model_name == "a"
    with bench.running():
        asked = bench.models.ask("b")
        with pytest.raises(DoesNotFitError):
            bench.models.load_now("huge")
        asked.result(SOON_S)
        assert bench.machine.most_at_once == 1


def test_the_end_ends_waiting_and_loading() -> None:
    bench = Bench(waits=True)
    bench.models.start()
    asked = [bench.models.ask(name) for name in ("a", "b")]
    wait_until(lambda: bench.machine.starting == ["a"], "it is being loaded")
    bench.models.end_requests("the server is shutting down")
    bench.models.close()
    for each in asked:
        with pytest.raises(ClusterClosedError, match="shutting down"):
            each.result(SOON_S)
    assert bench.machine.starting == []
    with pytest.raises(ClusterClosedError):
        bench.models.ask("c")


def test_the_end_ends_the_requests_of_all_models() -> None:
    with Bench(drain_s=SOON_S).running() as bench:
        bench.load("a", "b")
        bench.models.use("a")
        bench.models.unload("a")
        bench.models.end_requests("the server is shutting down")
        assert bench.machine.newest("b").ended_with == "the server is shutting down"
    assert bench.models.clusters().keys() <= {"b"}


def test_what_a_rack_tells_of_several_models() -> None:
    with Bench().running() as bench:
        assert bench.models.serving() is None
        bench.load("a")
        alone = bench.models.serving()
        assert alone is not None
        assert (alone.model, alone.state) == ("a", "ready: loading stage 0")
        bench.load("b")
        both = bench.models.serving()
        assert both is not None
        assert both.model == "a, b"
        assert both.state.startswith("a ready")


def test_a_model_whose_files_are_gone_is_listed_while_it_is_loaded() -> None:
    with Bench().running() as bench:
        bench.held.append(Loadable("held", "held"))
        bench.load("held")
        bench.held.clear()
        assert [view.name for view in bench.models.views()] == [*NAMES, "held"]
        bench.models.unload("held").result(SOON_S)
        assert [view.name for view in bench.models.views()] == list(NAMES)


def test_what_the_first_model_does_is_told_from_before_it_is_begun() -> None:
    bench = Bench()
    assert bench.models.status().doing == "opening the model"
    with bench.running():
        assert bench.models.status().doing is None
        bench.machine.broken["a"] = ModelError("a is garbled")
        with pytest.raises(ModelError):
            bench.load("a")
        assert bench.models.status().error == "a is garbled"


def test_a_state_is_told_in_words_of_its_own() -> None:
    assert [state.value for state in ModelState] == ["unloaded", "loading", "loaded", "unloading"]
