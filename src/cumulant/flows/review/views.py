"""A case as shown to a reviewer: the request, similar rows, and the model's answer once it is not hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.masking import is_masked, mask
from cumulant.core.prediction import read_object
from cumulant.core.servable import GraphServable, Servable
from cumulant.flows.review.case_context import CaseReader
from cumulant.flows.review.stored_report import wrong_of
from cumulant.review.cases import CaseNote, ReviewAnswer, ReviewCase
from cumulant.review.label_studio import class_text
from cumulant.review.policy import ReviewPolicy

if TYPE_CHECKING:
    from cumulant.project.project import Project

_NEIGHBOURS = 3


def policy_of(project: Project) -> ReviewPolicy:
    """The project's `monitoring.review`.

    Raises:
        UsageError: it has none.
    """
    policy = project.policies.monitoring.review
    if policy is None:
        raise UsageError(
            "the project declares no review queue",
            subject=str(project.file.path),
            hint="add `monitoring: {review: {budget: 50/day}}` to cumulant.yaml",
        )
    return policy


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A training row near the case, and what became of it."""

    distance: float
    label: object
    row: dict[str, Any]


class CaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A case without `answer`, `explanation` and reasons while the reviewer is blind (`hidden`).

    `request`: personal values are keyed hashes. `own`: the viewer's answer. `others`: other answers, after the viewer's
    or once closed.
    """

    id: str
    model: str
    version: str
    request_id: str
    row: int
    time: datetime
    reasons: tuple[str, ...]
    useful: float | None
    chance: float | None
    status: str
    deadline: datetime
    second: bool
    escalated: bool
    assigned: str | None
    holder: str | None
    held_until: datetime | None
    labels: tuple[str | int | float | bool, ...]
    request: dict[str, Any] | None
    hidden: bool
    answer: dict[str, Any] | None
    explanation: Any
    neighbours: tuple[Neighbour, ...]
    notes: tuple[dict[str, Any], ...]
    own: tuple[dict[str, Any], ...]
    others: tuple[dict[str, Any], ...]
    label: object
    #: changes with everything that becomes of the case
    revision: str


class CaseLine(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a list. Reasons and label are empty while the viewer is to decide blindly."""

    id: str
    version: str
    time: datetime
    status: str
    deadline: datetime
    reasons: tuple[str, ...]
    holder: str | None
    assigned: str | None
    escalated: bool
    second: bool
    answers: int
    notes: int
    label: object
    closed: datetime | None
    mine: bool


def view(
    project: Project,
    case: ReviewCase,
    policy: ReviewPolicy,
    *,
    viewer: str,
    reader: CaseReader | None,
) -> CaseView:
    """The case for one viewer; without `reader`: without what is in the log. Raises StorageError."""
    logged = None if reader is None else reader.row(case)
    request = None
    if reader is not None and logged is not None:
        described = reader.described(case.model, case.version)
        request = mask_request(project, described, msgspec.json.decode(logged["request"]))
    outputs = {} if logged is None else dict(read_object(logged["outputs"]))
    own_answer = case.by(viewer)
    decided = own_answer is not None and own_answer.kind == "decided"
    hidden = policy.blind and case.status == "waiting" and not decided
    seen = case.status != "waiting" or decided
    explanation = outputs.pop("reasons", None)
    return CaseView(
        id=case.id,
        model=case.model,
        version=case.version,
        request_id=case.request,
        row=case.row,
        time=case.time,
        # Reasons reveal that the models disagree or are unsure.
        reasons=() if hidden else case.reasons,
        useful=None if hidden else case.useful,
        chance=None if hidden else case.chance,
        status=case.status,
        deadline=case.deadline,
        second=case.second,
        escalated=case.escalated,
        assigned=case.assigned,
        holder=None if case.lease is None else case.lease.reviewer,
        held_until=None if case.lease is None else case.lease.until,
        labels=() if reader is None else classes_of(case, reader),
        request=request,
        hidden=hidden,
        answer=None if hidden or not outputs else outputs,
        explanation=None if hidden else explanation,
        neighbours=() if reader is None or request is None else _neighbours(case, request, reader),
        notes=tuple(
            _note(entry, policy, project.salt(), viewer)
            for entry in case.notes
            # A second opinion that has read the first one's notes is none.
            if not (hidden and case.second and not case.escalated) or entry.reviewer == viewer
        ),
        own=tuple(_answer_view(entry, viewer) for entry in case.answers if entry.reviewer == viewer),
        others=tuple(_opinion(entry, policy, project.salt()) for entry in case.answers if entry.reviewer != viewer)
        if seen
        else (),
        label=None if case.label is None or hidden else msgspec.json.decode(case.label),
        revision=case.revision,
    )


def case_line(case: ReviewCase, *, viewer: str, blind: bool, now: datetime) -> CaseLine:
    """The case for one viewer, without what is in the log."""
    own = case.by(viewer)
    hidden = blind and case.status == "waiting" and not (own is not None and own.kind == "decided")
    holder = case.lease.reviewer if case.lease is not None and case.lease.until > now else None
    return CaseLine(
        id=case.id,
        version=case.version,
        time=case.time,
        status=case.status,
        deadline=case.deadline,
        reasons=() if hidden else case.reasons,
        holder=holder,
        assigned=case.assigned,
        escalated=case.escalated,
        second=case.second,
        answers=len(case.answers),
        notes=len(case.notes),
        label=None if case.label is None else msgspec.json.decode(case.label),
        closed=case.closed,
        mine=own is not None,
    )


def mask_request(project: Project, described: Servable | GraphServable | None, request: object) -> dict[str, Any]:
    """The request of a model; values that only the present version declares personal are hashed here."""
    from cumulant.serving.prediction_log.personal_values import personal_fields

    given = request if isinstance(request, dict) else {"": request}
    own = () if described is None else personal_fields(described)
    personal = project.policies.personal.union(field.name for field in own)
    return {name: _hashed(value, project.salt()) if name in personal else value for name, value in given.items()}


def classes_of(case: ReviewCase, reader: CaseReader) -> tuple[str | int | float | bool, ...]:
    """What a reviewer may decide; empty where the answer is a number, or nothing is known of the version."""
    from cumulant.servable.scorer import labels

    described = reader.described(case.model, case.version)
    return labels(described) if isinstance(described, Servable) else ()


def _neighbours(case: ReviewCase, request: Mapping[str, Any], reader: CaseReader) -> tuple[Neighbour, ...]:
    """The training rows nearest to the case, without personal values and keys."""
    reference = reader.reference(case.model, case.version)
    if reference is None or reference.known is None or reference.scale is None:
        return ()
    from cumulant.review import reasons

    points = reference.scale.coordinates(*reasons.split_columns([request], reference.scale))
    distances, places = reference.known.neighbours(points, _NEIGHBOURS)
    neighbours = []
    for distance, place in zip(distances[0], places[0], strict=True):
        row = dict(reference.rows[int(place)])
        neighbours.append(Neighbour(distance=round(float(distance), 3), label=row.pop("label", None), row=row))
    return tuple(neighbours)


def wrong_cases(project: Project, cases: Sequence[ReviewCase]) -> dict[str, bool]:
    """By done case, whether the model's decision was wrong, as far as the log has it; not of regressions."""
    labelled = [case for case in cases if case.label is not None]
    reader = CaseReader(project)
    numbers = {model: _is_number(reader, model) for model in {(case.model, case.version) for case in labelled}}
    done = [case for case in labelled if not numbers[case.model, case.version]]
    return wrong_of(project, done, lambda: _read_wrong(project, done))


def _read_wrong(project: Project, done: Sequence[ReviewCase]) -> dict[str, bool]:
    from cumulant.outcomes.join.prediction_losses import decision as outcomes_decision

    wrong: dict[str, bool] = {}
    # A day of the log is read once, however many cases it has.
    for day in sorted({case.time.date() for case in done}):
        those = [case for case in done if case.time.date() == day]
        answered = _answers(project, day, those)
        for case in those:
            text = answered.get((case.worker, case.sequence, case.row))
            decision = None if text is None else outcomes_decision(read_object(text))
            if text is not None and not isinstance(decision, dict):
                wrong[case.id] = not _is_same_class(decision, msgspec.json.decode(str(case.label)))
    return wrong


def _answers(project: Project, day: date, cases: Sequence[ReviewCase]) -> dict[tuple[str, int, int], str]:
    """What was answered, by place in the log."""
    from cumulant.serving.prediction_log.storage.log_reader import numbered_rows

    numbers, workers = [case.sequence for case in cases], {case.worker for case in cases}
    rows = numbered_rows(project.log(), day, numbers, workers)
    return {(row["worker"], row["sequence"], row["row"]): row["outputs"] for row in rows}


def _is_number(reader: CaseReader, version: tuple[str, str]) -> bool:
    """Whether that version predicts numbers; an unknown one is taken to predict classes."""
    described = reader.described(*version)
    return isinstance(described, Servable) and described.task == "regression"


def _hashed(value: object, salt: bytes) -> object:
    return value if value is None or is_masked(value) else mask(value, salt)


def _is_same_class(first: object, second: object) -> bool:
    """Whether two ways to write a class mean the same: 1 and 1.0, true and "true"."""
    if isinstance(first, int | float) and isinstance(second, int | float):
        return first == second
    return class_text(first) == class_text(second)


def _note(note: CaseNote, policy: ReviewPolicy, salt: bytes, viewer: str) -> dict[str, Any]:
    from cumulant.review.labels import reviewer_name

    who = note.reviewer if note.reviewer == viewer else reviewer_name(note.reviewer, policy, salt)
    return {"reviewer": who, "at": note.at, "text": note.text}


def _opinion(answer: ReviewAnswer, policy: ReviewPolicy, salt: bytes) -> dict[str, Any]:
    from cumulant.review.labels import reviewer_name

    return _answer_view(answer, reviewer_name(answer.reviewer, policy, salt))


def _answer_view(answer: ReviewAnswer, who: str) -> dict[str, Any]:
    label = None if answer.label is None else msgspec.json.decode(answer.label)
    return {"reviewer": who, "kind": answer.kind, "at": answer.at, "label": label}
