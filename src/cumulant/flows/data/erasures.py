"""Which subjects were erased: rows of the journal, by which every later reading of a source leaves their rows out."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cumulant.data.erased_subjects import ErasedSubjects
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.project.project import Project

#: the kind of the rows; their key is `SOURCE/HASH` (`masking.mask`)
ERASED = "erased_subject"


class RecordedErasure(msgspec.Struct, frozen=True, kw_only=True):
    """An erased subject of a source.

    Attributes:
        at: when it was erased.
        admitted: when it was admitted again: rows of events after the erasure are read; None: none are.
        posted_rows_deleted: when rows that were posted of it were last deleted; online state that was filled earlier
            still holds them.
    """

    at: datetime
    admitted: datetime | None = None
    posted_rows_deleted: datetime | None = None


def read_erasure(journal: Journal | Transaction, source: str, subject: str) -> RecordedErasure | None:
    """The erasure of a subject, by its hash; None where there was none."""
    row = journal.get(ERASED, f"{source}/{subject}")
    return None if row is None else msgspec.convert(row.value, RecordedErasure)


def write_erasure(transaction: Transaction, source: str, subject: str, erasure: RecordedErasure) -> None:
    transaction.put(ERASED, f"{source}/{subject}", msgspec.to_builtins(erasure))


def erased_subjects(project: Project, name: str) -> ErasedSubjects | None:
    """The subjects whose rows of a source are left out; None: no subject, or none of them."""
    spec, rows = project.policies.sources[name].spec, project.journal().rows(ERASED, f"{name}/")
    if spec.subject is None or not rows:
        return None
    from cumulant.data.erased_subjects import ErasedSubjects

    erasures = {row.key.removeprefix(f"{name}/"): msgspec.convert(row.value, RecordedErasure) for row in rows}
    admitted = {subject: erasure.at for subject, erasure in erasures.items() if erasure.admitted is not None}
    return ErasedSubjects(spec.subject, frozenset(erasures), project.salt(), admitted, spec)
