"""Windows and lookups of awkward worlds on every path, against a loop over all rows in exact arithmetic.

    .venv/bin/python bench/features/oracle.py [--least 500000] [--first 0]

The oracle is `cumulant.testing.plans.oracle`, worlds and paths are those of `tests/unit/features/oracle_*.py`: ties, duplicate and null keys, late, early and
corrected known times, changes of clocks in 2013, 2100 and 2150, years 1900 to 2262, ms, us and ns, naive and aware
times, -0.0, NaN, infinities, decimals, Unicode keys, constants near 1e9, sums beyond 64 bits. Prints how many values
were compared on each path, and each mismatch; fails where there is one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "unit" / "features"))

from oracle_paths import Comparison, compare
from oracle_worlds import world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--least", type=int, default=500_000, help="values to compare")
    parser.add_argument("--first", type=int, default=0, help="seed of the first world")
    given = parser.parse_args()
    found, seed = Comparison(), given.first
    while sum(found.compared.values()) < given.least:
        compare(world(seed), found)
        seed += 1
    wrong = Counter(path for path, *_ in found.mismatches)
    for path, number in found.compared.items():
        print(f"| {path} | {number:,} compared | {wrong[path]:,} mismatches |")
    print(
        f"| all paths, {seed - given.first} worlds | {sum(found.compared.values()):,} compared | {sum(wrong.values()):,} mismatches |"
    )
    print(f"{time.process_time():.0f} s of CPU")
    for mismatch in found.mismatches[:40]:
        print(mismatch)
    sys.exit(bool(found.mismatches))


if __name__ == "__main__":
    main()
