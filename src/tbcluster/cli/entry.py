"""The first thing that runs: Ctrl-C during the imports, which take a second, is no traceback."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Entry point of `tbcluster`."""
    try:
        from tbcluster.cli.main import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
