"""Rules of the data contract for the values of a request, and warnings for unseen categories."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import msgspec
import numpy as np

from cumulant.core.errors import join_names
from cumulant.core.plan import DType, Field
from cumulant.core.servable import Datatype, FieldRule, Servable
from cumulant.servable.encoder import category_of
from cumulant.servable.engine import DTYPES
from cumulant.serving.errors import HttpError
from cumulant.serving.protocol.request_schema import short_text

#: rows that a warning names
_NAMED = 5
#: characters of a text that is matched with a pattern: the time of a match grows faster than the text
_MOST_TEXT = 128
UNSEEN = "unseen"
MISSING = "missing"
NEGATIVE = "negative"
#: types of tensors that hold most numbers with decimals less exactly than a bound is declared
_NARROW: tuple[Datatype, ...] = ("FP16", "FP32")
Row = Mapping[str, Any]
#: the name of the rule that a value breaks; empty: none
Test = Callable[[Any], str]
#: field, or feature, and rule
Fault = tuple[str, str]


class RequestRules:
    """Checks rows that have the plan's types. `counts`: rows by the rule that they broke, as `amt:min`.

    With `refuse` a broken rule of the contract refuses the request. A category that the model has not seen, a missing
    value of a field that was never missing in training, or a negative one of a field that was never negative, breaks
    no rule of a contract, and only warns.
    """

    def __init__(self, servable: Servable, fields: Mapping[str, Field], *, refuse: bool) -> None:
        self.refuse = refuse
        self.counts: Counter[str] = Counter()
        self._fields, self._rules = fields, servable.rules
        #: field to the test of one value
        self.tests: Mapping[str, Test] = {
            name: _test(rule, fields[name].dtype) for name, rule in servable.rules.items() if name in fields
        }
        self._narrow: dict[tuple[str, str], Test] = {
            (name, datatype): _test(_widened(servable.rules[name], datatype), fields[name].dtype)
            for name in self.tests
            if fields[name].dtype in ("int", "float")
            for datatype in _NARROW
        }
        self._known = {
            encoded.feature: frozenset({None, *encoded.categories})
            for encoded in servable.inputs
            if encoded.feature in servable.closed
        }

        required = {name for name, rule in servable.rules.items() if rule.required}
        #: fields without which a row is unusual
        self.complete = tuple(name for name in servable.complete if name in fields and name not in required)
        limited = {name for name, rule in servable.rules.items() if rule.min is not None or rule.members is not None}
        #: fields of which a negative number is unusual
        self.nonnegative = tuple(name for name in servable.nonnegative if name in fields and name not in limited)

    @property
    def required(self) -> frozenset[str]:
        """Fields without which a request is refused."""
        return frozenset(name for name, rule in self._rules.items() if rule.required and self.refuse)

    def broken(self, rows: Sequence[Row], datatypes: Mapping[str, str] | None = None) -> dict[Fault, list[int]]:
        """Each broken rule with its rows, from 0. `datatypes`: of the tensors that the fields came in.

        Raises:
            HttpError: 422 where that refuses the request; names the first row, its field and the rule.
        """
        faults: dict[Fault, list[int]] = {}
        if not self.tests:
            return faults
        narrow = datatypes or {}
        tests = [(name, self._narrow.get((name, narrow.get(name, "")), test)) for name, test in self.tests.items()]
        for number, row in enumerate(rows):
            for name, test in tests:
                if rule := test(row[name]):
                    faults.setdefault((name, rule), []).append(number)
        if faults:
            self._count(faults)
            if self.refuse:
                raise self._refusal(faults, rows)
        return faults

    def unusual(
        self,
        rows: Sequence[Row],
        columns: Mapping[str, Sequence[Any]],
        broken: Mapping[Fault, list[int]],
    ) -> dict[Fault, list[int]]:
        """The broken rules, and warnings for missing or negative values and categories absent from training."""
        missing = self._missing(rows) if self.complete else {}
        negative = self._negative(rows) if self.nonnegative else {}
        unseen = self._unseen(columns, broken) if self._known else {}
        return {**broken, **missing, **negative, **unseen} if missing or negative or unseen else dict(broken)

    def _missing(self, rows: Sequence[Row]) -> dict[Fault, list[int]]:
        """Missing fields that were never missing in training, with their rows."""
        faults: dict[Fault, list[int]] = {}
        for number, row in enumerate(rows):
            if None in row.values():
                for name in self.complete:
                    if row[name] is None:
                        faults.setdefault((name, MISSING), []).append(number)
        self._count(faults)
        return faults

    def _negative(self, rows: Sequence[Row]) -> dict[Fault, list[int]]:
        """Negative fields that were never negative in training, with their rows."""
        faults: dict[Fault, list[int]] = {}
        for number, row in enumerate(rows):
            for name in self.nonnegative:
                value = row[name]
                if value is not None and value < 0:
                    faults.setdefault((name, NEGATIVE), []).append(number)
        self._count(faults)
        return faults

    def _unseen(
        self, columns: Mapping[str, Sequence[Any]], broken: Mapping[Fault, Sequence[int]]
    ) -> dict[Fault, list[int]]:
        """Categories that the model has not seen, with their rows; not where the field's set of values is broken."""
        faults: dict[Fault, list[int]] = {}
        for name, known in self._known.items():
            outside = frozenset(broken.get((name, "in"), ()))
            for number, value in enumerate(columns[name]):
                if not _is_known(value, known) and number not in outside:
                    faults.setdefault((name, UNSEEN), []).append(number)
        self._count(faults)
        return faults

    def unseen_values(self, feature: str, values: Iterable[Any]) -> list[Any]:
        """Values that are no known categories of the feature."""
        known = self._known.get(feature)
        return [] if known is None else [value for value in values if not _is_known(value, known)]

    def warnings(self, faults: Mapping[Fault, Sequence[int]], count: int) -> tuple[str, ...]:
        """One sentence a rule, for a request of `count` rows; no value is repeated."""
        return tuple(f"{_where(rows, count)}{self.sentence(*fault)}" for fault, rows in faults.items())

    def _count(self, faults: Mapping[Fault, Sequence[int]]) -> None:
        for (name, rule), rows in faults.items():
            self.counts[f"{name}:{rule}"] += len(rows)

    def sentence(self, name: str, rule: str) -> str:
        """Warning text of a rule, without its rows."""
        if rule == UNSEEN:
            return f"{name} has a value that the model has not seen, which it takes for a missing one"
        if rule == MISSING:
            return f"{name} is missing, which it was in no row of training"
        if rule == NEGATIVE:
            return f"{name} is negative, which it was in no row of training"
        return f"{name} breaks the data contract: it must {_demand(self._rules[name], rule)}"

    def _refusal(self, faults: Mapping[Fault, Sequence[int]], rows: Sequence[Row]) -> HttpError:
        (name, rule), numbers = min(faults.items(), key=lambda item: item[1][0])
        where = f"row {numbers[0] + 1}: " if len(rows) > 1 else ""
        message = f"{where}{self.demand(name, rule, rows[numbers[0]][name])}"
        hint = "correct the value, or leave the row out" if len(rows) > 1 else "correct the value and send it again"
        return HttpError(422, message, hint=hint)

    def demand(self, name: str, rule: str, value: object) -> str:
        """Error text for a value that breaks the rule, without the value of a personal field."""
        got = "" if self._fields[name].personal else short_text(value)
        return f'field "{name}" must {_demand(self._rules[name], rule)}{got and f", got {got}"} (rule {name}:{rule})'


def invalid_rows(faults: Mapping[Fault, Sequence[int]], count: int) -> list[str]:
    """For each row the rules that it breaks, as `amt:min,carrier:in`; empty where none does."""
    if not faults:
        return []
    rows: list[list[str]] = [[] for _ in range(count)]
    for (name, rule), numbers in faults.items():
        for number in numbers:
            rows[number].append(f"{name}:{rule}")
    return [",".join(broken) for broken in rows]


def _is_known(value: Any, known: frozenset[str | None]) -> bool:
    return value in known or category_of(value) in known


def _where(rows: Sequence[int], count: int) -> str:
    if count == 1:
        return ""
    return f"row{'s' * (len(rows) > 1)} {join_names([str(number + 1) for number in rows], _NAMED)}: "


def _demand(rule: FieldRule, broken: str) -> str:
    match broken:
        case "nulls":
            return "not be null, blank or infinite"
        case "min":
            return f"be at least {rule.min}"
        case "max":
            return f"be at most {rule.max}"
        case "in":
            return f"be one of {join_names([str(member) for member in rule.members or ()], _NAMED)}"
        case _:
            return f"match {rule.declared_pattern or rule.pattern}"


def _test(rule: FieldRule, dtype: DType) -> Test:
    low, high = _bound(rule.min, dtype), _bound(rule.max, dtype)
    members = None if rule.members is None else frozenset(rule.members)
    pattern = None if rule.pattern is None else re.compile(rule.pattern)
    nulls = "nulls" if rule.required else ""

    def test(value: Any) -> str:
        if value is None or (nulls and _is_unknown(value)):
            return nulls
        if low is not None and value < low:
            return "min"
        if high is not None and value > high:
            return "max"
        if members is not None and value not in members:
            return "in"
        if pattern is not None and _is_matched(pattern, value) and pattern.search(value) is None:
            return "pattern"
        return ""

    return test


def _is_unknown(value: Any) -> bool:
    """Whether a value counts as null: blank text, or an infinite number."""
    return not value.strip() if isinstance(value, str) else isinstance(value, float) and math.isinf(value)


def _widened(rule: FieldRule, datatype: Datatype) -> FieldRule:
    """The rule for a narrower type of numbers, where the number nearest to a bound or member stands for it too."""

    def rounded(number: Any) -> Any:
        with np.errstate(over="ignore"):
            return float(DTYPES[datatype].type(number)) if isinstance(number, (int, float)) else number

    return msgspec.structs.replace(
        rule,
        min=None if rule.min is None else min(rule.min, rounded(rule.min)),
        max=None if rule.max is None else max(rule.max, rounded(rule.max)),
        members=None if rule.members is None else (*rule.members, *map(rounded, rule.members)),
    )


def _is_matched(pattern: re.Pattern[str], text: str) -> bool:
    """Whether the pattern can be matched in a short time, with the same result as in the data checks."""
    return len(text) <= _MOST_TEXT and (not pattern.flags & re.ASCII or text.isascii())


def _bound(bound: float | str | None, dtype: DType) -> Any:
    if isinstance(bound, str):
        return datetime.fromisoformat(bound) if dtype == "time" else date.fromisoformat(bound)
    return bound
