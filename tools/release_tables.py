"""Tables of simulated releases in the documents, from bench/release/results.json and peers.json.

A table stands between `<!-- table: KIND -->` and `<!-- end of table -->`; `fresh` writes all tables of a page anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "release" / "results.json"
PEERS = ROOT / "bench" / "release" / "peers.json"
WORLDS = "../../src/cumulant/datasets/worlds"
PAGES = tuple(ROOT / "docs" / "explanation" / name for name in ("release-worlds.md", "release-statistics.md"))
TABLE = re.compile(r"(<!-- table: ([a-z-]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fresh(page: Path) -> str:
    """The page with its tables made from the present results."""

    def table(match: re.Match[str]) -> str:
        return match[1] + "\n".join(["", *TABLES[match[2]](), ""]) + match[3]

    return TABLE.sub(table, page.read_text())


def worlds_of(*prefixes: str, expect: str | None = None) -> list[str]:
    """A row for each world whose name begins with one of the prefixes, or whose candidate is as expected."""
    from cumulant.flows.release.simulation.world_loading import bundled_worlds, read_world

    results = json.loads(RESULTS.read_text())["worlds"] if RESULTS.exists() else {}
    rows = []
    for name in bundled_worlds():
        world = read_world(name)
        chosen = name.startswith(prefixes) if prefixes else world.expect == expect
        if chosen and name in results:
            rows.append(row(name, world.description, results[name]))
    head = [
        "world",
        "",
        "releases",
        "promoted",
        "rolled back",
        "inconclusive",
        "broken split",
        "median",
        "wrong, 95% interval",
    ]
    return markdown(head, rows)


def row(name: str, description: str, found: dict) -> list[str]:
    shares = [f"{found[end]['share']:.1%}" for end in ("promoted", "rolled_back", "inconclusive", "broken_split")]
    median = found["seconds"]["median"]
    wrong = found["wrong"]
    between = (
        "–" if wrong is None else f"{wrong['count']} of {found['releases']}, {wrong['low']:.1%} to {wrong['high']:.1%}"
    )
    return [f"[{name}]({WORLDS}/{name}.json)", description, str(found["releases"]), *shares, span(median), between]


def peers() -> list[str]:
    """A row a world and a column a rule: share rolled back, and the median time of it."""
    found = json.loads(PEERS.read_text()) if PEERS.exists() else {}
    if not found:
        return []
    rules = list(next(iter(found.values()))["rules"])
    rows = [[name, str(one["releases"]), *(cell(one["rules"][rule]) for rule in rules)] for name, one in found.items()]
    return markdown(["world", "releases", *rules], rows)


def cell(one: dict) -> str:
    return f"{one['share']:.1%}" + ("" if one["median_seconds"] is None else f", {span(one['median_seconds'])}")


def span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return (
        f"{seconds:.0f} s"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
        if seconds < 172_800
        else f"{seconds / 86_400:.1f} d"
    )


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(one)} |" for one in lines]


TABLES: dict[str, Callable[[], list[str]]] = {
    "sound": lambda: worlds_of(expect="sound"),
    "broken": lambda: worlds_of(expect="broken"),
    "any": lambda: worlds_of(expect="any"),
    "at-margin": lambda: worlds_of("errors-at-", "latency-at-", "quality-at-", "disagreement-", "prediction-"),
    "peers": peers,
}
