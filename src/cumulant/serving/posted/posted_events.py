"""Posted events, checked against the sources that the served plans read.

A body is `{"source": "flights", "rows": [{...}, ...]}`. Rows may be partial, except for the source's key: several
posts with the same key update one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from cumulant.core.errors import RequestError, did_you_mean
from cumulant.core.plan import FeaturePlan, Field
from cumulant.serving.protocol.request_schema import SourceSchema
from cumulant.serving.protocol.row_counts import check_count

_SCALARS = bool | int | float | str


class PostedEvents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that posts events."""

    source: str
    rows: list[Annotated[object, msgspec.Meta(extra_json_schema={"type": "object"})]]


class _Rows(msgspec.Struct, frozen=True):
    """Undecoded rows, to count them before they are decoded."""

    rows: list[msgspec.Raw] = []


class CheckedEvents(msgspec.Struct, frozen=True):
    """Rows to advance the state with, and their columns that no served plan reads, which are stored for later plans."""

    source: str
    rows: list[dict[str, object]]
    unread: list[str]


class EventSchema:
    """Checks posted rows against the source's fields in all served plans."""

    def __init__(self, plans: Sequence[FeaturePlan]) -> None:
        fields: dict[str, dict[str, Field]] = {}
        keys: dict[str, tuple[str, ...]] = {}
        self._corrected: set[str] = set()
        for plan in plans:
            measures = (spec.window or spec.lookup for spec in plan.features)
            for name in {measure.source for measure in measures if measure is not None}:
                source = plan.sources[name]
                fields.setdefault(name, {}).update({field.name: field for field in source.fields})
                if not isinstance(source.corrections, msgspec.UnsetType):
                    self._corrected.add(name)
                    fields[name].update({field.name: field for field in source.corrections.fields})
                keys[name] = source.key
        self._schemas = {name: SourceSchema(tuple(of.values()), keys[name]) for name, of in fields.items()}
        self._keyless = {name for name, key in keys.items() if not key}

    def read(self, body: bytes) -> CheckedEvents:
        """Raises RequestError: the body is no such object, or as `check`."""
        try:
            check_count(len(msgspec.json.decode(body, type=_Rows).rows))
            posted = msgspec.json.decode(body, type=PostedEvents)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(
                f"the body cannot be read ({error})", hint='post {"source": NAME, "rows": [{...}, ...]}'
            ) from None
        return self.check(posted.source, posted.rows)

    def check(self, source: str, rows: Sequence[object]) -> CheckedEvents:
        """Rows in the plans' types.

        Raises:
            RequestError: no served plan reads the source, it has no key, or a row does not fit: it names row and field.
        """
        check_count(len(rows))
        schema = self._schema(source)
        known: list[Any] = []
        others: list[dict[str, object]] = []
        for row in rows:
            own = {} if not isinstance(row, dict) else {k: v for k, v in row.items() if k in schema.fields}
            known.append(own if isinstance(row, dict) else row)
            others.append({k: v for k, v in row.items() if k not in own} if isinstance(row, dict) else {})
        checked = schema.rows(known)
        # Where a null corrects a value, a column that is left out must not become one.
        corrected = source in self._corrected
        complete = [
            {k: v for k, v in other.items() if isinstance(v, _SCALARS) or (v is None and corrected)}
            | ({k: v for k, v in row.items() if k in own} if corrected else row)
            for other, own, row in zip(others, known, checked, strict=True)
        ]
        return CheckedEvents(source, complete, sorted({name[:100] for other in others for name in other}))

    def _schema(self, source: str) -> SourceSchema:
        if source not in self._schemas:
            known = ", ".join(sorted(self._schemas)) or "none"
            raise RequestError(
                f'no served model looks back at a source "{source[:100]}"',
                subject=source[:100],
                hint=did_you_mean(source, self._schemas) or f"sources: {known}",
            )
        if source in self._keyless:
            raise RequestError(
                f"{source} has no key, so a row that is posted twice would count twice",
                subject=source,
                hint=f"declare key under data: {source}:, and train again",
            )
        return self._schemas[source]
