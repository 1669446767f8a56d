"""The error of a source that breaks its contract; it carries the snapshot, so that the rows can be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import ContractBreachError

if TYPE_CHECKING:
    from cumulant.data.snapshot import Snapshot


class SourceBreachError(ContractBreachError):
    """A refused snapshot: `snapshot.breaches` says why, `snapshot.quarantine` holds the refused rows."""

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
