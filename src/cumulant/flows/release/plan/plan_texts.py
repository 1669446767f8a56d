"""Texts of a release plan: undecidable metrics, substitutes for late labels, advice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from cumulant.core.units import show_duration
from cumulant.flows.release.start.candidate import candidate_warning
from cumulant.flows.release.start.key_counts import few_keys_warning
from cumulant.release.wording import span

if TYPE_CHECKING:
    from cumulant.flows.release.plan.measured_traffic import MeasuredTraffic
    from cumulant.flows.release.plan.power import MetricPower, StagePlan
    from cumulant.project.project import Project
    from cumulant.release.evidence.metrics import ReleaseMetric
    from cumulant.release.policy import ReleasePolicy


def warning_texts(
    project: Project, traffic: MeasuredTraffic, stages: list[StagePlan], seconds: float | None
) -> list[str]:
    """What may go wrong whatever the evidence shows."""
    at_most = sum(stage.at_most for stage in stages)
    texts = (
        few_keys_warning(project, project.name, project.policies.release),
        traffic.warning(seconds, at_most),
        candidate_warning(project),
    )
    return [text for text in texts if text]


def late_labels_text(delay: timedelta | None, stages: list[StagePlan], seconds: float | None) -> str | None:
    """That labels come after the release, in words; None where they come in time or nothing is known of them.

    `seconds`: until promotion, at the earliest; None: the release ends as inconclusive.
    """
    longest = sum(stage.at_most for stage in stages if stage.mirror)
    least = sum(stage.seconds for stage in stages) if seconds is None else seconds
    if delay is None or delay.total_seconds() <= least:
        return None
    text = f"quality: a label comes {span(delay.total_seconds())} after its request, and the release"
    text += f" {'lasts at least' if seconds is None else 'is promoted at the earliest after'} {span(least)}"
    if delay.total_seconds() <= longest:
        return f"{text}: most labels come too late for it"
    return f"{text}, its stages with mirrored requests last {span(longest)} at most: no label comes in time"


def substitute_texts(policy: ReleasePolicy, delay: timedelta | None, *, late: bool) -> list[str]:
    """What stands for labels that come too late."""
    holdback, texts = policy.holdback, []
    if not late and holdback is None:
        return []
    if policy.evaluation is not None:
        texts.append(
            "before it begins, both versions are compared on labelled rows of the past (release.evaluation); what they"
            " show there counts for quality, and the margins of disagreement, prediction and distance follow from it"
        )
    if holdback is None:
        texts.append(
            "labels of the release itself decide where it waits for them: release: {holdback: until_labels} leaves 5%"
            " of the callers on the champion until then, and rolls back or promotes by that evidence"
        )
    else:
        when = "" if delay is None else f", {span(delay.total_seconds())} and more after the canary"
        longest = show_duration(timedelta(seconds=holdback.at_most))
        texts.append(
            f"after the canary {100 - holdback.weight:g}% of the callers stay on the champion until labels of the"
            f" release show its quality{when}, at most {longest}; harm that they show rolls it back"
        )
    return texts


def undecided_texts(stages: list[StagePlan], named: Mapping[str, ReleaseMetric]) -> Iterator[str]:
    for stage in stages:
        if stage.samples_seconds > stage.at_most:
            yield (
                f"{stage.name}: its {stage.samples:,} requests take {span(stage.samples_seconds)},"
                f" longer than its longest time {span(stage.at_most)}"
            )
        for power in stage.metrics:
            if power.harm_longest is None:
                within = span(stage.at_most)
                yield f"{stage.name}: not even ten times the champion's {_name(power)} is seen in {within}"
    for power in stages[-1].metrics:
        if power.fine_seconds is None and named[power.metric].required:
            yield (
                f"{stages[-1].name}: {power.metric} is not shown to be within the margin in"
                f" {span(stages[-1].at_most)}, so the release ends as inconclusive"
            )


def undecided_quality_text(pairs: float, *, unshown: bool) -> str | None:
    """That so many pairs do not come (`unshown`), or that none suffice (infinity); None where neither is so."""
    if math.isinf(pairs):
        text = (
            "quality: its margin is too small to be shown in blocks of so few mirrored requests: widen it, or lengthen"
        )
        text += " release.metrics.quality.block"
    elif unshown:
        text = f"quality: about {pairs:,.0f} mirrored requests with labels are needed, and do not come in time"
    else:
        return None
    return f"{text}, so the release ends as inconclusive" if unshown else text


def _name(power: MetricPower) -> str:
    return "share of errors" if power.metric == "errors" else "share of slow requests"


def advice_texts(stages: list[StagePlan], a_day: float | None) -> list[str]:
    """What helps where something cannot be decided in time, at so many requests a day."""
    texts = []
    mirrored = next((stage for stage in stages if stage.mirror and not stage.weight), None)
    if mirrored is None:
        texts.append("add the stage shadow: all requests are scored by both versions, and none is at risk")
    elif mirrored.mirror < 100:
        texts.append("mirror all requests (release.stages.shadow.mirror: 100%): both versions score every one")
    else:
        many = "requests" if a_day is None else f"{a_day:,.0f} requests a day"
        texts.append(
            f"decide in shadow: all {many} are scored by both versions and compared in pairs;"
            " lengthen release.stages.shadow.at_most"
        )
    texts.append(
        "compare both versions on labelled rows of the past: `cumulant evaluate` (a backtest needs no traffic)"
    )
    texts.append("or accept less: a wider margin, longer times (at_most), fewer or larger steps of the canary")
    return texts
