"""Subjects whose rows are left out when a source is read: dropped after `prepare`, as if it had dropped them."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from cumulant.core.ids import digest
from cumulant.core.masking import mask
from cumulant.data.prepare import Prepare


@dataclass(frozen=True)
class ErasedSubjects:
    """The subjects of a source by the keyed hashes of their values in `column`; the values are not stored."""

    column: str
    hashes: frozenset[str]
    salt: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        return digest([self.column, sorted(self.hashes)])

    def without(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of all other subjects."""
        if self.column not in rows.columns:
            return rows
        texts = rows[self.column].cast(pl.String, strict=False)
        erased = [text for text in texts.unique().drop_nulls() if mask(text, self.salt) in self.hashes]
        return rows.filter(~texts.is_in(erased).fill_null(value=False)) if erased else rows


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
