"""Posted rows as the plans that read their source need them, and the counts of their results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import msgspec

from cumulant.core.plan import Field
from cumulant.features.online.requests import RequestReader
from cumulant.features.online.state_writer import StateWriter, present_us
from cumulant.features.posted.group_events import first_moment
from cumulant.features.posted.posted_events import Inside, PostedRow, row_key
from cumulant.features.posted.row_versions import VersionRule, corrections_of


class AdvanceResult(msgspec.Struct, frozen=True):
    """Results of posted rows, each counted once.

    `duplicates`: no new value, or older than the version in force. Left out are `unkeyed` rows (a null in the key),
    `unused` ones (no measure reads their source), `future` ones (beyond the declared clock skew) and `early` ones
    (corrections before their known time, which can be posted then).
    """

    accepted: int = 0
    duplicates: int = 0
    unkeyed: int = 0
    unused: int = 0
    future: int = 0
    early: int = 0


class Post(NamedTuple):
    """Rows of a source that can be logged."""

    source: str
    rows: list[PostedRow]


class PostReader:
    """Posted rows as the plans of some tables need them, without those dated over `skew_us` ahead (None: no limit)."""

    def __init__(self, writers: Sequence[StateWriter], *, skew_us: int | None = None) -> None:
        self._skew_us = skew_us
        self._now_us = writers[0].now_us if writers else present_us
        self._dated: dict[str, list[Callable[[Inside], int | None]]] = {}
        fields: dict[str, dict[str, Field]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        #: sources that take corrections
        self._corrected: dict[str, VersionRule] = {}
        for writer in writers:
            for name in writer.sources:
                source = writer.plan.sources[name]
                fields.setdefault(name, {}).update({field.name: field for field in source.fields})
                if name in writer.versions:
                    corrections = corrections_of(source)
                    fields[name].update(
                        {} if corrections is None else {known.name: known for known in corrections.fields}
                    )
                    self._corrected[name] = writer.versions[name].rule
                self._keys[name] = source.key
                self._dated.setdefault(name, []).append(first_moment(writer.plan, name))
        self._readers = {name: RequestReader(tuple(of.values())) for name, of in fields.items()}

    def read(
        self, source: str, rows: Sequence[Mapping[str, object]], *, scored: bool = False
    ) -> tuple[Post, AdvanceResult]:
        """The rows that are accepted, and the count of the others. `scored`: rows of requests.

        Raises:
            RequestError: a value does not fit its field.
        """
        if source not in self._readers:
            return Post(source, []), AdvanceResult(unused=len(rows))
        keyed = self._read_rows(source, rows, scored=scored)
        present = [posted for posted in keyed if not self._ahead(source, posted.values)]
        return Post(source, present), AdvanceResult(unkeyed=len(rows) - len(keyed), future=len(keyed) - len(present))

    def is_ahead(self, source: str, row: Mapping[str, object]) -> bool:
        """Whether an acceptable row is left out because of its date.

        Raises:
            RequestError: a value does not fit its field.
        """
        posted = self._read_rows(source, [row]) if source in self._readers else []
        return any(self._ahead(source, each.values) for each in posted)

    def _ahead(self, source: str, values: Inside) -> bool:
        if self._skew_us is None:
            return False
        limit = self._now_us() + self._skew_us
        rule = self._corrected.get(source)
        known = [] if rule is None else [rule.known_time]
        return any((at := moment(values)) is not None and at > limit for moment in (*self._dated[source], *known))

    def _read_rows(self, source: str, rows: Sequence[Mapping[str, object]], *, scored: bool = False) -> list[PostedRow]:
        """Those that have their key."""
        names = self._keys[source]
        posted = []
        for row, read in zip(rows, self._readers[source].read_all(rows).all(), strict=True):
            key = [read[name] for name in names]
            if not key or None in key:
                continue
            nulls = row.keys() if source in self._corrected and not scored else ()
            values, other = read, dict[str, object]()
            if None in read.values():
                values = {name: value for name, value in read.items() if value is not None or name in nulls}
            if not row.keys() <= read.keys():
                plain = {name: _plain(row[name]) for name in row if name not in read}
                other = {name: v for name, v in plain.items() if v is not None or (name in nulls and row[name] is None)}
            posted.append(PostedRow(row_key(key), values, other, scored))
        return posted


def _plain(value: object) -> object:
    """A single value of a column that no plan reads, as it can be stored; None for what cannot."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) if -(2**63) <= value < 2**63 else None
    return value if isinstance(value, bool | str | bytes | date) else None
