"""`serve --log-json`: every line is an event, and none holds what requests say."""

import json
import re
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until

TREASURE = "Zanzibar is where the treasure lies"


class JsonServer(ServeProcess):
    """One that logs events."""

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Those of a kind, so far."""
        lines = [json.loads(line) for line in list(self.lines)]
        return [line for line in lines if line["event"] == kind]

    def __enter__(self) -> "JsonServer":
        try:
            wait_until(
                lambda: bool(self.events("serving")) or self.process.poll() is not None,
                "the server is up",
            )
            assert self.process.poll() is None, self.output
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def ask(self, **fields: Any) -> None:
        """Have one request answered."""
        (serving,) = self.events("serving")
        url = f"http://{serving['host']}:{serving['port']}/v1/chat/completions"
        body = {
            "model": "tbcluster-demo",
            "max_tokens": 5,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": TREASURE}],
            **fields,
        }
        httpx.post(url, json=body, timeout=30, headers={"x-request-id": "mine"}).raise_for_status()
        wait_until(lambda: bool(self.events("request")), "its event is there")


def test_every_line_is_an_event_and_none_holds_what_was_said() -> None:
    with JsonServer("--local", "--log-json", "--access-log") as server:
        server.ask()
        (request,) = server.events("request")
        assert request["request_id"] == "mine"
        assert (request["model"], request["outcome"]) == ("tbcluster-demo", "ok")
        assert request["num_generated_tokens"] == 5
        assert request["duration_ms"] >= request["decode_ms"] > 0
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", request["time"])
        wait_until(lambda: bool(server.events("access")), "the access log has its event, too")
        (access,) = server.events("access")
        assert (access["status"], access["path"]) == (200, "/v1/chat/completions")
        assert TREASURE not in server.output
    # To the very last line.
    assert all(json.loads(line)["event"] for line in server.lines)


def test_prompts_and_answers_are_there_when_asked_for() -> None:
    with JsonServer("--local", "--log-json", "--log-prompts") as server:
        server.ask()
        (request,) = server.events("request")
        assert TREASURE in request["prompt"]
        assert request["answer"]
        server.ask(n=2)
        wait_until(lambda: len(server.events("request")) == 2, "it was logged")
        assert len(server.events("request")[1]["answer"]) == 2


@pytest.mark.parametrize("arguments", [["--log-prompts"]])
def test_prompts_are_not_logged_by_a_slip(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["serve", "--local", *arguments])
    assert result.exit_code == 2
    assert "--log-json" in result.output
