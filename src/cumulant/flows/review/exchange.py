"""Export of cases and import of answers: Label Studio's JSON, or lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cumulant.core.clock import Clock
from cumulant.core.errors import CumulantError, DataError, UsageError
from cumulant.core.system.atomic_files import storage_errors
from cumulant.flows.ledger.actions import verb
from cumulant.flows.review.case_context import CaseReader
from cumulant.flows.review.service import check_name, ingest_decisions, label_text, open_queue
from cumulant.flows.review.views import CaseView, view
from cumulant.review import label_studio, transitions
from cumulant.review.cases import ReviewCase
from cumulant.review.policy import ReviewPolicy
from cumulant.review.queue import ReviewQueue
from cumulant.review.transitions import Reviewer

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

Format = Literal["label-studio", "jsonl"]


class ExportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was written; `interface` is the labelling interface for Label Studio."""

    cases: int
    file: str
    interface: str | None = None


class AnswerImport(msgspec.Struct, frozen=True, kw_only=True):
    """`problems`: what could not be used, and why, by case. `again` were answered by the same reviewer before."""

    decided: int
    skipped: int
    again: int
    labelled: int
    problems: dict[str, str]


@verb("review.show", personal=True)
def export_cases(
    project: Project,
    path: Path,
    *,
    principal: Principal,
    format: Format = "label-studio",  # noqa: A002 - the option's name
    status: str = "waiting",
) -> ExportResult:
    """Write cases with their requests; personal values stay keyed hashes, a blind queue's answers are left out.

    Raises:
        UsageError: there is no queue, or no such case; or the tasks would be where their interface goes.
        StorageError: the file cannot be written.
    """
    if format == "label-studio" and path.suffix.lower() == ".xml":
        raise UsageError(
            f"{path} is where the labelling interface goes",
            subject=str(path),
            hint=f"name the file of the tasks {path.with_suffix('.json').name}",
        )
    queue = open_queue(project)
    cases = (
        queue.open() if status == "waiting" else [entry for entry in queue.closed() if status in ("all", entry.status)]
    )
    if status == "all":
        cases = [*queue.open(), *cases]
    if not cases:
        raise UsageError(f"no case is {status}", subject=project.name, hint="`cumulant review fill` queues some")
    reader = CaseReader(project)
    reader.expect(cases)
    views = [view(project, entry, queue.policy, viewer=principal.id, reader=reader) for entry in cases]
    if format == "jsonl":
        lines = [_line(entry, case, queue.policy, project.salt()) for entry, case in zip(views, cases, strict=True)]
        _write(path, b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return ExportResult(cases=len(views), file=str(path))
    fields = label_studio.choose_keys(dict.fromkeys(name for entry in views for name in entry.request or {}))
    tasks = [_task(entry, fields) for entry in views]
    _write(path, msgspec.json.format(msgspec.json.encode(tasks), indent=2) + b"\n")
    interface = path.with_suffix(".xml")
    _write(interface, label_studio.build_interface(fields, views[0].labels).encode())
    return ExportResult(cases=len(views), file=str(path), interface=str(interface))


@verb("review.import")
def import_answers(
    project: Project, path: Path, *, principal: Principal, reviewer: str | None = None, clock: Clock | None = None
) -> AnswerImport:
    """Import annotations exported from Label Studio, each once; `reviewer`: the author where the file names none.

    Raises:
        DataError: the file cannot be read as such.
        UsageError: there is no queue.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", subject=str(path), hint="name the exported JSON file") from error
    queue, counts, problems = open_queue(project, clock=clock), dict.fromkeys(("decided", "skipped", "again"), 0), {}
    reader = CaseReader(project)
    for place, given in enumerate(label_studio.read_annotations(content, (), str(path))):
        who = Reviewer(_author(given.reviewer) or (check_name(reviewer) if reviewer else principal.id))
        try:
            counts[_take(project, queue, given, who, reader)] += 1
        except CumulantError as error:
            problems[given.case or f"annotation {place + 1}"] = error.message
    labelled = ingest_decisions(project, principal=principal, clock=clock)
    return AnswerImport(labelled=labelled, problems=problems, **counts)


def _take(
    project: Project, queue: ReviewQueue, given: label_studio.ImportedAnnotation, who: Reviewer, reader: CaseReader
) -> str:
    """`decided`, `skipped` or `again`. Raises UsageError, NotFoundError, LeaseHeldError."""
    if given.problem:
        raise UsageError(given.problem, subject=given.case)
    case = queue.find(given.case)
    kind = "skipped" if given.skipped else "decided"
    text = "" if given.skipped else label_text(project, case, given.label, reader)
    earlier = case.by(who.name)
    if earlier is not None and earlier.kind == kind and (given.skipped or earlier.label == text):
        return "again"
    if given.skipped:
        queue.move(case.id, who, kind, lambda current, now: transitions.skip(current, who, queue.policy, now))
    else:
        queue.move(case.id, who, kind, lambda current, now: transitions.decide(current, who, text, queue.policy, now))
    if given.note.strip():  # of an answer that was taken, so that reading the file again writes no note again
        queue.note(case.id, who, given.note)
    return kind


def _author(author: str) -> str:
    """A reviewer of the other tool, apart from those of this one."""
    return f"label-studio:{author}" if author else ""


def _task(case: CaseView, fields: Mapping[str, str]) -> dict[str, Any]:
    outputs = case.answer or {}
    meta = {"model": case.model, "deadline": case.deadline, "request": case.request_id, "row": case.row}
    score = outputs.get("probability", outputs.get("score"))
    return label_studio.build_task(
        case.id,
        case.request or {},
        classes=case.labels,
        meta=meta,
        fields=fields,
        answer=outputs.get("prediction"),
        score=score if isinstance(score, int | float) else None,
        version=case.version,
    )


def _line(shown: CaseView, case: ReviewCase, policy: ReviewPolicy, salt: bytes) -> dict[str, Any]:
    """A case and, where it is done, its label with provenance and weight."""
    line: dict[str, Any] = {
        "case": shown.id,
        "id": shown.request_id,
        "row": shown.row,
        "model": shown.model,
        "version": shown.version,
        "time": shown.time,
        "status": shown.status,
        "reasons": shown.reasons,
        "request": shown.request,
        "answer": shown.answer,
    }
    if case.status != "done":
        return line
    from cumulant.review.labels import SOURCE, to_label

    label = to_label(case, policy, salt)
    return {
        **line,
        "label": label.label,
        "known_time": label.known_time,
        "source": SOURCE,
        "reviewers": label.reviewers,
        "chance": label.chance,
        "weight": label.weight,
    }


def _write(path: Path, content: bytes) -> None:
    with storage_errors(path):
        path.write_bytes(content)
