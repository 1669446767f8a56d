"""The last verification of a project's served features, as the journal keeps it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec

from cumulant.features.verification import FeatureComparison, FeatureMismatch

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal, Transaction

#: journal rows: the last verification of a model that compared rows, and the last that could compare none
_VERIFICATION, _WITHOUT_ROWS = "feature_verification", "feature_verification_without_rows"


class FeatureVerification(msgspec.Struct, frozen=True, kw_only=True):
    """Served features against the history since a moment. `rows`: that were compared; `logged`: that could be;
    `unknown`: whose definition or history is not there any more, or may have had a version of a corrected row that the
    log does not have any more; `uncompared`: that came after as many rows with differences as are explained;
    `incomplete`: whose answers said that features may lack events.
    """

    #: why rows are `unknown`, as the command line and the console say it
    WHY_UNKNOWN: ClassVar[str] = (
        "the version of each or its rows are not there any more, or rows were corrected since, so often or so long ago "
        "that what they were is not stored any more"
    )

    WHY_INCOMPLETE: ClassVar[str] = (
        "each is for a moment before what was stored of its key began, so that windows may lack events: the answer and "
        "the prediction log name the features (`incomplete`)"
    )

    model: str
    at: datetime
    since: datetime
    logged: int
    rows: int
    unknown: int
    uncompared: int = 0
    incomplete: int = 0
    features: tuple[FeatureComparison, ...]
    mismatches: tuple[FeatureMismatch, ...] = ()

    @property
    def failed(self) -> bool:
        return any(feature.mismatches for feature in self.features)


def record_verification(transaction: Transaction, verification: FeatureVerification) -> None:
    kind = _VERIFICATION if verification.rows else _WITHOUT_ROWS
    transaction.put(kind, verification.model, msgspec.to_builtins(verification))


def last_verification(journal: Journal, model: str) -> FeatureVerification | None:
    """The last verification that compared rows; None where none did."""
    return _read(journal, _VERIFICATION, model)


def later_without_rows(journal: Journal, model: str) -> FeatureVerification | None:
    """The last verification, where it could compare no row."""
    empty, compared = _read(journal, _WITHOUT_ROWS, model), last_verification(journal, model)
    return None if empty is None or (compared is not None and compared.at > empty.at) else empty


def _read(journal: Journal, kind: str, model: str) -> FeatureVerification | None:
    row = journal.get(kind, model)
    return None if row is None else msgspec.convert(row.value, FeatureVerification)
