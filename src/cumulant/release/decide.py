"""The next state of a release: a pure function of its state and the evidence; it is stored before it is acted on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.release.evidence.accumulate import begin_next_step, count_keys, has_history, read_memory
from cumulant.release.evidence.champion_history import FEWEST_LOOKS
from cumulant.release.evidence.health import RECENT, FailureReference, HardFailure
from cumulant.release.evidence.metric_state import with_interval
from cumulant.release.evidence.metrics import QUICK_PART, STAND_INS, metrics
from cumulant.release.state import MetricVerdict, PassedStep, Release, Status
from cumulant.release.steps import ReleaseStep
from cumulant.release.wording import describe_harm

Verdicts = Mapping[str, MetricVerdict]
ACTIVE: frozenset[Status] = frozenset({"running", "paused", "awaiting_approval"})


def act_on_failure(release: Release, failure: HardFailure | None, *, at: datetime) -> Release:
    """The release after the quick check: rolled back for a hard failure that the champion does not share."""
    if failure is None or release.status not in ACTIVE:
        return release
    if failure.shared:
        text = f"{failure.text}, and so has the champion: the candidate is not blamed and waits"
        return msgspec.structs.replace(release, reason=text)
    return end_release(release, "rolled_back", failure.text, at=at)


def build_failure_reference(release: Release) -> FailureReference:
    """What a candidate's failures are compared with: its champion's past, at the level of the present check.

    Checks share a part of alpha: a look n, from 0, has 1 / ((n + 1)(n + 2)) of it and holds a check a second.
    """
    look = release.policy.look
    number = int((release.seconds + sum(step.seconds for step in release.passed)) / look)
    known = read_memory(release).champion
    return FailureReference(
        worst=known.worst,
        usual=known.rate("errors"),
        # The variance of a shorter time's mean is at most so many times that of a look's.
        shape=known.burst_shape("errors") * min(RECENT / look, 1.0),
        level=QUICK_PART * release.policy.alpha / ((number + 1) * (number + 2) * max(look, 1.0)),
    )


def decide(release: Release, *, skewed: bool = False, failing: bool = False, at: datetime) -> Release:
    """The release after a look that `accumulate.count_look` added to it.

    `skewed`: the arms' numbers of requests do not fit the weights, so that no figure can be trusted. `failing`: both
    arms fail hard, so that it does not advance; two arms that answer nothing are equally good.
    """
    if release.status not in ACTIVE:
        return release
    if skewed:
        text = f"the arms did not get the requests that {release.step.label} should give them: the split is broken"
        return end_release(release, "inconclusive", text, at=at)
    verdicts = {name: board.verdict for name, board in release.boards.items()}
    moot = moot_metrics(release)
    harmful = {
        name: with_interval(release.boards[name])
        for name, verdict in verdicts.items()
        if verdict.harmful and name not in moot
    }
    if harmful:
        release = msgspec.structs.replace(release, boards=release.boards | harmful)
        return end_release(release, "rolled_back", " and ".join(map(describe_harm, harmful.values())), at=at)
    unmet = _unmet_conditions(release, verdicts)
    if release.status == "awaiting_approval" and unmet and unmet != list(_missed_objective(release)):
        return msgspec.structs.replace(release, status="running", reason=f"in {release.step.label}, {unmet[0]}")
    if release.status != "running" or (failing and release.seconds < release.step.at_most):
        return release
    return _continue(release, unmet, at)


def _continue(release: Release, unmet: Sequence[str], at: datetime) -> Release:
    step = release.step
    if unmet:
        # What was agreed to was shown: its step's time is not what an objective is missed for.
        is_agreed = unmet == list(_missed_objective(release)) and _approval(release) in release.approved
        if release.seconds >= step.at_most and not is_agreed:
            return end_release(release, "inconclusive", f"{step.label} took its longest time and {unmet[0]}", at=at)
        return msgspec.structs.replace(release, reason=f"in {step.label}, {unmet[0]}")
    waits = _approval(release)
    if waits and waits not in release.approved:
        text = f"{step.label} is done; {waits} waits for an approval"
        return msgspec.structs.replace(release, status="awaiting_approval", reason=text)
    return _advance(release, at)


def list_unmet_conditions(release: Release) -> list[str]:
    """What the step still needs before the next one, as clauses; empty where it is done."""
    return _unmet_conditions(release, {name: board.verdict for name, board in release.boards.items()})


def _unmet_conditions(release: Release, verdicts: Verdicts) -> list[str]:
    step, needs = release.step, [*_missed_objective(release), *_arms_without_keys(release)]
    if release.seconds < step.at_least:
        needs.append(f"{step.at_least - release.seconds:.0f} s of its shortest time are left")
    for arm in (CANDIDATE, CHAMPION) if step.weight else (CANDIDATE,):
        short = step.samples - release.samples.get(arm, 0)
        if short > 0:
            needs.append(f"the {arm} lacks {short} of {step.samples} requests")
    moot = moot_metrics(release)
    needs += [
        f"{board.metric} is beyond its margin so far"
        for name, board in release.boards.items()
        if board.beyond and board.margin is not None and name not in moot
    ]
    needs += _unproven_metrics(release, verdicts, moot)
    needs += _selective_labels(release, verdicts)
    if _closing(release):
        needs += [] if release.boards else ["nothing has been measured"]
        if not has_history(release):
            needs.append(
                f"the champion's log covers fewer than {FEWEST_LOOKS} looks, too few to show how its failures depend"
                " on each other"
            )
    return needs


def _missed_objective(release: Release) -> Iterator[str]:
    """What the served model lacks, whichever arm it is of: neither arm is blamed, and no more callers are moved."""
    if release.slo_hold and not release.slo_override:
        yield release.slo_hold


def _closing(release: Release) -> bool:
    """Whether all callers, or all but a holdback, get the candidate after this step."""
    following = release.steps[release.at + 1 :]
    return not following or following[0].stage == "holdback"


def _unproven_metrics(release: Release, verdicts: Verdicts, moot: frozenset[str]) -> Iterator[str]:
    """Required metrics that the step has not shown to be within their margins."""
    step, closing, named = release.step, _closing(release), metrics(release.policy)
    waits = release.policy.holdback is not None
    shadow = step.stage == "shadow" and release.seconds < step.at_most
    for name, board in release.boards.items():
        if not board.required or name in moot or not (closing or (shadow and named[name].kind == "pairs")):
            continue
        if waits and name == "quality":
            if step.stage == "holdback" and not verdicts[name].acceptable_alone:
                yield "labels of the release have not yet shown that quality is within its margin"
        elif not verdicts[name].acceptable:
            yield f"{board.metric} is not yet shown to be within its margin"


def _selective_labels(release: Release, verdicts: Verdicts) -> list[str]:
    """Labels of other rows than those that are scored show no quality; a project may declare to continue without."""
    quality, declared = verdicts.get("quality"), release.policy.metrics.get("quality")
    if quality is None or quality.acceptable or (declared is not None and declared.required is not None):
        return []
    if not _closing(release) or not read_memory(release).selection.selective:
        return []
    text = "labels come only for rows of another kind than those that are scored, which does not show quality"
    return [f"{text} (release.metrics.quality.required: false goes on without)"]


def moot_metrics(release: Release) -> frozenset[str]:
    """Metrics that stand for quality while it is not known, where labels of the release show it within its margin.

    They neither roll back nor stop a step.
    """
    quality = release.boards.get("quality")
    if quality is None or quality.margin is None or quality.beyond or not quality.verdict.acceptable_alone:
        return frozenset()
    return STAND_INS


def _arms_without_keys(release: Release) -> Iterator[str]:
    """An arm that no key falls to, once the other has what the step needs of it, or the shortest time is over."""
    step, counts = release.step, release.samples
    for arm, other in ((CANDIDATE, CHAMPION), (CHAMPION, CANDIDATE)):
        long = counts.get(other, 0) >= step.samples or release.seconds >= step.at_least
        if not step.weight or not step.samples or counts.get(arm, 0) or not counts.get(other, 0) or not long:
            continue
        if keys := count_keys(release):
            yield (
                f"none of the {keys:,} values of {release.policy.key or 'the key'} that were seen falls to the {arm},"
                f" which should have {step.weight if arm == CANDIDATE else 100 - step.weight:g}% of them: there are"
                " too few for so small a share"
            )


def _approval(release: Release) -> str | None:
    """What would come next and needs an approval by the policy: `canary`, `promote` or nothing."""
    approval = release.policy.approval
    if approval is None:
        return None
    if release.at == len(release.steps) - 1:
        return "promote" if approval.before == "promote" else None
    following = release.steps[release.at + 1]
    first = following.stage == "canary" and release.step.stage != "canary"
    return "canary" if first and approval.before == "canary" else None


def _advance(release: Release, at: datetime) -> Release:
    closed = _with_closed_step(release)
    if release.at == len(release.steps) - 1:
        return _with_end(closed, "promoted", _proven_metrics(closed), at)
    following = release.steps[release.at + 1]
    memory, boards = begin_next_step(release)
    return msgspec.structs.replace(
        closed,
        status="running",
        at=release.at + 1,
        seconds=0.0,
        samples={},
        memory=memory,
        boards=boards,
        revision=release.revision + 1,
        reason=f"{release.step.label} is done; {following.label} begins",
    )


def _proven_metrics(release: Release) -> str:
    """What a promotion without an operator rests on: only metrics that had to be shown were."""
    required = [board.metric for board in release.boards.values() if board.required]
    if not required:
        return "no metric was required to be shown within its margin, and none was shown to be worse"
    return f"shown to be within the margin: {', '.join(required)}"


def start(release: Release) -> Release:
    """A pending release in its first step."""
    if release.status != "pending":
        return release
    return msgspec.structs.replace(
        release, status="running", revision=release.revision + 1, reason=f"{release.step.label} begins"
    )


def pause(release: Release, reason: str) -> Release:
    """The release with its weights kept; hard failures and harm still roll it back."""
    return msgspec.structs.replace(release, status="paused", reason=reason) if release.status == "running" else release


def resume(release: Release) -> Release:
    if release.status != "paused":
        return release
    return msgspec.structs.replace(release, status="running", reason=f"{release.step.label} goes on")


def approve(release: Release, *, at: datetime) -> Release:
    """The release after the approval that it waits for."""
    waits = _approval(release)
    if release.status != "awaiting_approval" or waits is None:
        return release
    release = msgspec.structs.replace(release, approved=release.approved | {waits})
    if unmet := list_unmet_conditions(release):  # the approval holds; what was shown before it no longer is
        return msgspec.structs.replace(release, status="running", reason=f"in {release.step.label}, {unmet[0]}")
    return _advance(release, at)


def override_objectives(release: Release, reason: str) -> Release:
    """The release that goes on whatever the objectives are, to its end; harm and failures still roll it back."""
    return release if release.over else msgspec.structs.replace(release, slo_override=reason)


def promote(release: Release, reason: str, *, at: datetime) -> Release:
    """The release, promoted by an operator; unchanged where it is over."""
    return release if release.over else _with_end(_with_closed_step(release), "promoted", reason, at)


def end_release(release: Release, status: Status, reason: str, *, at: datetime) -> Release:
    """The release, over: all keys on the champion. Nothing changes where it is over already."""
    return release if release.over else _with_end(_with_closed_step(release), status, reason, at)


def _with_end(release: Release, status: Status, reason: str, at: datetime) -> Release:
    return msgspec.structs.replace(release, status=status, reason=reason, ended=at, revision=release.revision + 1)


def _with_closed_step(release: Release) -> Release:
    if release.status == "pending":
        return release
    step: ReleaseStep = release.step
    over = PassedStep(
        label=step.label,
        stage=step.stage,
        weight=step.weight,
        seconds=round(release.seconds, 3),
        samples={arm: release.samples.get(arm, 0) for arm in (CHAMPION, CANDIDATE)},
    )
    return msgspec.structs.replace(release, passed=(*release.passed, over))
