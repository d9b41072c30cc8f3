"""`python -m tbcluster.stage`: started by a supervisor, never by hand."""

import sys

from tbcluster.stage.beats import start_beating
from tbcluster.stage.parent import meet_parent


def main() -> int:
    """Meet the parent, show signs of life, and only then import MLX, which takes a while."""
    stdin, report = meet_parent()
    work = start_beating(report)
    from tbcluster.stage import worker

    return worker.main(stdin, report, work)


if __name__ == "__main__":
    sys.exit(main())
