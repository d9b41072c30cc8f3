"""What other machines say is shown, and does nothing."""

import logging
import subprocess
import sys

from tbcluster.cli.terminal import HarmlessFormatter, harmless

LOG = """
import logging, sys
from tbcluster.cli.terminal import log_to_terminal
log_to_terminal("tbcluster: %(message)s")
logging.getLogger("tbcluster.x").warning("%s", "it ended: \\x1b[2J\\x9b\\r gone")
logging.getLogger("tbcluster.x").info("nothing")
"""


def test_control_characters_are_replaced() -> None:
    assert harmless("a\x1b[2J\x07\x9bb\n") == "a�[2J��b�"
    assert harmless("größe 台 → 🙂") == "größe 台 → 🙂"
    assert harmless("a\nb\tc\r", keeps="\n\t") == "a\nb\tc�"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("\x1b]0;title\x07")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    text = HarmlessFormatter("%(message)s").format(record)
    assert text.startswith("it failed\nTraceback")
    assert text.endswith("ValueError: �]0;title�")


def test_the_log_on_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", LOG], capture_output=True, text=True, check=True)
    assert done.stderr == "tbcluster: it ended: �[2J�� gone\n"
