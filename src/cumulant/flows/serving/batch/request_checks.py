"""The server's checks of requests (`serving.rules`) over the columns of a file, counted by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cumulant.core.errors import RequestError
from cumulant.serving.protocol.request_rules import MISSING, NEGATIVE, UNSEEN, Fault, RequestRules, Test

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.servable import FieldRule, Servable

#: text that `str.strip` leaves nothing of
_BLANK = r"^[\s\x1c-\x1f]*$"


class ColumnChecks:
    """Tests each distinct value of a column once. With `refuse` a broken rule of the contract refuses the file."""

    def __init__(self, servable: Servable, *, refuse: bool) -> None:
        self.refuse = refuse
        self._servable = servable
        self._rules = RequestRules(servable, {field.name: field for field in servable.plan.request}, refuse=refuse)

    def faults(self, fields: pl.DataFrame, features: pl.DataFrame, *, first: int = 0) -> Counter[Fault]:
        """Rows by field, or feature, and the rule that they break. `first` is the number of rows before these.

        Raises:
            RequestError: such a row is refused; names the first one of these, its field and the rule.
        """
        broken = self._broken(fields)
        if broken and self.refuse:
            raise self._refusal(fields, broken, first)
        counts = Counter({fault: int(rows.sum()) for fault, rows in broken.items()})
        for name in self._rules.complete:
            counts[name, MISSING] = _missing(fields[name]) if name in fields.columns else fields.height
        for name in self._rules.nonnegative:
            if name in fields.columns:
                counts[name, NEGATIVE] = int((fields[name] < 0).sum())
        for name in self._servable.closed:
            column = features[name]
            unseen = self._rules.unseen_values(name, column.unique().to_list())
            rows = _among(column, unseen)
            counts[name, UNSEEN] = int((rows & ~broken[name, "in"] if (name, "in") in broken else rows).sum())
        return +counts

    def warnings(self, counts: Mapping[Fault, int], rows: int) -> tuple[str, ...]:
        """One sentence a rule; no value is repeated."""
        return tuple(f"{count:,} of {rows:,} rows: {self._rules.sentence(*fault)}" for fault, count in counts.items())

    def _broken(self, fields: pl.DataFrame) -> dict[Fault, pl.Series]:
        """Each broken rule with its rows, as a mask."""
        import polars as pl

        masks: dict[Fault, pl.Series] = {}
        for name, test in self._rules.tests.items():
            if name not in fields.columns:
                if rule := test(None):
                    masks[name, rule] = pl.Series([True]).new_from_index(0, fields.height)
                continue
            bad: dict[str, list[Any]] = {}
            for value in _distinct(fields[name], self._servable.rules[name], test):
                if rule := test(value):
                    bad.setdefault(rule, []).append(value)
            for rule, values in bad.items():
                masks[name, rule] = _among(fields[name], values)
        return masks

    def _refusal(self, fields: pl.DataFrame, broken: Mapping[Fault, pl.Series], first: int) -> RequestError:
        (name, rule), rows = min(broken.items(), key=lambda item: item[1].arg_true()[0])
        number = rows.arg_true()[0]
        value = fields[name][number] if name in fields.columns else None
        return RequestError(
            f"row {first + number + 1:,}: {self._rules.demand(name, rule, value)}",
            subject=name,
            hint="correct the values, or leave the rows out; `serving: {invalid: warn}` scores them with a warning",
        )


def _missing(column: pl.Series) -> int:
    """How many values features take for missing: NaN and infinite numbers too."""
    if not column.dtype.is_float():
        return column.null_count()
    return len(column) - int(column.is_finite().sum())


def _among(column: pl.Series, values: list[Any]) -> pl.Series:
    """Which of the column's values are among these, as a mask."""
    import polars as pl

    return column.is_in(pl.Series(values, dtype=column.dtype).implode(), nulls_equal=True)


def _distinct(column: pl.Series, rule: FieldRule, test: Test) -> list[Any]:
    """The values to test: of bounded ones the smallest, the largest and blank texts."""
    import polars as pl

    if rule.members is None and rule.pattern is None:
        ends = [column.min(), column.max(), *([None] if column.null_count() else [])]
        blank = rule.required and column.dtype == pl.String and column.str.contains(_BLANK).any()
        if not blank and not any(map(test, ends)):
            return []
    return column.unique(maintain_order=True).to_list()
