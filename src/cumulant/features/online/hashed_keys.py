"""Keys of personal columns in online state: keyed hashes in place of the values.

Windows and lookups need keys to be equal, not to be read. So rows, frames and the plan get a text in place of each such
value before anything is stored, and the state, the log of posted rows and the identities of rows hold no other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from cumulant.core import expr
from cumulant.core.errors import UsageError
from cumulant.core.ids import digest, short
from cumulant.core.masking import fingerprint, mask
from cumulant.core.plan import FeaturePlan, Field, Lookup, Source
from cumulant.features.online.requests import RequestReader, python_converter

if TYPE_CHECKING:
    import polars as pl

Row = Mapping[str, object]


def hashed_columns(plan: FeaturePlan) -> frozenset[str]:
    """The personal columns that are keys of rows, windows or lookups, and of which no feature reads the value."""
    keys = {name for source in plan.sources.values() for name in source.key}
    read = {plan.predict_at.column} if plan.predict_at is not None else set[str]()
    for spec in plan.features:
        measure = spec.window or spec.lookup
        if measure is not None:
            keys |= {*measure.by}
        if isinstance(measure, Lookup):
            read.add(measure.column)
        for node in (spec.expr, None if spec.window is None else spec.window.value):
            read |= set() if node is None else expr.columns(node)
    for source in plan.sources.values():
        read |= {source.event_time} if source.event_time else set()
        read |= {known.column for known in source.known.values() if known.column is not None}
        if not isinstance(source.corrections, msgspec.UnsetType):
            read |= {field.name for field in source.corrections.fields}
    personal = {field.name for source in plan.sources.values() for field in source.fields if field.personal}
    personal |= {field.name for field in plan.request if field.personal}
    return frozenset(keys & personal - read)


class HashedKeys:
    """The keys of one plan: `plan` is the one that the state is of.

    Raises:
        UsageError: keys are personal, and there is no salt.
    """

    def __init__(self, plan: FeaturePlan, salt: bytes) -> None:
        self._names, self._salt = hashed_columns(plan), salt
        if self._names and not salt:
            raise UsageError(
                f"stored features are by keyed hashes of {', '.join(sorted(self._names))}, and no salt is given",
                subject=plan.entity,
                hint="give the salt of the environment, as CUMULANT_SALT or with --salt-file FILE",
            )
        fields = {name: source.fields for name, source in plan.sources.items()}
        self._readers = {name: self._readers_of(own) for name, own in fields.items()}
        self._request = self._readers_of(plan.request)
        self.plan = plan if not self._names else self._hashed_plan(plan)

    @classmethod
    def of(cls, plan: FeaturePlan, salt: Callable[[], bytes]) -> Self:
        """As the constructor; the salt is read only where a key is hashed."""
        return cls(plan, salt() if hashed_columns(plan) else b"")

    @property
    def active(self) -> bool:
        """Whether any key is hashed."""
        return bool(self._names)

    @property
    def names(self) -> frozenset[str]:
        """The columns whose values are hashed."""
        return self._names

    def log_scope(self, name: str) -> str:
        """The scope of logs of posted rows: `name`, apart for each set of hashed columns and salt."""
        if not self._names:
            return name
        return f"{name}.{short(digest([sorted(self._names), fingerprint(self._salt)]))}"

    def requests(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Raw request rows with hashes. Raises RequestError: a value does not fit its field."""
        return [self._row(row, self._request) for row in rows] if self._names else rows

    def rows(self, source: str, rows: Sequence[Row]) -> Sequence[Row]:
        """Raw rows of a source with hashes. Raises RequestError: a value does not fit its field."""
        readers = self._readers.get(source)
        return [self._row(row, readers) for row in rows] if self._names and readers else rows

    def key(self, key: Row) -> Row:
        """A key of windows and lookups with hashes; values may be texts, as on a command line."""
        return {name: mask(value, self._salt) if name in self._names else value for name, value in key.items()}

    def frames(self, frames: Mapping[str, pl.LazyFrame | pl.DataFrame]) -> Mapping[str, pl.LazyFrame | pl.DataFrame]:
        """Rows of sources with hashes."""
        if not self._names:
            return frames
        return {name: self._frame(frame, self._readers.get(name, {})) for name, frame in frames.items()}

    def _readers_of(self, fields: Iterable[Field]) -> dict[str, tuple[RequestReader, Any]]:
        """By hashed column, what reads its values, and what converts them to those of a frame."""
        return {
            field.name: (RequestReader([field]), python_converter(field.dtype))
            for field in fields
            if field.name in self._names
        }

    def _row(self, row: Row, readers: Mapping[str, tuple[RequestReader, Any]]) -> Row:
        hashed: dict[str, object] = {}
        for name, (reader, convert) in readers.items():
            if row.get(name) is not None:
                value = reader.read(row)[name]
                inside = value if value is None or convert is None else convert(value)
                hashed[name] = None if inside is None else mask(inside, self._salt)
        return {**row, **hashed} if hashed else row

    def _frame(self, frame: pl.LazyFrame | pl.DataFrame, names: Container[str]) -> pl.LazyFrame | pl.DataFrame:
        import polars as pl

        def hashed(values: pl.Series) -> pl.Series:
            unique = values.unique().drop_nulls()
            texts = pl.Series([mask(value, self._salt) for value in unique.to_list()], dtype=pl.String)
            return values.replace_strict(unique, texts, default=None, return_dtype=pl.String)

        present = [name for name in frame.lazy().collect_schema().names() if name in names]
        return frame.with_columns(
            pl.col(name).map_batches(hashed, return_dtype=pl.String, is_elementwise=True) for name in present
        )

    def _hashed_plan(self, plan: FeaturePlan) -> FeaturePlan:
        sources = {name: self._hashed_source(source) for name, source in plan.sources.items()}
        return msgspec.structs.replace(plan, sources=sources, request=self._hashed_fields(plan.request))

    def _hashed_source(self, source: Source) -> Source:
        return msgspec.structs.replace(source, fields=self._hashed_fields(source.fields))

    def _hashed_fields(self, fields: Iterable[Field]) -> tuple[Field, ...]:
        return tuple(
            msgspec.structs.replace(field, dtype="str", zone=None) if field.name in self._names else field
            for field in fields
        )
