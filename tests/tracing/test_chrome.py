"""Chrome's trace events."""

import json
from collections import defaultdict

from tbcluster.tracing.chrome import COORDINATOR, chrome_trace
from tests.tracing.traces import a_trace, numbered_alike


def test_every_stage_has_a_track_and_its_spans_do_not_overlap() -> None:
    trace = a_trace()
    body = chrome_trace(trace)
    assert json.loads(json.dumps(body)) == body
    events = body["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert sorted(names.values()) == ["coordinator", "mac-1", "mac-2"]
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X" and event["pid"] != COORDINATOR:
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) == 3
    steps = trace.sequences[0].steps
    for spans in tracks.values():
        assert len(spans) == len(steps)
        ends = [end for span in sorted(spans) for end in span]
        assert ends == sorted(ends)
    computed = sum(end - start for spans in tracks.values() for start, end in spans)
    assert computed == sum(step.compute_us for step in steps)


def test_arrows_follow_a_step_from_its_first_stage_to_its_last() -> None:
    events = chrome_trace(numbered_alike(a_trace(num_decodes=1)))["traceEvents"]
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            flows[event["id"]].append(event["ph"])
    assert len(flows) == 3
    assert all(phases == ["s", "t", "f"] for phases in flows.values())


def test_what_the_whole_waited_for_stands_above() -> None:
    events = chrome_trace(a_trace(started_us=(4000, 90_000)))["traceEvents"]
    above = {e["name"]: e for e in events if e["pid"] == COORDINATOR and e["ph"] == "X"}
    assert set(above) == {"request", "queue", "prefill", "decode"}
    parts = sum(above[name]["dur"] for name in ("queue", "prefill", "decode"))
    assert above["request"]["dur"] == parts
    assert [e["ts"] for e in events if e["name"] == "starts over"] == [90_000]


def test_a_request_that_waits_has_no_spans_of_steps() -> None:
    trace = a_trace(steps=(), started_us=(), first_token_us=None, ended_us=None, outcome="running")
    events = chrome_trace(trace)["traceEvents"]
    assert {e["name"] for e in events if e["ph"] == "X"} == {"request", "queue", "prefill"}
