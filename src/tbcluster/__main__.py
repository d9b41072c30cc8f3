"""`python -m tbcluster`."""

from tbcluster.cli.entry import main

main()
