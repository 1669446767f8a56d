"""Proposal of a declaration from the data, with a note for each assumption."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import polars as pl

from cumulant.core.errors import DataError, did_you_mean
from cumulant.data.files.user_frames import to_polars
from cumulant.data.proposal.personal_columns import is_personal_name, personal_columns, words_of
from cumulant.data.spec import EventTime, RuleSpec, SourceSpec
from cumulant.data.text import date_text
from cumulant.data.text.casts import EPOCH, column_casts, natural_type
from cumulant.data.text.text_types import WARNING, TextTypes

_TIME_WORDS = ("event", "timestamp", "datetime", "time", "date", "created", "occurred", "at", "ts")
_EPOCH_WORDS = ("epoch", "unix", "unixtime")
#: 2000 and 2035 in seconds since 1970 UTC, between which whole numbers under the name of a time are taken for one
_EPOCH = (EPOCH[0], 2_051_222_400)
_KEY_WORDS = ("id", "key", "uuid", "code", "number", "no")
_SET_LIMIT = 20
_SURE = 100
#: a column is taken for one that starts at 0 where its smallest value is at most this share of its largest
_NEAR_ZERO = 0.05
#: share of rows in which a time may not be after another, to count as the earlier of the two
_NEARLY_ALL = 0.95
#: two columns are times of the same rows where the median time between them is at most this share of their span,
_NEAR = 0.25
#: or at most the whole span where the second has at least this share of the first one's distinct values
_ALIKE = 0.5


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A declaration and the assumptions in it, each as one sentence.

    later: columns that are times of the same rows after the event, the latest first.
    """

    spec: SourceSpec
    notes: tuple[str, ...]
    later: tuple[str, ...] = ()


def infer(
    frame: object,
    *,
    path: str = "",
    time: str | None = None,
    key: Sequence[str] = (),
    target: str | None = None,
    quoted: Collection[str] = (),
    rules: bool = True,
) -> Proposal:
    """A proposed declaration for `frame` (what `read` gives, or a user's own).

    `time`, `key`, `target`: chosen by the user; the target gets no rules. `quoted`: columns whose quotes mark digits as
    text. Without `rules`, only missing marks, types, key, time and personal columns are proposed.

    Raises:
        DataError: a named column does not exist, or the frame has no rows.
    """
    rows = to_polars(frame, source=path or "frame")
    if not rows.height:
        raise DataError("there are no rows", subject=path or "frame", hint="give a source with rows")
    for name in (*key, *([time] if time else []), *([target] if target else [])):
        if name not in rows.columns:
            raise DataError(
                f'there is no column "{name}"',
                subject=name,
                hint=did_you_mean(name, rows.columns) or f"columns: {', '.join(rows.columns[:20])}",
            )
    return _Inference(rows, path, target, quoted).propose(time, tuple(key), rules=rules)


class _Inference:
    """The inference of a declaration from a frame, with its notes."""

    def __init__(self, rows: pl.DataFrame, path: str, target: str | None, quoted: Collection[str]) -> None:
        self._raw, self._path, self._target, self._quoted = rows, path, target, quoted
        self._notes: list[str] = []
        self._rules: dict[str, dict[str, Any]] = {}
        self._later: tuple[str, ...] = ()

    def propose(self, time: str | None, key: tuple[str, ...], *, rules: bool) -> Proposal:
        types = TextTypes(self._raw, self._quoted)
        missing = types.missing()
        types.propose(missing)
        self._rules, self._notes = types.rules, types.notes
        event = self._event_time(time)
        self._further_times(event, missing, key)
        self._rows = self._read(missing, event)
        keys = key or self._key(event)
        personal, notes = personal_columns(self._raw, self._rows, self._target)
        self._notes += notes
        if rules:
            self._ranges_and_sets({*keys, *personal, *([event.column] if event else [])})
        spec = SourceSpec(
            path=self._path,
            missing=missing,
            key=keys[0] if len(keys) == 1 else list(keys),
            event_time=event if event is None or event.zone else event.column,
            rules={name: RuleSpec(**values) for name, values in self._rules.items()},
            personal=personal,
        )
        return Proposal(spec=spec, notes=tuple(self._notes), later=self._later)

    def _event_time(self, named: str | None) -> EventTime | None:
        candidates = self._times()
        if not (named or candidates):
            self._notes.append("no column looks like the time of the event: rows have no order in time")
            return None
        column = named or self._earliest(candidates)
        if named in candidates or (named is None and len(candidates) > 1):
            self._later = tuple(later_columns(self._as_times(candidates), column))
        if named is None and len(candidates) > 1:
            rest = ", ".join([name for name in candidates if name != column][:3])
            self._notes.append(f"{WARNING}the event's time is {column} (not {rest}); `--time` sets another")
        elif named is None:
            self._notes.append(f"the event's time is {column}")
        if (rule := self._rules.get(column)) is not None:
            if "date_format" in rule:
                rule["type"] = "time"
            elif rule.get("type") in ("date", "time"):  # `event_time` declares as much
                del self._rules[column]
        if self._raw[column].dtype.is_numeric():
            self._notes.append(f"{column} holds {self._unit(column)} since 1970 (UTC) and is read as times")
            return EventTime(column=column)
        if self._has_zone(column):
            return EventTime(column=column)
        self._notes.append(f"times in {column} have no zone and are read as UTC")
        return EventTime(column=column, zone="UTC")

    def _earliest(self, candidates: Sequence[str]) -> str:
        """The first time of a row: when it is decided or shipped is after the event."""
        full = not self._raw[candidates[0]].null_count()
        likely = [
            name for name in candidates if (not self._raw[name].null_count()) == full and not is_personal_name(name)
        ]
        return earliest_column(self._as_times(likely)) if likely else candidates[0]

    def _times(self) -> list[str]:
        """Columns that hold times, the likeliest first: named like one, few nulls, many values."""
        ranked = []
        for place, (name, dtype) in enumerate(self._raw.schema.items()):
            values = self._raw[name]
            if isinstance(dtype, (pl.Datetime, pl.Date)):
                share = 1 - values.null_count() / values.len()
            elif isinstance(dtype, pl.String):
                share = self._parsed_share(name)
            elif name != self._target and self._is_epoch(name):
                share = 1 - values.null_count() / values.len()
            else:
                continue
            if share > 0.9:
                words = set(words_of(name))
                named = min(
                    (index for index, word in enumerate(_TIME_WORDS) if word in words), default=len(_TIME_WORDS)
                )
                ranked.append((share < 1, named == len(_TIME_WORDS), -values.n_unique(), named, place, name))
        return [name for *_, name in sorted(ranked)]

    def _is_epoch(self, name: str) -> bool:
        """Whether whole numbers under the name of a time are seconds or milliseconds since 1970, from 2000 to 2035."""
        words = set(words_of(name))
        if not self._raw[name].dtype.is_integer() or not words & {*_TIME_WORDS, *_EPOCH_WORDS}:
            return False
        low, high = self._raw[name].min(), self._raw[name].max()
        if not isinstance(low, int) or not isinstance(high, int):
            return False
        return any(_EPOCH[0] * unit <= low and high < _EPOCH[1] * unit for unit in (1, 1000))

    def _unit(self, name: str) -> str:
        high = self._raw[name].max()
        return "milliseconds" if isinstance(high, int | float) and high > EPOCH[1] else "seconds"

    def _further_times(self, event: EventTime | None, missing: list[str], key: tuple[str, ...]) -> None:
        for name in self._raw.columns:
            if name == self._target or (event is not None and name == event.column):
                continue
            if self._is_epoch(name):
                self._rules.setdefault(name, {})["type"] = "time"
                self._notes.append(f"{name} holds {self._unit(name)} since 1970 (UTC) and is read as times")
            elif name not in key and (text := self._iso(name, missing)) is not None:
                kind = "time" if date_text.has_clock(text) else "date"
                self._rules.setdefault(name, {})["type"] = kind
                self._notes.append(f"{name} is text that is read as {kind}s")

    def _iso(self, name: str, missing: list[str]) -> pl.Series | None:
        """The values of a text column that are neither blank nor missing, where all are ISO 8601."""
        if not isinstance(self._raw[name].dtype, pl.String) or name in self._rules:
            return None
        text = self._raw[name].str.strip_chars()
        text = text.filter(text.is_not_null() & (text != "") & ~text.is_in(missing))
        return text if text.len() and not self._as_time(text.to_frame()).null_count() else None

    def _parsed_share(self, name: str) -> float:
        sample = self._raw.select(name).filter(pl.col(name).is_not_null()).head(1000)
        if not sample.height:
            return 0.0
        return 1 - self._as_time(sample).null_count() / sample.height

    def _as_time(self, column: pl.DataFrame) -> pl.Series:
        [name] = column.columns
        rules = {name: RuleSpec(**self._rules.get(name, {}))}
        spec = SourceSpec(event_time=EventTime(column=name, zone="UTC"), rules=rules)
        [cast] = column_casts(column.schema, spec, self._path)
        return column.select(cast.expr).to_series()

    def _as_times(self, names: Sequence[str]) -> pl.DataFrame:
        times = [self._as_time(self._raw.select(name)).cast(pl.Datetime("us", "UTC")) for name in names]
        return pl.DataFrame(times)

    def _has_zone(self, column: str) -> bool:
        dtype = self._raw[column].dtype
        if isinstance(dtype, pl.String):
            readable = self._as_time(self._raw.select(column)).is_not_null()
            text = self._raw[column].filter(readable).str.strip_chars()
            return bool(text.str.contains(r"(?:[Zz]|[+-]\d{2}:?\d{2})$").all()) and bool(
                text.str.contains(":", literal=True).all()
            )
        return isinstance(dtype, pl.Datetime) and dtype.time_zone is not None

    def _read(self, missing: list[str], event: EventTime | None) -> pl.DataFrame:
        """The rows under the types proposed so far; nested columns stay out."""
        plain = [name for name, dtype in self._raw.schema.items() if natural_type(dtype) is not None]
        for name in self._raw.columns:
            if name not in plain:
                self._notes.append(f"{name} holds lists or structs: take parts of it in `prepare`, or drop it there")
        types = {name: RuleSpec(**values) for name, values in self._rules.items()}
        spec = SourceSpec(missing=missing, event_time=event, rules=types)
        rows = self._raw.select(plain)
        return rows.select([cast.expr for cast in column_casts(rows.schema, spec, self._path)])

    def _key(self, event: EventTime | None) -> tuple[str, ...]:
        """One column that identifies every row, named like an identifier or first; else none."""
        candidates = []
        for place, name in enumerate(self._rows.columns):
            values = self._rows[name]
            identifier = bool(set(words_of(name)) & set(_KEY_WORDS))
            if name == self._target or not isinstance(values.dtype, (pl.Int64, pl.String)):
                continue
            if not name.strip():
                continue  # the row numbers of a data frame: no request has them
            if (identifier or place == 0) and values.null_count() == 0 and values.is_unique().all():
                candidates.append((not identifier, place, name))
        if candidates:
            column = min(candidates)[2]
            self._notes.append(f"{column} identifies a row: it is never null and never repeats")
            return (column,)
        pair = self._pair(event)
        if pair:
            self._notes.append(f"{' and '.join(pair)} together identify a row: they never repeat")
        else:
            self._notes.append("no column identifies a row: repeats are not checked")
        return pair

    def _pair(self, event: EventTime | None) -> tuple[str, ...]:
        """One column that, with the event's time, identifies every row (a place, a device)."""
        if event is None or self._rows[event.column].null_count() or self._rows[event.column].is_unique().all():
            return ()
        times = {event.column, *self._times()}
        for name in self._rows.columns:
            values = self._rows[name]
            entity = isinstance(values.dtype, pl.String) or bool(set(words_of(name)) & set(_KEY_WORDS))
            if name == self._target or name in times or not entity or values.null_count():
                continue
            if not self._rows.select(pl.struct(name, event.column).is_duplicated().any()).item():
                return (name, event.column)
        return ()

    def _ranges_and_sets(self, without: Collection[str]) -> None:
        small = self._rows.height < _SURE
        if small:
            self._notes.append(f"{self._rows.height} rows are too few to propose ranges and sets")
            return
        for name in self._rows.columns:
            if name in without or name == self._target:
                continue
            values = self._rows[name].drop_nulls()
            if isinstance(values.dtype, pl.String):
                self._set(name, values)
                self._shape(name, values)
            elif values.dtype.is_numeric() and values.len():
                self._range(name, values)

    def _set(self, name: str, values: pl.Series) -> None:
        members = values.unique().sort()
        if 1 < members.len() <= _SET_LIMIT and values.len() >= 20 * members.len():
            self._rules.setdefault(name, {})["in_"] = members.to_list()
            self._notes.append(f"{name} takes {members.len()} values only")

    def _shape(self, name: str, values: pl.Series) -> None:
        """A pattern for codes: letters and digits in fixed places."""
        if "in_" in self._rules.get(name, {}) or values.n_unique() < _SURE // 2:
            return
        shapes = (
            values.str.replace_all(r"[A-Z]", "A").str.replace_all(r"[a-z]", "a").str.replace_all(r"\d", "9").unique()
        )
        if shapes.len() != 1 or len(shapes.item()) > _SET_LIMIT or not re.fullmatch(r"[Aa9_-]+", shapes.item()):
            return
        classes = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}
        runs = re.findall(r"A+|a+|9+|[_-]", shapes.item())
        parts = [classes.get(run[0], run[0]) + (f"{{{len(run)}}}" if len(run) > 1 else "") for run in runs]
        self._rules.setdefault(name, {})["pattern"] = f"^{''.join(parts)}$"
        self._notes.append(f"{name} always has the shape {''.join(parts)}")

    def _range(self, name: str, values: pl.Series) -> None:
        low, high = values.min(), values.max()
        if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
            return
        if values.dtype == pl.Int64 and (low, high) == (0, 1):
            self._rules.setdefault(name, {})["in_"] = [0, 1]
            self._notes.append(f"{name} is 0 or 1")
        if "in_" in self._rules.get(name, {}) or not 0 <= low <= _NEAR_ZERO * high:
            return
        rule = self._rules.setdefault(name, {})
        rule["min"] = 0
        if values.dtype.is_float() and 0 < high <= 1:
            rule["max"] = 1
        self._notes.append(f"{name} is never negative" + (" and at most 1" if "max" in rule else ""))


def earliest_column(times: pl.DataFrame) -> str:
    """The column that is first in nearly all rows, of those that compare; the first column where none is."""
    names = [name for name in times.columns if are_of_same_rows(times, times.columns[0], name)]
    return next((name for name in names if all(is_before(times, name, other) for other in names)), times.columns[0])


def later_columns(times: pl.DataFrame, event: str) -> Sequence[str]:
    """The columns that are after `event` in all rows that have both, the latest first."""
    after = [
        name
        for name in times.columns
        if name != event
        and is_before(times, event, name, share=1.0)
        and not is_before(times, name, event, share=_NEARLY_ALL)
    ]
    return sorted(after, key=lambda name: -sum(is_before(times, other, name) for other in after))


def is_before(times: pl.DataFrame, first: str, second: str, *, share: float = _NEARLY_ALL) -> bool:
    """Whether `first` is at or before `second` in that share of the rows; by day where one of them holds days."""
    pair = times.select(first, second) if first != second else times.select(first)
    if any(_holds_days(pair[name]) for name in pair.columns):
        pair = pair.select(pl.all().dt.truncate("1d"))
    in_order = (pair[first] <= pair[second]).drop_nulls()
    return in_order.len() > 0 and int(in_order.sum()) >= share * in_order.len()


def are_of_same_rows(times: pl.DataFrame, first: str, second: str) -> bool:
    """Whether two columns can be times of the same event rather than of a row's customer or batch."""
    apart = times.select((pl.col(first) - pl.col(second)).abs().median().dt.total_seconds()).item()
    span = times.select((pl.col(first).max() - pl.col(first).min()).dt.total_seconds()).item()
    if apart is None or span is None:
        return first == second
    alike = times[second].n_unique() >= _ALIKE * times[first].n_unique()
    return bool(apart <= (span if alike else _NEAR * span))


def _holds_days(times: pl.Series) -> bool:
    known = times.drop_nulls()
    return bool((known == known.dt.truncate("1d")).all())
