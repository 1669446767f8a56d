"""Decisions of a reviewer from a file: one case per row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, UsageError
from cumulant.flows.ledger.actions import verb
from cumulant.flows.review.service import decide, ingest_unless_locked, open_queue, session_reader
from cumulant.outcomes.labels import label_files

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


#: digits of an id at least: a running number of another table is short, and begins the id of some case
_LEAST_DIGITS = 6


class DecidedFile(msgspec.Struct, frozen=True, kw_only=True):
    """`problems`: unused rows by case, with the reason. `labelled`: cases that became labels."""

    decided: int
    labelled: int
    problems: dict[str, str]


@verb("review.answer", personal=True)  # as each `decide` in it
def decide_file(project: Project, path: Path, *, principal: Principal, clock: Clock | None = None) -> DecidedFile:
    """Decide the cases of a file with the columns `case` (id, or at least 6 first digits), `label` and perhaps `note`.

    A row that cannot be used stops no other. Read again, the file changes nothing.

    Raises:
        DataError: the file cannot be read, or is in no known format.
        UsageError: there is no queue.
    """
    reader, queue = session_reader(project), open_queue(project, clock=clock)
    decided, problems = 0, dict[str, str]()
    for line, row in (
        (line, row) for batch in label_files.read_numbered_batches(path) for line, row in zip(*batch, strict=True)
    ):
        name = f"{path.name}:{line}"
        try:
            case, label, note = _decision(row, name)
            name = case
            decide(
                project,
                queue.find_by_prefix(case).id,
                label,
                principal=principal,
                note=note,
                clock=clock,
                reader=reader,
                labels="later",
            )
            decided += 1
        except CumulantError as error:
            problems[name] = error.full_text
    labelled = ingest_unless_locked(project, principal=principal, clock=clock)
    return DecidedFile(decided=decided, labelled=labelled, problems=problems)


def _decision(row: object, name: str) -> tuple[str, object, str]:
    """Case, label and note. Raises UsageError where the row has no case or no label, or too little of the id."""
    if not isinstance(row, dict) or not row.get("case") or row.get("label") in (None, ""):
        raise UsageError("has no case or no label", subject=name, hint="the columns are case, label and note")
    case = str(row["case"])
    if len(case) < _LEAST_DIGITS:
        raise UsageError(
            f'"{case}" is no id of a case', subject=name, hint="write the id as `cumulant review list --json` gives it"
        )
    return case, row["label"], str(row.get("note") or "")
