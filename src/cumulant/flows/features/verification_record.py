"""The last verification of a project's served features, as the journal keeps it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.features.verification import FeatureComparison, FeatureMismatch

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Transaction

#: journal rows: the last verification of a model
_VERIFICATION = "feature_verification"


class FeatureVerification(msgspec.Struct, frozen=True, kw_only=True):
    """Served features against the history since a moment. `rows`: that were compared; `logged`: that could be;
    `unknown`: whose definition or history is not there any more, or may have had a version of a corrected row that the
    log does not have any more; `uncompared`: that came after as many rows with differences as are explained.
    """

    model: str
    at: datetime
    since: datetime
    logged: int
    rows: int
    unknown: int
    uncompared: int = 0
    features: tuple[FeatureComparison, ...]
    mismatches: tuple[FeatureMismatch, ...] = ()

    @property
    def failed(self) -> bool:
        return any(feature.mismatches for feature in self.features)


def record_verification(transaction: Transaction, verification: FeatureVerification) -> None:
    transaction.put(_VERIFICATION, verification.model, msgspec.to_builtins(verification))


def last_verification(journal: Journal, model: str) -> FeatureVerification | None:
    """The last verification that compared rows; None where none did."""
    row = journal.get(_VERIFICATION, model)
    return None if row is None else msgspec.convert(row.value, FeatureVerification)
