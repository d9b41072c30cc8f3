"""The parts of the benchmarks that measure nothing."""

import importlib
import io
import json
import threading
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from rich.console import Console

from benchmarks import full_pipeline
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.decode import decode_of
from benchmarks.full_pipeline.coordinator import measure_coordinator
from benchmarks.full_pipeline.correctness import Trial
from benchmarks.full_pipeline.prompts import p95
from benchmarks.full_pipeline.settings import CoordinatorSettings, Settings
from benchmarks.full_pipeline.streams import RunningStreams, Stream, Window
from benchmarks.harness import Bar, Report, Row, interleaved_pairs, median_ratio, shown
from benchmarks.hop_cost import hop_us, message_sizes
from benchmarks.machine import Machine, this_machine
from benchmarks.unsharded import SideBySide, Unsharded
from tbcluster.core import FinishReason, Output, Request, SampledToken, StepResult, VisitTiming
from tbcluster.errors import StageError
from tests.doubles.checkpoints import LlamaSizes, write_llama

MACHINE = Machine("a CPU", 2, 8.0, "an OS", "3.11", "0.1", "0.2", "0.3", False)
DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_report(*rows: Row) -> Report:
    return Report("some-name", list(rows), MACHINE, DATE)


def test_pairs_are_interleaved_and_the_first_one_is_dropped():
    runs = []

    def side(name):
        runs.append(name)
        return len(runs)

    pairs = interleaved_pairs(lambda: side("a"), lambda: side("b"), 5)
    assert "".join(runs) == "ab" * 6
    assert pairs == [(3, 4), (5, 6), (7, 8), (9, 10), (11, 12)]


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="4 pairs"):
        median_ratio([(1, 2)] * 4)


def test_the_median_is_of_the_ratios_and_not_of_the_sides():
    assert median_ratio([(1, 2), (30, 10), (2, 1), (8, 8), (100, 1)]) == 2


@pytest.mark.parametrize(
    ("bar", "value", "is_met", "text"),
    [
        (Bar(">=", 0.9, "x"), 0.9, True, ">= 0.9 x"),
        (Bar(">=", 90, "%"), 89.9, False, ">= 90 %"),
        (Bar("<", 40, "%"), 39.9, True, "< 40 %"),
        (Bar("<", 40), 40, False, "< 40"),
        (Bar("<=", 0), 0, True, "<= 0"),
        (Bar("<=", 0), 1, False, "<= 0"),
    ],
)
def test_bar(bar, value, is_met, text):
    assert bar.is_met_by(value) is is_met
    assert str(bar) == text


def test_json_of_a_report():
    report = a_report(Row("speed", 0.95, "x", Bar(">=", 0.9)), Row("time", 20.0, "ms"))
    content = json.loads(report.to_json())
    assert list(content) == ["benchmark", "date", "machine", "rows"]
    assert content["benchmark"] == "some-name"
    assert content["date"] == "2026-01-02T03:04:05+00:00"
    assert content["machine"]["cpu"] == "a CPU"
    assert content["rows"] == [
        {"measure": "speed", "value": 0.95, "unit": "x", "bar": ">= 0.9", "met": True},
        {"measure": "time", "value": 20.0, "unit": "ms", "bar": None, "met": None},
    ]


def test_a_report_is_met_unless_a_bar_is_missed():
    assert a_report(Row("a", 1, "x"), Row("b", 1, "x", Bar(">=", 1))).is_met
    assert not a_report(Row("a", 1, "x"), Row("b", 0, "x", Bar(">=", 1))).is_met


def test_a_report_is_shown_with_values_bars_and_verdicts():
    out = io.StringIO()
    rows = [Row("kept", 0.951, "x", Bar(">=", 0.9)), Row("lost", 1, "%", Bar(">=", 2))]
    a_report(*rows).print(Console(file=out, width=200))
    assert "0.95 x" in out.getvalue()
    assert ">= 0.9  met" in out.getvalue()
    assert ">= 2  MISSED" in out.getvalue()


@pytest.mark.parametrize(
    ("value", "text"), [(0.901, "0.90"), (12.34, "12.3"), (1234.5, "1,234"), (-250.0, "-250")]
)
def test_shown(value, text):
    assert shown(value) == text


def test_this_machine_is_described():
    machine = this_machine()
    assert machine.cpu
    assert machine.cores >= 1
    assert machine.memory_gb > 0


def test_decode_speed_leaves_out_the_first_token():
    decode = decode_of([(7, 10.0), (8, 10.5), (9, 11.0)])
    assert decode.tokens == (7, 8, 9)
    assert decode.ms_per_token == pytest.approx(500)
    with pytest.raises(ValueError, match="one token"):
        decode_of([(7, 10.0)])


def test_a_hop_is_what_no_stage_computed_in():
    timings = (VisitTiming(300, 7), VisitTiming(400, 5))
    result = StepResult(0, None, (), None, timings, round_trip_us=1000)
    assert hop_us(result) == 100


def test_message_sizes_of_a_step(tmp_path):
    path = write_llama(tmp_path, LlamaSizes(num_hidden_layers=2, hidden_size=64))
    to_first, to_second, back = message_sizes(path, 2)
    assert len(to_first) == len(back) == 1
    assert list(to_second)[1:] == [64 * 4]


def test_without_a_name_all_are_listed(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(BENCHMARKS)
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_listed_benchmark_can_be_run(name):
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    assert callable(module.run)


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit) as exited:
        main(["no-such"])
    assert exited.value.code == 2
    assert "single-stream" in capsys.readouterr().err


def test_an_unknown_part_is_refused():
    with pytest.raises(SystemExit, match="no part 'no-such'; its parts: correctness, decode"):
        main(["full-pipeline", "--only", "no-such"])
    with pytest.raises(SystemExit, match="stage-memory has no --quick"):
        main(["stage-memory", "--quick"])


def test_every_part_has_settings_of_its_name():
    assert set(full_pipeline.PARTS) == {field.name for field in fields(Settings)}


def an_output(token: int, finish_reason: FinishReason | None = None) -> Output:
    return Output("", SampledToken(token), 1, 1, 0, 0, 0, finish_reason=finish_reason)


class TwoStreams:
    """Tells two listeners of a token in turns, until both are cancelled."""

    def __init__(self) -> None:
        self._listeners: dict[str, Stream] = {}
        self._cancelled: set[str] = set()
        self._thread = threading.Thread(target=self._tell)

    def submit(self, request: Request, listener: Stream) -> None:
        self._listeners[request.request_id] = listener
        if len(self._listeners) == 2:
            self._thread.start()

    def cancel(self, request: Request) -> None:
        self._cancelled.add(request.request_id)
        if len(self._cancelled) == 2:
            self._thread.join()

    def _tell(self) -> None:
        while len(self._cancelled) < 2:
            for listener in self._listeners.values():
                listener(an_output(7))


def test_a_window_of_running_streams_holds_as_many_tokens_of_each():
    double = TwoStreams()
    requests = [Request(name, (1,), max_tokens=1) for name in "ab"]
    with RunningStreams(requests, double.submit, double.cancel) as streams:
        window = streams.run(10)
    assert streams.tokens_per_s(window) * window.seconds == pytest.approx(20)


def test_gaps_are_those_that_touch_the_window():
    streams = RunningStreams([Request("a", (1,), max_tokens=1)], lambda *_: None, lambda _: None)
    ((_, stream),) = streams._streams
    stream.times = [0.0, 1.0, 3.0, 6.0, 10.0]
    assert streams.gaps(Window(3.5, 4.0)) == [3.0]
    assert streams.gaps(Window(2.0, 7.0)) == [2.0, 3.0, 4.0]


def test_a_stream_raises_what_it_was_told():
    stream = Stream()
    stream(StageError("lost"))
    with pytest.raises(StageError, match="lost"):
        stream.await_tokens(1)


def test_the_95th_percentile_is_one_of_the_values():
    assert p95([float(i) for i in range(1, 101)]) == 95
    assert p95([3.0]) == 3


@pytest.mark.parametrize(
    ("tokens", "is_cancelled", "agrees"),
    [
        ([1, 2, 3], False, True),
        ([1, 2], False, False),
        ([1, 2], True, True),
        ([], True, True),
        ([1, 3], True, False),
        ([1, 2, 3, 4], False, False),
    ],
)
def test_a_trial_agrees_with_the_request_alone(tokens, is_cancelled, agrees):
    trial = Trial(Request("a", (1,), max_tokens=9), None, None, threading.Semaphore(0))
    trial.tokens, trial.is_cancelled = tokens, is_cancelled
    assert trial.agrees_with([1, 2, 3]) is agrees


def test_a_trial_ends_once():
    ended = threading.Semaphore(0)
    trial = Trial(Request("a", (1,), max_tokens=9), None, None, ended)
    trial(an_output(5))
    trial(an_output(6, FinishReason.STOP))
    trial(StageError("too late"))
    assert trial.tokens == [5, 6]
    assert ended.acquire(blocking=False)
    assert not ended.acquire(blocking=False)


def test_the_coordinator_is_measured():
    report = a_report()
    settings = CoordinatorSettings(sequence_counts=(1, 4), num_steps=3, num_runs=1)
    measure_coordinator(report, settings)
    assert [row.unit for row in report.rows] == ["ms", "ms", "x"]
    assert all(row.value > 0 for row in report.rows)


def test_mlx_lm_alone_and_side_by_side(tmp_path):
    path = write_llama(tmp_path, with_tokenizer=True)
    prompts = [[5, 6, 7], [8, 9, 10]]
    with Unsharded(path) as one, Unsharded(path) as other:
        decode = one.decode(prompts[0], 6)
        continuation = other.continuation(prompts[0], 6)
        assert continuation.tokens == list(decode.tokens)
        assert min(continuation.margins) >= 0
        assert one.decode_many(prompts, 3) > 0
        assert SideBySide(one, other).decode_many(prompts, 3) > 0
        assert SideBySide(one, other).prefill(prompts) > 0
