"""What is wrong with a model, worst first: pure decisions over what the journal holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from cumulant.alerting.alert_state import Alert, AlertsState, Finding, is_silent
from cumulant.flows.monitoring.state import RetrainRequest
from cumulant.flows.release.views import reason_text
from cumulant.flows.stack.status import Status
from cumulant.release.state import Release
from cumulant.release.wording import version_name

#: `critical`: callers or decisions are harmed now; `warning`: look today; `notice`: something waits or is on its way;
#: `unknown`: there is nothing to go by yet
Level = Literal["critical", "warning", "notice", "unknown", "ok"]
LEVELS: tuple[Level, ...] = ("critical", "warning", "notice", "unknown", "ok")
#: where the next step is taken; `command`: by its command alone
Target = Literal["alerts", "command", "data", "events", "monitoring", "release", "review", "rollback", "runs", "stack"]
#: how long the end of a release stays worth a word
_RECENT = timedelta(days=1)
_ALERT_LEVELS: dict[str, Level] = {"critical": "critical", "warning": "warning", "info": "notice"}
#: by kind of change, where its cause is seen and how the link to it reads
_STEPS: dict[str, tuple[Target, str]] = {
    **dict.fromkeys(("data_fault", "feed", "quality"), ("data", "see the data")),
    **dict.fromkeys(("concept", "covariate", "prior", "volume"), ("monitoring", "see what changed")),
}


#: rules of drift, whose findings name a column and how it moved
DRIFT_WORDS = {
    "covariate": "drift",
    "prior": "drift of the answers",
    "data_fault": "data fault",
    "volume": "number of rows",
}

#: of states of a process that has ended, what became of it
_ENDED = {"waiting": "has ended and is started again", "ended": "has ended"}


class NextStep(msgspec.Struct, frozen=True, kw_only=True):
    """What to do next: on which page, and by which command."""

    label: str
    target: Target
    command: str
    #: what the page shows of it: an alert, a release
    subject: str = ""


class ModelProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is wrong, or waits. `cause`: the likely kind of change; `known`: acknowledged or silenced;
    `advice`: what the finding says of its cost and of what to do.

    `since`: when it began, by the clock of the data; `noticed`: when it was found, by the clock of the machine.
    """

    level: Level
    what: str
    subject: str
    sentence: str
    since: datetime | None = None
    noticed: datetime | None = None
    cause: str = ""
    advice: str = ""
    known: bool = False
    next: NextStep


def worst_first(problems: Iterable[ModelProblem]) -> list[ModelProblem]:
    """By level; what somebody knows of comes after what nobody does, others after those of processes, from which they
    may follow, and the newer after the longer known.
    """
    return sorted(problems, key=_urgency)


def _urgency(problem: ModelProblem) -> tuple[int, bool, bool, float, str, str]:
    begun = problem.noticed or problem.since
    moment = begun.timestamp() if begun is not None else float("inf")
    level, is_process = LEVELS.index(problem.level), problem.what == "stack"
    return level, problem.known, not is_process, moment, problem.what, problem.subject


def alert_problems(state: AlertsState, at: datetime) -> list[ModelProblem]:
    """The alerts that fire."""
    return [_alert_problem(alert, known=is_silent(state, alert, at)) for alert in state.firing]


def _alert_problem(alert: Alert, *, known: bool) -> ModelProblem:
    finding = alert.finding
    target, label = _STEPS.get(finding.kind, ("alerts", "see the alert"))
    return ModelProblem(
        level=_ALERT_LEVELS[alert.level],
        what=finding.rule,
        subject=finding.subject,
        sentence=_sentence(finding),
        since=finding.since,
        noticed=alert.fired or alert.began,
        cause=finding.kind,
        advice="; ".join(filter(None, (finding.cost and f"cost: {finding.cost}", finding.next.rstrip(".")))),
        known=known or alert.acknowledged is not None,
        next=NextStep(label=label, target=target, command=f"cumulant alerts show {alert.id}", subject=alert.id),
    )


def _sentence(finding: Finding) -> str:
    text = finding.moved.rstrip(".")
    return f"{DRIFT_WORDS[finding.rule]}: {text}" if finding.rule in DRIFT_WORDS else text


def release_problems(release: Release | None, at: datetime) -> list[ModelProblem]:
    """A release that waits for a decision, is under way, or ended badly a short while ago."""
    if release is None:
        return []
    name = version_name(release.candidate.version)
    match release.status:
        case "awaiting_approval":
            return [_of_release(release, "notice", f"{name} waits for an approval", "approve or refuse it")]
        case "paused":
            return [_of_release(release, "notice", f"the release of {name} is {release.reason}", "resume or abort it")]
        case "running" | "pending":
            text = f"{name} is being released: {release.step.label}, {release.weight:g}% of the requests"
            return [_of_release(release, "notice", text, "watch the release")]
        case "rolled_back" | "inconclusive" if release.ended is not None and at - release.ended < _RECENT:
            word = "was rolled back" if release.status == "rolled_back" else "was not promoted"
            text = f"{name} {word}: {reason_text(release, ())}"
            return [_of_release(release, "warning", text, "see why")]
        case _:
            return []


def _of_release(release: Release, level: Level, text: str, label: str) -> ModelProblem:
    moment = release.ended or release.begun
    return ModelProblem(
        level=level,
        what="release",
        subject=release.id,
        sentence=text,
        since=moment,
        noticed=moment,
        next=NextStep(
            label=label, target="release", command=f"cumulant release status {release.id}", subject=release.id
        ),
    )


def retraining_problems(request: RetrainRequest | None) -> list[ModelProblem]:
    """A requested training that was refused, failed, or offers a version."""
    if request is None or request.stage not in ("refused", "failed", "offered", "requested"):
        return []
    level: Level = "warning" if request.stage in ("refused", "failed") else "notice"
    words = {
        "refused": "the gate refused the retrained model",
        "failed": "the retraining failed",
        "offered": f"{request.candidate} is retrained and waits to be promoted",
        "requested": "a retraining is due",
    }
    detail = request.message or request.sentence
    return [
        ModelProblem(
            level=level,
            what="retraining",
            subject=request.champion,
            sentence=f"{words[request.stage]}: {detail}" if detail else words[request.stage],
            since=request.since or request.requested,
            noticed=request.requested,
            next=NextStep(label="see the run", target="runs", command="cumulant runs list --flow train"),
        )
    ]


def stack_problems(status: Status | None) -> list[ModelProblem]:
    """Processes of the stack that should answer and do not."""
    if status is None:
        return []
    if not status.running:
        text = "the processes that serve it have ended without `cumulant down`"
        return [_of_stack("critical", "stack", text, status.at, label="start it again", command="cumulant up")]
    problems = [_of_stack("critical", "stack", status.trouble, status.at)]
    problems = problems if status.trouble else []
    for child in status.faulty:
        # What a server cannot do while it answers, callers get as errors: 429 of a full queue, 503 without its store.
        harms = child.kind == "server" or (child.kind == "gateway" and not child.ready)
        level: Level = "critical" if harms else "warning"
        state = _ENDED.get(child.state, f"is {child.state}")
        text = f"{child.name} {state}" if not child.ready else f"{child.name} answers, but {child.trouble}"
        text += f": {child.message}" if child.message and not child.ready else ""
        problems.append(_of_stack(level, child.name, text, child.not_ready_since))
    return problems


def _of_stack(
    level: Level,
    subject: str,
    text: str,
    since: datetime | None,
    *,
    label: str = "see the processes",
    command: str = "cumulant ps",
) -> ModelProblem:
    return ModelProblem(
        level=level,
        what="stack",
        subject=subject,
        sentence=text,
        since=since,
        noticed=since,
        next=NextStep(label=label, target="stack", command=command),
    )


def with_rollback(problem: ModelProblem, *, promoted: bool, model: str) -> ModelProblem:
    """The problem, with a rollback as the next step where harm follows a promotion."""
    if (
        not promoted
        or problem.level != "critical"
        or problem.cause == "data_fault"
        or problem.what in ("stack", "feed")
    ):
        return problem
    command = f'cumulant rollback {model} --reason "{problem.what}"'
    return msgspec.structs.replace(
        problem, next=NextStep(label="roll back", target="rollback", command=command, subject=problem.next.subject)
    )


def step_of_calm(champion: str | None, candidate: str | None) -> NextStep | None:
    """What comes next where nothing is wrong: of a new project, or with a candidate that waits for its release."""
    if candidate is not None and champion is None:
        return NextStep(label=f"serve version {candidate}", target="command", command="cumulant up")
    if candidate is not None and candidate != champion:
        return NextStep(label=f"release version {candidate}", target="command", command="cumulant release start")
    if champion is None:
        return NextStep(label="train a model", target="command", command="cumulant train")
    return None


def worst_level(problems: Sequence[ModelProblem], *, evaluated: bool) -> Level:
    """The level of a model: that of its worst problem that nobody knows of, one less where somebody does.

    Without a problem it is `ok` where something was evaluated, else `unknown`.
    """
    levels = [min(LEVELS.index(each.level) + each.known, LEVELS.index("notice")) for each in problems]
    if levels:
        return LEVELS[min(levels)]
    return "ok" if evaluated else "unknown"
