"""`python -m tbcluster.stage`: started by a supervisor, never by hand."""

import sys

from tbcluster.stage.worker import main

sys.exit(main())
