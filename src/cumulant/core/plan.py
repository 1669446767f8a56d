"""The feature plan that a project's definitions compile to, as plain values; part of servables and identities."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import msgspec

from cumulant.core.expr import Node

#: Column types that packages exchange. `time` is UTC microseconds.
DType = Literal["bool", "int", "float", "str", "time", "date", "bytes"]
Aggregation = Literal["count", "sum", "mean", "min", "max", "std", "distinct", "last"]


class Field(msgspec.Struct, frozen=True):
    """A raw column of a source. Naive times of a source are read in `zone`."""

    name: str
    dtype: DType
    nullable: bool = True
    personal: bool = False
    zone: str | None = None


class KnownAt(msgspec.Struct, frozen=True):
    """When a column of a row becomes known: at a time column, or a delay after the event time.

    Without either, the column comes with the row: as an input of its own row it is known at the
    prediction, and in a window or lookup it counts from the row's event time on.
    """

    column: str | None = None
    delay_us: int = 0


class Corrections(msgspec.Struct, frozen=True):
    """Of a source whose latest row of a key counts: what orders the rows of a key, and which of them delete it.

    The latest time in the columns `known` is the known time of a row; without columns rows are ordered by arrival.
    `deletes` are the values of `marker` that delete, in their inside form.
    """

    known: tuple[Field, ...] = ()
    marker: Field | None = None
    deletes: tuple[bool | int | float | str, ...] = ()

    @property
    def fields(self) -> tuple[Field, ...]:
        return self.known if self.marker is None else (*self.known, self.marker)


class Source(msgspec.Struct, frozen=True):
    """What the plan must know of a source: its fields and their times; and, where later rows of a key correct earlier
    ones, how. Not set, that and the subject are no part of the encoded plan, so that the hashes of other plans stay.
    """

    name: str
    key: tuple[str, ...]
    event_time: str | None
    fields: tuple[Field, ...]
    known: dict[str, KnownAt] = {}
    corrections: Corrections | msgspec.UnsetType = msgspec.UNSET
    #: the column with the subject of each row, such as a customer
    subject: str | msgspec.UnsetType = msgspec.UNSET


class Lookup(msgspec.Struct, frozen=True):
    """The newest row of `source` with the same `by`, known at the prediction and at most `within_us` old."""

    source: str
    by: tuple[str, ...]
    column: str
    within_us: int | None


class Window(msgspec.Struct, frozen=True):
    """`agg` of `value` over the rows of `source` with the same `by` that became known in (t - span, t].

    A row becomes known when its event time has come and every column in `value` and `by` is known.
    `count` without a value counts rows; every other aggregation skips null values. Over no rows: count
    and distinct are 0, all others null. `std` is the sample standard deviation, null below two values.
    `last` takes the value that became known last; among equals the later row of the source.
    """

    source: str
    by: tuple[str, ...]
    agg: Aggregation
    value: Node | None
    span_us: int


class FeatureSpec(msgspec.Struct, frozen=True):
    """One named feature: an expression over the row (and other features), a lookup or a window."""

    name: str
    dtype: DType
    expr: Node | None = None
    lookup: Lookup | None = None
    window: Window | None = None
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()


class PredictAt(msgspec.Struct, frozen=True):
    """The moment of prediction: a time column of the entity source, plus an offset (may be negative)."""

    column: str
    offset_us: int = 0


class FeaturePlan(msgspec.Struct, frozen=True, dict=True):
    """Everything needed to compute features for rows of the `entity` source, offline or online.

    `features` are in dependency order; `request` are the raw fields a caller sends. What is derived from a plan may be
    kept in its `__dict__`, which is no part of what is equal or stored.
    """

    entity: str
    predict_at: PredictAt | None
    sources: dict[str, Source]
    features: tuple[FeatureSpec, ...]
    request: tuple[Field, ...]

    @property
    def needs_state(self) -> bool:
        """Whether any feature reads more than the row itself."""
        return any(feature.window is not None or feature.lookup is not None for feature in self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features, in order. A name with a leading underscore is a part of others, and no feature itself."""
        return tuple(feature.name for feature in self.features if not feature.name.startswith("_"))
