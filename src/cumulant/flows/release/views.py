"""Views of releases for people and programs: a sentence, then the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.structs import struct_from
from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.flows.release.store import board_figure
from cumulant.ports.notifier import Message
from cumulant.release.events import MetricReported
from cumulant.release.wording import format_value, rolled_back_beside, version_name

if TYPE_CHECKING:
    from cumulant.flows.stack.desired_state import Rollback
    from cumulant.release.paired.paired_records import PairedEvaluation
    from cumulant.release.state import Board, Release

_VERDICTS = {
    "promoted": "was promoted",
    "rolled_back": "was rolled back",
    "inconclusive": "was not promoted, for want of evidence",
    "superseded": "was superseded",
    "paused": "is paused",
    "awaiting_approval": "waits for an approval",
    "running": "is on its way",
    "pending": "is about to begin",
}


class MetricView(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. `harm` and `fine` are shares of the evidence that would prove it, 0 to 1 and above.

    `verdict`: what is shown so far, with what that does to the release where it may surprise: a clause after `; `.
    """

    metric: str
    unit: str
    champion: float | None
    candidate: float | None
    low: float | None
    high: float | None
    margin: float | None
    required: bool
    verdict: str
    harm: float | None
    fine: float
    samples: dict[str, int]
    evidence: MetricReported


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """One step: passed, the present one, or still to come. Percent of the keys; active seconds."""

    name: str
    stage: str
    weight: float
    mirror: float
    seconds: float
    at_least: float
    at_most: float
    samples: dict[str, int]
    samples_needed: int
    state: str


class ReleaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A release for programs."""

    id: str
    model: str
    champion: str
    candidate: str
    status: str
    reason: str
    sentence: str
    step: str
    weight: float
    mirror: float
    begun: datetime
    ended: datetime | None
    stages: list[StageView]
    metrics: list[MetricView]
    #: both versions on labelled rows of the past, in a sentence; empty where there are none
    evaluation: str
    lacks: list[str]
    #: the objective of the served model that is missed, in a sentence, and who overrides that and why; else empty
    slo_hold: str
    slo_override: str
    #: what the evidence assumes, where it is seen to fail or cannot be seen, in sentences
    assumptions: list[str]
    approved: list[str]
    settled: list[str]


class ReleaseVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What an automation reads, such as a web metric of Argo Rollouts.

    `value`: 1 once the candidate was promoted, else 0: no data is never success.
    """

    release: str
    model: str
    candidate: str
    champion: str
    status: str
    over: bool
    value: int
    step: str
    weight: float
    reason: str
    sentence: str


def verdict(release: Release, returns: Sequence[Rollback] = ()) -> ReleaseVerdict:
    return ReleaseVerdict(
        release=release.id,
        model=release.model,
        candidate=release.candidate.version,
        champion=release.champion.version,
        status=release.status,
        over=release.over,
        value=int(release.status == "promoted"),
        step=release.step.label,
        weight=release.weight,
        reason=reason_text(release, returns),
        sentence=sentence(release, returns),
    )


def view(release: Release, returns: Sequence[Rollback] = ()) -> ReleaseView:
    """The view of a release; `returns`: rollbacks of the model, the oldest first."""
    boards, lacks, assumptions = _evidence(release)
    return struct_from(
        ReleaseView,
        release,
        champion=release.champion.version,
        candidate=release.candidate.version,
        reason=reason_text(release, returns),
        sentence=sentence(release, returns),
        step=release.step.label,
        stages=_stages(release),
        metrics=_metrics(release, boards),
        evaluation="" if release.evaluation is None else evaluation_text(release.evaluation),
        lacks=lacks,
        assumptions=assumptions,
        approved=sorted(release.approved),
        settled=sorted(release.settled),
    )


def _evidence(release: Release) -> tuple[list[Board], list[str], list[str]]:
    """The boards with their intervals, the missing evidence, and the assumptions; an ended release's as stored."""
    boards = list(release.boards.values())
    if release.over and not any(board.state for board in boards):
        return boards, [], []
    from cumulant.release.assumptions import assumption_notes
    from cumulant.release.decide import list_unmet_conditions
    from cumulant.release.evidence.accumulate import is_readable
    from cumulant.release.evidence.metric_state import with_interval

    if not release.over and not is_readable(release):
        return boards, [], []
    boards = [with_interval(board) for board in boards]
    if release.over:
        return boards, [], []
    return boards, [] if release.status == "pending" else list_unmet_conditions(release), assumption_notes(release)


def sentence(release: Release, returns: Sequence[Rollback] = ()) -> str:
    """`version 2 of late was rolled back in canary 10%: errors became worse: ...`, and what became of it later."""
    text = f"{version_name(release.candidate.version)} of {release.model} {_VERDICTS[release.status]}"
    if release.status not in ("promoted", "pending"):
        text += f" in {release.step.label}"
    reason = release.reason.removeprefix(f"in {release.step.label}, ").removeprefix("paused ")
    return (f"{text}: {reason}" if reason else text) + _rollback_text(release, returns)


def reason_text(release: Release, returns: Sequence[Rollback]) -> str:
    """The reason that the release has, and that of the rollback which ended or undid it."""
    return (release.reason + _rollback_text(release, returns)).removeprefix("; ")


def evaluation_text(evaluation: PairedEvaluation) -> str:
    """`on 5,000 labelled rows of the past, ..: brier 0.1403, the champion's 0.1411; other decisions in 3.20%`."""
    span = (
        ""
        if evaluation.first is None or evaluation.last is None
        else f", {evaluation.first:%Y-%m-%d} to {evaluation.last:%Y-%m-%d}"
    )
    text = (
        f"on {evaluation.rows:,} labelled rows of the past{span}: {evaluation.loss} {evaluation.candidate_loss:.4g},"
        f" the champion's {evaluation.champion_loss:.4g}"
    )
    if evaluation.disagreement is not None:
        text += f"; other decisions in {format_value(evaluation.disagreement, '%')}"
    return text


def _rollback_text(release: Release, returns: Sequence[Rollback]) -> str:
    """The rollback that ended the release, or that of a promoted version since; empty where there is none."""
    candidate = release.candidate.version
    since = [
        rollback
        for rollback in returns
        if rollback.at >= release.begun and candidate in (rollback.version, *rollback.given_up)
    ]
    if release.status == "rolled_back":
        known = returns if release.rollback else since
        rollback = next((rollback for rollback in known if _ended(release, rollback)), None)
        return "" if rollback is None else f", by {_name(rollback)} at {_moment(rollback)}: {rollback.reason}"
    if release.status != "promoted" or not since or since[-1].version == candidate:
        return ""
    rollback = since[-1]
    target = version_name(rollback.version)
    return f"; {_name(rollback)} rolled it back to {target} at {_moment(rollback)}: {rollback.reason}"


def _ended(release: Release, rollback: Rollback) -> bool:
    """Whether the rollback ended the release: by the reason where routes of an earlier version name no rollback."""
    if release.rollback:
        return rollback.id == release.rollback
    return release.reason == rolled_back_beside(rollback.version)


def _name(rollback: Rollback) -> str:
    return rollback.by.removeprefix("user:")


def _moment(rollback: Rollback) -> str:
    return f"{rollback.at:%Y-%m-%d %H:%M:%SZ}"


def ending_message(release: Release, at: datetime) -> Message:
    """The message about an ended release: the sentence and, as `detail`, the numbers."""
    text = sentence(release)
    return Message(
        key=f"release/{release.id}/{release.status}",
        kind="release",
        status=release.status,
        level="warning" if release.status == "rolled_back" else "info",
        model=release.model,
        rule="release",
        subject=release.id,
        title=text.partition(":")[0],
        text=text,
        at=at,
        since=release.begun,
        detail=msgspec.to_builtins(view(release)),
    )


def _metrics(release: Release, boards: Sequence[Board]) -> list[MetricView]:
    moot: frozenset[str] = frozenset()
    if "quality" in release.boards:
        from cumulant.release.decide import moot_metrics

        moot = moot_metrics(release)
    return [metric_view(board, moot=board.metric in moot, over=release.over) for board in boards]


def metric_view(board: Board, *, moot: bool, over: bool) -> MetricView:
    """A board with its evidence as shares of what would prove it.

    `moot`: the metric neither rolls back nor stops a step. `over`: the release has ended.
    """
    return struct_from(
        MetricView,
        board,
        verdict=_verdict(board, moot=moot, over=over),
        harm=None if board.harm_bar is None else _part(board.most_harm, board.harm_bar),
        fine=_part(board.combined_fine, board.fine_bar),
        evidence=board_figure(board),
    )


def _verdict(board: Board, *, moot: bool, over: bool) -> str:
    """The verdict in the words of every page and of the command line."""
    if board.margin is None:
        return "reported only"
    shown = board.verdict
    if shown.harmful:
        return "worse; informs only" if moot else "worse"
    if board.beyond:  # this stops a step, whether promotion waits for the metric or not
        text = "beyond its margin" if over else "beyond its margin so far"
        return f"{text}; informs only" if moot else text if over else f"{text}; no step advances"
    if shown.acceptable:
        return "within its margin"
    text = "no data yet" if not sum(board.samples.values()) else "not yet shown"
    if moot:
        return f"{text}; informs only"
    return text if over or board.required else f"{text}; promotion does not wait"


def _part(evidence: float, bar: float) -> float:
    """The share of the evidence that is needed; logarithms of e-values add up over time."""
    return round(max(0.0, evidence / bar), 4) if bar else 0.0


def _stages(release: Release) -> list[StageView]:
    views = []
    for place, step in enumerate(release.steps):
        passed = release.passed[place] if place < len(release.passed) else None
        present = place == release.at and not release.over and release.status != "pending"
        samples = passed.samples if passed else (release.samples if present else {})
        views.append(
            struct_from(
                StageView,
                step,
                name=step.label,
                seconds=passed.seconds if passed else (round(release.seconds, 3) if present else 0.0),
                samples={arm: samples.get(arm, 0) for arm in (CHAMPION, CANDIDATE)},
                samples_needed=step.samples,
                state=_state(release, passed=passed is not None, present=present, last=place == release.at),
            )
        )
    return views


def _state(release: Release, *, passed: bool, present: bool, last: bool) -> str:
    if present:
        return "now"
    if not passed:
        return "skipped" if release.over else "to come"
    return "ended here" if last and release.status != "promoted" else "passed"
