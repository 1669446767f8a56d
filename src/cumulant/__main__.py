"""`python -m cumulant`: the console script without its script."""

from cumulant.cli import main

if __name__ == "__main__":
    main()
