"""Errors of a source that breaks its contract; they carry the snapshot, so that the rows can be inspected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import ContractBreachError, DataError

if TYPE_CHECKING:
    from cumulant.data.rules.row_checks import AbsentColumnError
    from cumulant.data.snapshot import Snapshot


class SourceBreachError(ContractBreachError):
    """A refused snapshot: `snapshot.breaches` are the reasons, `snapshot.quarantine` holds the refused rows."""

    def __init__(self, message: str, *, snapshot: Snapshot, hint: str) -> None:
        super().__init__(message, subject=snapshot.source, hint=hint)
        self.snapshot = snapshot

    def as_dict(self) -> dict[str, object]:
        checks = [msgspec.to_builtins(check) for check in self.snapshot.batch_checks]
        return super().as_dict() | {
            "breaches": list(self.snapshot.breaches),
            "batch_checks": checks,
            "unreadable": [{"url": file.url, "reason": file.reason} for file in self.snapshot.unreadable],
        }


def as_contract_breach(error: AbsentColumnError, previous: Snapshot | None) -> DataError | ContractBreachError:
    """`error` as a breach where the last accepted snapshot had the column: the data changed, not the declaration."""
    if previous is None or error.subject not in {field.name for field in previous.fields}:
        return error
    hint = f"fix the source, or declare another column; {error.hint}"
    return ContractBreachError(
        f"{error.message}; snapshot {previous.id[:12]} had it", subject=previous.source, hint=hint
    )
