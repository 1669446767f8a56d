"""Subjects whose rows are left out when a source is read: dropped after `prepare`, as if it had dropped them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from cumulant.core.ids import digest
from cumulant.core.masking import mask
from cumulant.data.prepare import Prepare
from cumulant.data.spec import SourceSpec
from cumulant.data.text.casts import column_casts


@dataclass(frozen=True)
class ErasedSubjects:
    """The subjects of a source by the keyed hashes of their values in `column`; the values are not stored.

    `admitted`: of those who came back, the moment from which on rows are theirs again, by the event time of `spec`.
    """

    column: str
    hashes: frozenset[str]
    salt: bytes = field(repr=False)
    admitted: Mapping[str, datetime] = field(default_factory=dict, hash=False)
    spec: SourceSpec = field(default_factory=SourceSpec, hash=False)

    @property
    def digest(self) -> str:
        admitted = [[name, moment.isoformat()] for name, moment in sorted(self.admitted.items())]
        return digest([self.column, sorted(self.hashes), *([admitted] if admitted else [])])

    def without(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of all other subjects."""
        if self.column not in rows.columns:
            return rows
        texts = rows[self.column].cast(pl.String, strict=False)
        hashes = {text: mask(text, self.salt) for text in texts.unique().drop_nulls()}
        erased = [text for text, name in hashes.items() if name in self.hashes]
        if not erased:
            return rows
        dropped = texts.is_in(erased).fill_null(value=False)
        returned = {text: self.admitted[hashes[text]] for text in erased if hashes[text] in self.admitted}
        if returned and self.spec.time is not None and self.spec.time.column in rows.columns:
            moments = self._moments(rows, self.spec.time.column)
            for text, since in returned.items():
                dropped &= ~((texts == text) & (moments >= since)).fill_null(value=False)
        return rows.filter(~dropped)

    def _moments(self, rows: pl.DataFrame, column: str) -> pl.Series:
        """When the rows happened; null where that cannot be read, so that such a row is not admitted."""
        (cast,) = column_casts({column: rows.schema[column]}, self.spec, column)
        return rows.select(cast.expr.alias(column))[column]


@dataclass(frozen=True)
class FilteredPrepare:
    """`prepare` of a source, where there is one, and then the rows of erased subjects dropped."""

    prepare: Prepare | None
    erased: ErasedSubjects
    name: str
    digest: str

    def __call__(self, raw: pl.DataFrame) -> pl.DataFrame:
        return self.erased.without(raw if self.prepare is None else self.prepare(raw))


def without_erased(prepare: Prepare | None, erased: ErasedSubjects | None) -> Prepare | FilteredPrepare | None:
    """What prepares the rows of a source, so that those of erased subjects are dropped."""
    if erased is None:
        return prepare
    name, code = ("erasures", "") if prepare is None else (prepare.name, prepare.digest)
    return FilteredPrepare(prepare, erased, name, digest([code, erased.digest]))
