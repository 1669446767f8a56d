"""Assumptions of the evidence of a release that fail or cannot be checked, for its status."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.core.units import show_duration
from cumulant.release.evidence.accumulate import Memory, read_memory
from cumulant.release.evidence.champion_history import FEWEST_LOOKS
from cumulant.release.evidence.key_statistics import FEWEST_KEYS, KeyStatistics
from cumulant.release.evidence.look import COUNTED
from cumulant.release.state import Release

#: design effects below this are left out
_SLIGHT = 1.2
#: seconds without a pair, and mirrored requests in them, from which pairs are taken to be missing
_UNPAIRED_SECONDS, _UNPAIRED_REQUESTS = 120.0, 20.0
_NOUN = {"errors": "failures", "timeouts": "time-outs", "latency": "slow requests"}


def assumption_notes(release: Release) -> list[str]:
    """Sentences about the present step; none before any request, and none where all is as assumed."""
    if not release.memory:
        return []
    memory = read_memory(release)
    return [
        *_warm_up(memory),
        *_history(memory, release.policy.look),
        *_blocks(memory),
        *_keys(memory),
        *_labels(memory),
        *_unpaired(memory, release.policy.look),
    ]


def _warm_up(memory: Memory) -> Iterator[str]:
    if memory.warm_up_seconds:
        yield (
            f"the first {memory.warm_up_seconds:g} s of the candidate with {memory.warm_up_requests:,} requests are its"
            " warm-up and are not counted"
        )


def _history(memory: Memory, look: float) -> Iterator[str]:
    known = memory.champion
    if known.looks < FEWEST_LOOKS:
        yield (
            f"the champion's log covers {known.looks} of the {FEWEST_LOOKS} looks ({look:g} s each) that a promotion"
            " needs: they show how its failures depend on each other"
        )
        return
    longest = show_duration(timedelta(seconds=known.visible_looks() * look))
    yield f"the champion's log shows how failures depend on each other within {longest}, and nothing of longer times"


def _blocks(memory: Memory) -> Iterator[str]:
    for name, block in memory.blocks.items():
        if block.design_effect > _SLIGHT:
            yield (
                f"{_NOUN[name]} depend on each other for longer than a block: their evidence counts for"
                f" 1/{block.design_effect:.2g}"
            )


def _keys(memory: Memory) -> Iterator[str]:
    if not memory.keys or not memory.units:
        return
    dispersion = KeyStatistics.from_json(memory.keys).dispersion(np.asarray(memory.units))
    for place, arm in enumerate((CHAMPION, CANDIDATE)):
        if not np.isfinite(dispersion[place]).all():
            yield f"fewer than {FEWEST_KEYS} keys fall to the {arm}: its requests are no evidence"
            continue
        for metric, name in enumerate(COUNTED):
            if dispersion[place, metric] > _SLIGHT:
                yield (
                    f"{_NOUN[name]} of the {arm} come from few keys again and again: their evidence counts for"
                    f" 1/{dispersion[place, metric]:.2g}"
                )


def _labels(memory: Memory) -> Iterator[str]:
    selection = memory.selection
    if selection.selective:
        count, mean, expected, _ = selection.compared
        yield (
            f"the champion's mean score is {mean:.3g} over the {count:,} rows that have a label, and {expected:.3g}"
            " over all mirrored rows of the same hours: labels come for rows of another kind, and quality decides"
            " nothing"
        )


def _unpaired(memory: Memory, look: float) -> Iterator[str]:
    seconds, requests = memory.unpaired_looks * look, memory.unpaired_requests
    if seconds >= _UNPAIRED_SECONDS and requests >= _UNPAIRED_REQUESTS:
        yield (
            f"about {requests:,.0f} requests were mirrored in the last {show_duration(timedelta(seconds=seconds))}, and"
            " of none are both answers in the prediction log: do the servers write it, and do the clocks of the"
            " machines differ?"
        )
