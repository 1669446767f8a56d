"""The feature plan that a project's definitions compile to, as plain values; part of servables and identities."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Literal

import msgspec

from cumulant.core.errors import IntegrityError
from cumulant.core.expr import Call, Node, walk

#: Column types that packages exchange. `time` is UTC microseconds.
DType = Literal["bool", "int", "float", "str", "time", "date", "bytes"]
Aggregation = Literal["count", "sum", "mean", "min", "max", "std", "distinct", "last"]
#: an order of rows other than that in which they became known
RowOrder = Literal["event_time"]

#: the newest form of stored plans that this version reads and writes
PLAN_FORMAT = 1
#: operators (`op:NAME`), aggregations (`agg:NAME`), what decides which rows count (`rows:NAME`) and their orders
#: (`order:NAME`) that came after operator set 1, with the set that added them
LATER: dict[str, int] = {"rows:sequence": 2, "order:event_time": 3}
#: the newest operator set that this version computes
OPERATOR_SET = max([1, *LATER.values()])


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

    The latest time in the columns `known` is the known time of a row, of rows with one known time the greater value of
    `sequence` is later; rows without a known time are ordered by arrival. `deletes` are the values of `marker` that
    delete, in their inside form. A `sequence` that is not set is no part of the encoded plan.
    """

    known: tuple[Field, ...] = ()
    marker: Field | None = None
    deletes: tuple[bool | int | float | str, ...] = ()
    sequence: Field | msgspec.UnsetType = msgspec.UNSET

    @property
    def fields(self) -> tuple[Field, ...]:
        marker = () if self.marker is None else (self.marker,)
        return (*self.order, *marker)

    @property
    def order(self) -> tuple[Field, ...]:
        """The columns that order the rows of a key."""
        return self.known if isinstance(self.sequence, msgspec.UnsetType) else (*self.known, self.sequence)


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
    """The last row of `source` with the same `by`, known at the prediction and at most `within_us` old.

    Rows are in the order of (known time, event time, row identity), as for `last` of a window, and their age counts
    from the known time. With the order `event_time` they are in that of (event time, known time, row identity), and
    their age counts from the event time. An order that is not set is no part of the encoded plan.
    """

    source: str
    by: tuple[str, ...]
    column: str
    within_us: int | None
    order: RowOrder | msgspec.UnsetType = msgspec.UNSET


class Window(msgspec.Struct, frozen=True):
    """`agg` of `value` over the rows of `source` with the same `by` that became known in (t - span, t].

    A row becomes known when its event time has come and every column in `value` and `by` is known.
    `count` without a value counts rows; every other aggregation skips null values. Over no rows: count
    and distinct are 0, all others null. `std` is the sample standard deviation, null below two values.
    `last` takes the value of the last row in the order of (known time, event time, row identity), or with the order
    `event_time` in that of (event time, known time, row identity). An order that is not set is no part of the encoded
    plan.
    """

    source: str
    by: tuple[str, ...]
    agg: Aggregation
    value: Node | None
    span_us: int
    order: RowOrder | msgspec.UnsetType = msgspec.UNSET


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


class PlanVersions(msgspec.Struct, frozen=True):
    """The versions of a stored plan, which are read before the rest: other versions of the rest may not be readable."""

    format: int = 1
    operators: int = 1

    def check(self, plan: str) -> None:
        """Refuse a plan that is newer than this version of Cumulant. `plan` names it in the message.

        Raises:
            IntegrityError: the format or the operator set is newer.
        """
        if self.format > PLAN_FORMAT or self.operators > OPERATOR_SET:
            raise IntegrityError(
                f"{plan} has format {self.format} and operator set {self.operators}; this version of Cumulant reads "
                f"up to format {PLAN_FORMAT} and operator set {OPERATOR_SET}",
                subject=plan,
                hint="install the version of Cumulant that wrote it, or train and package again with this one",
            )


class FeaturePlan(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """Everything needed to compute features for rows of the `entity` source, offline or online.

    `features` are in dependency order; `request` are the raw fields a caller sends. What is derived from a plan may be
    kept in its `__dict__`, which is no part of what is equal or stored. `format` is the version of the stored form,
    `operators` the smallest operator set with all that the plan uses. A version 1 is not written, so that plans from
    before there were versions keep their hashes.
    """

    entity: str
    predict_at: PredictAt | None
    sources: dict[str, Source]
    features: tuple[FeatureSpec, ...]
    request: tuple[Field, ...]
    format: int = 1
    operators: int = 1

    @property
    def needs_state(self) -> bool:
        """Whether any feature reads more than the row itself."""
        return any(feature.window is not None or feature.lookup is not None for feature in self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features, in order. A name with a leading underscore is a part of others, and no feature itself."""
        return tuple(feature.name for feature in self.features if not feature.name.startswith("_"))


def operator_set(features: Iterable[FeatureSpec], sources: Iterable[Source] = ()) -> int:
    """The smallest operator set that has every operator and aggregation of `features`, and what orders their rows."""
    sets = [1]
    for source in sources:
        corrections = source.corrections
        if not isinstance(corrections, msgspec.UnsetType) and corrections.sequence is not msgspec.UNSET:
            sets.append(LATER["rows:sequence"])
    for feature in features:
        window = feature.window
        measure = window or feature.lookup
        if measure is not None and measure.order is not msgspec.UNSET:
            sets.append(LATER[f"order:{measure.order}"])
        if window is not None:
            sets.append(LATER.get(f"agg:{window.agg}", 1))
        for node in (feature.expr, None if window is None else window.value):
            parts = () if node is None else walk(node)
            sets += [LATER.get(f"op:{part.op}", 1) for part in parts if isinstance(part, Call)]
    return max(sets)


def read_plan(value: object) -> FeaturePlan:
    """A stored plan, from JSON values.

    Raises:
        IntegrityError: a newer version of Cumulant wrote it.
        msgspec.ValidationError: it is no plan.
    """
    msgspec.convert(value, PlanVersions).check("the feature plan")
    return msgspec.convert(value, FeaturePlan)
