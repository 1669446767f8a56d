"""`python -m cumulant.cli`: the console script without its script."""

from cumulant.cli import main

main()
