"""Every command line of the documentation: run where that is cheap and needs one machine, else read
by the command itself. `ROWS` says which, and why; the first one that fits a line counts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import pytest
from typer._click.exceptions import UsageError

from benchmarks.__main__ import main as bench
from tbcluster.cluster.trust import TrustFolder
from tests.docs.command_line import parse, words_of
from tests.docs.pages import ROOT, commands, pages, spoken_commands
from tests.doubles.checkpoints import write_llama
from tests.doubles.commands import run_here
from tests.doubles.own_speed import know_speed
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until

BUNDLED = str(ROOT / "src" / "tbcluster" / "demo" / "model")
RING = "configs/4x-m3-ultra-ring.toml"
MESH = "configs/4x-m3-ultra-mesh.toml"
MINIS = "configs/8x-m4-pro.toml"


@dataclass(frozen=True, slots=True)
class Row:
    """How lines are checked.

    Attributes:
        pattern: Of a line's words, the command's own name first.
        how: "run": in an empty state folder; "asks": of a running server; "serves": starts one,
            which answers; "head": on the head node of a rack of one; "read": by its parser alone.
        because: Why it is only read.
        put: Word -> what stands for it here.
        more: Arguments that make it end, or end sooner.
        before: Lines that have to be run first.
        statuses: Exit statuses that are no failure.
    """

    pattern: str
    how: Literal["run", "asks", "serves", "head", "read"]
    because: str = ""
    put: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (0,)


HERE = (("MODEL", BUNDLED), ("32768", "512"))
DESCRIBED = (
    ("MODEL", "Qwen3-32B"),
    ("FILE", RING),
    ("ring.toml", RING),
    ("mesh.toml", MESH),
    ("minis.toml", MINIS),
    ("fleet.toml", "configs/fleets/three-regions.toml"),
)
FEW = ("--requests", "4", "--answer", "16")
OTHERS = "other machines have to be there: tests/rack does it between network namespaces"
HUB = "fetches from the internet: tests/cli/test_pull.py and tests/weights fetch from a hub of ours"
ROOTED = "takes root, and installs: tests/cli/test_service.py has the file that it writes"
LONG = "takes minutes, or all that the machine has"

ROWS = (
    Row(r"tbcluster --version", "run"),
    # Planning
    Row(r"tbcluster plan mlx-community", "read", "what it says depends on the memory here"),
    Row(
        r"tbcluster plan --plan",
        "run",
        before=(f"tbcluster plan {BUNDLED} --save plan.json",),
    ),
    Row(r"tbcluster plan .*--rack", "run", put=DESCRIBED),
    Row(r"tbcluster plan", "run", put=HERE),
    Row(r"tbcluster simulate .*--trace", "run", put=DESCRIBED),
    Row(r"tbcluster simulate .*--rack .*--answer", "run", put=DESCRIBED, more=("--requests", "4")),
    Row(r"tbcluster simulate .*--shared", "run", put=DESCRIBED, more=FEW),
    Row(r"tbcluster simulate .*--requests", "run", put=(*DESCRIBED, ("500", "4"))),
    Row(r"tbcluster simulate .*--fail", "run", put=DESCRIBED, more=("--requests", "4")),
    Row(r"tbcluster simulate .*--rack", "run", put=DESCRIBED, more=FEW),
    Row(r"tbcluster simulate", "run", put=HERE, more=(*FEW, "--prompt", "32")),
    Row(r"tbcluster capacity", "run", put=DESCRIBED, more=("--max-nodes", "16"), statuses=(0, 1)),
    Row(r"tbcluster fleet", "run", put=DESCRIBED),
    # One machine
    Row(r"tbcluster generate", "run"),
    Row(r"tbcluster chat", "run"),
    Row(r"tbcluster keys add", "run"),
    Row(r"tbcluster keys (list|revoke)", "run", before=("tbcluster keys add alice",)),
    Row(r"tbcluster pull .*--(plan|all)|tbcluster pull MODEL --context", "read", OTHERS),
    Row(r"tbcluster pull", "run", put=HERE),
    # A server
    Row(r"tbcluster serve .*(--place|--plan)", "read", "needs the nodes that it names"),
    Row(r"(tbcluster )?serve .*mlx-community", "read", HUB),
    Row(r"tbcluster serve .*--host", "read", "needs a key: tests/server/test_keys.py makes some"),
    Row(
        r"tbcluster serve",
        "serves",
        put=(*HERE, ("OTHER", "OTHER"), ("~/models", "models"), ("/Users/Shared/models", "models")),
    ),
    Row(r"serve", "serves"),
    Row(r"tbcluster models", "asks"),
    Row(r"tbcluster load", "asks", put=(("NAME", "toy"), ("gemma-3-27b", "toy"))),
    Row(
        r"tbcluster unload",
        "asks",
        put=(("NAME", "toy"), ("gemma-3-27b", "toy")),
        before=("tbcluster load toy",),
    ),
    Row(r"tbcluster top", "asks", more=("--once",)),
    Row(r"tbcluster bench", "read", "takes minutes: tests/cli/test_bench.py runs it small"),
    Row(r"tbcluster trace", "read", "needs a request: tests/cli/test_trace.py sends one"),
    # A rack
    Row(r"tbcluster init", "run"),
    Row(r"tbcluster invite .*--wait", "read", OTHERS),
    Row(r"tbcluster invite", "run", before=("tbcluster init",)),
    Row(r"tbcluster (join|agent|drain|undrain)\b", "read", OTHERS),
    Row(r"tbcluster nodes (rename|revoke)", "read", OTHERS),
    Row(r"tbcluster (nodes|status|links)\b", "head", put=(("mini2", "mini1"),)),
    Row(r"tbcluster doctor", "head", put=(("mini2", "mini1"),), statuses=(0, 1)),
    Row(r"tbcluster service install agent --print", "run", before=("tbcluster init",)),
    Row(r"tbcluster service", "read", ROOTED),
    # Scripts
    Row(r"bench$", "run"),
    Row(r"bench|chaos", "read", LONG),
    Row(r"first_token", "read", "installs: tests/docs/test_first_token.py runs it without that"),
    Row(r"test|setup|lock|train_demo_model", "read", "is what runs this test, or takes long"),
)

LINES = sorted({line for page in pages() for line in commands(page)})


def row_of(line: str) -> Row:
    words = " ".join(words_of(line))
    return next(row for row in ROWS if re.match(row.pattern, words))


def lines(*ways: str) -> list[str]:
    return [line for line in LINES if row_of(line).how in ways]


def put(line: str, row: Row) -> list[str]:
    """The words of a line, with what stands for its placeholders here."""
    return [dict(row.put).get(word, word) for word in words_of(line)]


def run_line(words: list[str], home: Path, **env: str) -> tuple[int, str]:
    """The exit status of a command in this process, and what it said."""
    if words[0] == "bench":
        return bench(words[1:]), ""
    environment = {"TBCLUSTER_HOME": str(home), "HF_HUB_OFFLINE": "1", "COLUMNS": "120", **env}
    done = run_here(*words[1:], env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a line is run in: what it names lies there. It is a state folder, too."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "monday.jsonl").write_text(
        '{"arrival_s": 0.5, "prompt_tokens": 512, "output_tokens": 16}\n'
    )
    write_llama(tmp_path / "OTHER", with_tokenizer=True)
    write_llama(tmp_path / "models" / "toy", with_tokenizer=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    know_speed(home, None)
    return home


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state folder of a head node without other nodes."""
    from tests.cli.test_rack_commands import free_ports

    folder = TrustFolder(tmp_path_factory.mktemp("head"))
    folder.init("studio", "mini1", free_ports())
    return folder.path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """The bundled model, and one more that can be loaded."""
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "toy", with_tokenizer=True)
    options = ("--models", str(folder), "--kv-memory", "64MiB", "--stages", "1", "--local")
    with ServeProcess(BUNDLED, *options) as running:
        yield running


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_read(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", lines("run"))
def test_a_command_runs(line: str, place: Path) -> None:
    row = row_of(line)
    for first in row.before:
        assert run_line(words_of(first), place)[0] == 0
    status, said = run_line([*put(line, row), *row.more], place)
    assert status in row.statuses, said


@pytest.mark.parametrize("line", lines("head"))
def test_a_command_runs_on_the_head_node(line: str, head: Path) -> None:
    row = row_of(line)
    status, said = run_line([*put(line, row), *row.more], head)
    assert status in row.statuses, said


@pytest.mark.parametrize("line", lines("asks"))
def test_a_command_asks_a_server(line: str, server: ServeProcess, place: Path) -> None:
    row = row_of(line)
    for first in (*row.before, " ".join(put(line, row) + list(row.more))):
        status, said = run_line(words_of(first), place, TBCLUSTER_URL=server.url)
        assert status == 0, said


@pytest.mark.parametrize("line", lines("serves"))
def test_a_command_serves(line: str, place: Path) -> None:
    words = put(line, row_of(line))
    words = words[words.index("serve") + 1 :]
    running = ServeProcess(*words, env={"TBCLUSTER_HOME": str(place)})
    try:
        wait_until(lambda: is_ready(running), f"{line} serves")
    finally:
        running.interrupt()


def is_ready(running: ServeProcess) -> bool:
    """Whether it takes requests.

    Raises:
        AssertionError: It has ended.
    """
    assert running.process.poll() is None, running.output
    address = running.address
    return address is not None and httpx.get(f"{address}/ready").status_code == 200


@pytest.mark.parametrize(
    "line", sorted({line for page in pages() for line in spoken_commands(page)})
)
def test_a_command_within_a_sentence_is_read(line: str) -> None:
    if re.search(r"\[[A-Z-]+", line):
        pytest.skip("a synopsis")
    parse(line, is_spoken=True)


def test_the_table_has_no_row_that_fits_nothing() -> None:
    used = {row_of(line).pattern for line in LINES}
    assert [row.pattern for row in ROWS if row.pattern not in used] == []


def test_what_is_only_read_says_why() -> None:
    assert all(bool(row.because) == (row.how == "read") for row in ROWS)


def test_there_are_many() -> None:
    assert len(LINES) > 90
    assert len(lines("run", "asks", "serves", "head")) > 50


@pytest.mark.parametrize(
    "line",
    [
        "tbcluster start",
        "tbcluster join",
        "tbcluster agent --model x",
        "tbcluster service install agent x",
        "./scripts/bench nothing",
        "./scripts/chaos --forever",
        "./scripts/unknown",
        "./scripts/setup --forever",
        "./scripts/serve --no-such-option",
    ],
)
def test_others_would_be_found(line: str) -> None:
    with pytest.raises((LookupError, UsageError, SystemExit)):
        parse(line)


def test_each_script_that_is_named_is_there() -> None:
    named = {words_of(line)[0] for line in LINES if "scripts/" in line}
    assert named <= {path.name for path in (ROOT / "scripts").iterdir()}
