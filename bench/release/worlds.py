"""How releases end in each bundled world, by the code that decides real ones.

    python bench/release/worlds.py [NAME ...] [--releases 200] [--seed 1] [--processes N] [--json FILE] [--missing]

Each world is a file of `src/cumulant/datasets/worlds`, simulated under the default section `release` with the world's
own policy over it, as `cumulant release simulate --world NAME` does. The JSON file keeps the result of every world, so
that some can be run again; the tables of the documents are made from it (`tools/generate_docs.py`).

A line ends with what must hold: at most 5% of the releases of a sound candidate are rolled back and at most 5% of those
of a broken one are promoted, with a 99% upper limit of 6% where there are enough releases to show it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path

import msgspec
from scipy import stats

from cumulant.flows.release.simulation.result import SimulationResult
from cumulant.flows.release.simulation.simulate import cores, simulate
from cumulant.flows.release.simulation.world_loading import bundled_worlds, read_world
from cumulant.release.spec import ReleaseSpec

RESULTS = Path(__file__).parent / "results.json"
ALPHA = 0.05


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME", default=None)
    options.add_argument("--releases", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--processes", type=int, default=None)
    options.add_argument("--json", type=Path, default=RESULTS)
    options.add_argument("--missing", action="store_true", help="only worlds of which fewer releases are there")
    asked = options.parse_args()
    for name in asked.names or bundled_worlds():
        if asked.missing and known(asked.json, name) >= asked.releases:
            continue
        began = time.perf_counter()
        found = simulate(
            read_world(name),
            ReleaseSpec(),
            name=name,
            releases=asked.releases,
            seed=asked.seed,
            processes=asked.processes,
        )
        seconds = time.perf_counter() - began
        write(asked.json, found, seconds, asked.processes or cores())
        print(line(found, seconds), flush=True)


def known(path: Path, name: str) -> int:
    """How many releases of a world the results hold."""
    results = json.loads(path.read_text())["worlds"] if path.exists() else {}
    return results.get(name, {}).get("releases", 0)


def write(path: Path, found: SimulationResult, seconds: float, processes: int) -> None:
    results = json.loads(path.read_text()) if path.exists() else {"machine": "", "worlds": {}}
    results["machine"] = f"{os.cpu_count()} cores (virtual), Python {platform.python_version()}"
    row = msgspec.to_builtins(found)
    results["worlds"][found.world] = {**row, "wall_seconds": round(seconds, 1), "processes": processes}
    results["worlds"] = dict(sorted(results["worlds"].items()))
    path.write_text(json.dumps(results, indent=1) + "\n")


def line(found: SimulationResult, seconds: float) -> str:
    ends = ", ".join(
        f"{end.replace('_', ' ')} {getattr(found, end).share:.1%}"
        for end in ("promoted", "rolled_back", "inconclusive", "broken_split")
    )
    return f"{found.world}: {found.expect}; {ends}; {verdict(found)}; {seconds / found.releases:.2f} s a release"


def verdict(found: SimulationResult) -> str:
    """Whether the share of wrong ends is at most alpha."""
    if found.wrong is None:
        return "nothing is wrong here"
    high = upper(found.wrong.count, found.releases)
    if found.wrong.share > ALPHA:
        return f"WRONG in {found.wrong.share:.1%} (99% upper limit {high:.1%})"
    return f"wrong in {found.wrong.share:.1%} (99% upper limit {high:.1%})"


def upper(count: int, whole: int) -> float:
    """The one-sided 99% upper limit of a share (Clopper-Pearson)."""
    return float(stats.beta.ppf(0.99, count + 1, whole - count)) if count < whole else 1.0


if __name__ == "__main__":
    main()
