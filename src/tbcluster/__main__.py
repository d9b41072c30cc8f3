"""`python -m tbcluster`."""

from tbcluster.cli.main import main

main()
