"""The row of the journal with the definition that was backfilled last, whose table no version may use yet."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cumulant.ports.journal import Transaction
    from cumulant.project.project import Project

#: journal rows, one a project
_BACKFILL, _LAST = "feature_backfill", "last"


class BackfillRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`plan`: the digest of the definition; `table`: where its stored features are; `at`: when that was done."""

    plan: str
    table: str
    at: datetime


def record_backfill(transaction: Transaction, record: BackfillRecord) -> None:
    transaction.put(_BACKFILL, _LAST, msgspec.to_builtins(record))


def backfilled_plan(project: Project) -> str | None:
    """The digest of the definition that was backfilled last; None where none was."""
    row = project.journal().get(_BACKFILL, _LAST)
    return None if row is None else msgspec.convert(row.value, BackfillRecord).plan
