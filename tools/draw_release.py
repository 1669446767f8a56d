"""Draws the pictures of docs/explanation/release-statistics.md: python tools/draw_release.py [bench/release/peers.json]."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

from cumulant.statistics.sequential.rates import Rates

ROOT = Path(__file__).resolve().parents[1]
WIDE, HIGH, LEFT, TOP = 640, 300, 60, 34
COLOURS = ("#1f6f8b", "#c8553d", "#7a8450", "#8a6bb1")
LOOKS = 90


def paths() -> dict[str, list[Rates]]:
    """States after each look of four simulated releases."""
    rng = np.random.default_rng(20)
    kinds = {
        "errors tripled": (3.0, False),
        "errors doubled": (2.0, False),
        "no worse": (1.0, False),
        "no worse, in bursts": (1.0, True),
    }
    return {name: states(rng, ratio, bursts) for name, (ratio, bursts) in kinds.items()}


def states(rng, ratio: float, bursts: bool) -> list[Rates]:
    state, out = Rates.start(), []
    for _ in range(LOOKS):
        a, b = rng.gamma(1, 1, 2) if bursts else (1, 1)
        bad = rng.poisson(9 * a), min(rng.poisson(ratio * b), 200)
        state = state.add(champion_requests=1800, champion_bad=bad[0], candidate_requests=200, candidate_bad=bad[1])
        out.append(state)
    return out


def frame(title: str, body: list[str], high: int = HIGH) -> str:
    style = "font-family:sans-serif;font-size:12px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {high}" style="{style}" role="img">'
    ground = (
        f'<rect width="{WIDE}" height="{high}" fill="white"/><text x="{LEFT}" y="20" font-weight="bold">{title}</text>'
    )
    return "\n".join([head, ground, *body, "</svg>", ""])


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def line(points, colour: str, dash: str = "") -> str:
    at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>'


def axes(low: float, high: float, ticks, label: str):
    """Functions of place, and the drawing of both axes, for minutes and a value from `low` to `high`."""
    across = lambda look: LEFT + look * (WIDE - LEFT - 150) / LOOKS  # noqa: E731
    up = lambda v: HIGH - 40 - (min(max(v, low), high) - low) * (HIGH - 40 - TOP) / (high - low)  # noqa: E731
    body = [line([(LEFT, up(high)), (LEFT, up(low)), (across(LOOKS), up(low))], "#999")]
    body += [text(LEFT - 6, up(value) + 4, words, "end") for value, words in ticks]
    body += [text(across(m * 6), HIGH - 22, f"{m} min", "middle") for m in (0, 5, 10, 15)]
    return across, up, [*body, text(LEFT, HIGH - 6, label)]


def evidence(releases: dict[str, list[Rates]]) -> str:
    across, up, body = axes(
        -6, 9, [(v, f"{v}") for v in (-6, -3, 0, 3, 6, 9)], "ln of the e-value against 'not worse', a look every 10 s"
    )
    body += [
        line([(LEFT, up(math.log(20))), (across(LOOKS), up(math.log(20)))], "#333", "4 3"),
        text(across(LOOKS) + 6, up(math.log(20)) - 4, "alpha 5%: ln 20"),
    ]
    for place, (colour, (name, states)) in enumerate(zip(COLOURS, releases.items(), strict=True)):
        logs = [0.0, *(float(s.log_harm()) for s in states)]
        body += [
            line([(across(i), up(v)) for i, v in enumerate(logs)], colour),
            text(across(LOOKS) + 6, TOP + 120 + 18 * place, name, colour=colour),
        ]
    return frame("Evidence of harm grows when there is harm, and sinks when there is none", body)


def interval(releases: dict[str, list[Rates]]) -> str:
    ticks = [(math.log(v), f"{v:g}x") for v in (0.25, 0.5, 1, 2, 4, 8)]
    across, up, body = axes(
        math.log(0.2), math.log(10), ticks, "candidate's error rate over the champion's, 95% at all looks together"
    )
    body.append(line([(LEFT, up(0)), (across(LOOKS), up(0))], "#333", "4 3"))
    for place, (colour, name) in enumerate(zip(COLOURS[:3:2], ("errors tripled", "no worse"), strict=True)):
        ends = np.array([np.maximum(s.ratio_interval(), 1e-3) for s in releases[name][2::3]])
        for side in (0, 1):
            body.append(line([(across(3 + 3 * i), up(math.log(v))) for i, v in enumerate(ends[:, side])], colour))
        body.append(text(across(LOOKS) + 6, TOP + 120 + 18 * place, name, colour=colour))
    return frame("The confidence sequence narrows, and holds at every look", body)


def false_alarms(results: dict[str, dict]) -> str:
    """Bars of false rollbacks: rows are worlds without harm, columns are rules."""
    worlds = {name: one["rules"] for name, one in results.items() if name.startswith("equal-")}
    short = {
        "success rate >= 99% a minute": "≥ 99% a minute",
        "z test, peeked": "peeked z test",
        "plain mixture e-process": "plain e-process",
        "ours": "ours",
    }
    rules = list(short)
    step = (WIDE - 177) / len(rules)
    body = [text(172 + i * step, 44, short[rule], colour=COLOURS[i]) for i, rule in enumerate(rules)]
    for row, (world, shares) in enumerate(worlds.items()):
        y = 68 + 24 * row
        body.append(text(162, y, world.removeprefix("equal-"), "end"))
        for i, rule in enumerate(rules):
            share = shares[rule]["share"]
            x, wide = 172 + i * step, share * (step - 55)
            body += [
                f'<rect x="{x:.1f}" y="{y - 11}" width="{wide:.1f}" height="13" fill="{COLOURS[i]}"/>',
                text(x + wide + 4, y, f"{share:.1%}"),
            ]
    return frame("Releases rolled back although the candidate was no worse", body, 68 + 24 * len(worlds))


def main() -> None:
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "bench/release/peers.json"
    releases = paths()
    drawn = {
        "evidence": evidence(releases),
        "interval": interval(releases),
        "false-alarms": false_alarms(json.loads(results.read_text())),
    }
    for name, picture in drawn.items():
        (ROOT / f"docs/images/release-{name}.svg").write_text(picture.replace(" < ", " &lt; "), encoding="utf-8")


if __name__ == "__main__":
    main()
