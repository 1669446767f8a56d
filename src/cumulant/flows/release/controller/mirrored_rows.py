"""Mirrored rows that both arms scored, from the prediction log, each counted once.

A row of the log can be read some seconds after its answer. A look therefore reads up to a moment that lies `settle`
back, and the next look goes on from that moment: the mark. Nothing else need be remembered, so a controller that was
killed counts no pair twice. A pair whose second half comes later than `settle` is not counted at all.

Clocks of machines may differ: where many copies are without the champion's rows, halves are sought further back, by
name.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.traffic import CANDIDATE, CHAMPION, Arm
from cumulant.core.units import from_micros
from cumulant.ports.log import Log
from cumulant.release.evidence.look import ScorePair

if TYPE_CHECKING:
    from cumulant.release.state import Release

_SECOND = 1_000_000
#: between the two answers of one mirrored request
_APART = 15 * _SECOND
#: the same where clocks of machines differ
FAR_APART = 120 * _SECOND
#: a larger share of copies without the champion's row is not of those at the ends of the time that is read
_FEW = 0.1
#: pairs of one look; more are left out, the earliest first
_MOST = 200_000
_COLUMNS = ("id", "row", "time", "model", "version", "arm", "served_arm", "shadow", "request", "outputs", "latency_us")

Row = dict[str, Any]


class MirroredEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found: pairs, the candidate's answers of another shape, and each arm's own rows."""

    pairs: tuple[ScorePair, ...] = ()
    misshapen: int = 0
    rows: dict[str, list[Row]] = {}


def read_mirrored(log: Log, release: Release, *, after: int, until: int, arms: bool = False) -> MirroredEvidence:
    """Pairs completed in (after, until], microseconds since 1970 UTC. With `arms`, each arm's rows of that time too.

    Raises:
        StorageError: the log cannot be read.
    """
    if until <= after or not log.days():
        return MirroredEvidence()
    rows = _read_rows(log, release, after - _APART, until)
    rows += _far_halves(log, release, rows, after)
    fresh = [two for two in _join_pairs(rows, release) if max(row["time"] for row in two) > after][-_MOST:]
    pairs = [compare_answers(_outputs(row), _outputs(other)) for row, other in fresh]
    own = _rows_by_arm(rows, after, shadow=not release.step.weight) if arms else {}
    misshapen = sum(pair is None for pair in pairs)
    return MirroredEvidence(pairs=tuple(pair for pair in pairs if pair), misshapen=misshapen, rows=own)


def _far_halves(log: Log, release: Release, rows: Sequence[Row], after: int) -> list[Row]:
    """Rows of before those that were read, with the names of new ones whose other half is not among them."""
    copies = {row["id"] for row in rows if row["shadow"] and _of(release.candidate, row)}
    answered = {row["id"] for row in rows if not row["shadow"] and _of(release.champion, row)}
    if not release.mirror or (copies and len(copies - answered) <= _FEW * len(copies)):
        return []
    single = copies ^ answered
    names = {row["id"] for row in rows if row["time"] > after and row["id"] in single}
    return _read_rows(log, release, after - FAR_APART, after - _APART, names) if names else []


def _join_pairs(rows: Sequence[Row], release: Release) -> Iterator[tuple[Row, Row]]:
    """Each mirrored row with the champion's of the same name that is nearest in time: servers of an older version took
    names from callers, who may use one again.
    """
    answered: dict[tuple[str, int], list[Row]] = {}
    copies = []
    for row in sorted(rows, key=_time):
        if not row["arm"]:
            continue
        if row["shadow"]:
            copies += [row] if _of(release.candidate, row) else []
        elif _of(release.champion, row):
            answered.setdefault((row["id"], row["row"]), []).append(row)
    for copy in copies:
        matches = answered.get((copy["id"], copy["row"]))
        if matches:
            place = bisect(matches, copy["time"], key=_time)
            yield min(matches[max(0, place - 1) : place + 1], key=lambda match: abs(_time(match) - _time(copy))), copy


def _time(row: Row) -> int:
    return int(row["time"])


def compare_answers(champion: Mapping[str, Any], candidate: Mapping[str, Any]) -> ScorePair | None:
    """Two answers to one row; None where the candidate's has not the outputs of the champion's.

    An answer of NaN (null in JSON) where the champion gives a number is none of its shape.
    """
    if not set(champion) - _optional(champion) <= set(candidate):
        return None
    names = [name for name in ("probability", "prediction", *champion) if name in champion]
    if not names:
        return None
    score, other = _score(champion[names[0]]), _score(candidate.get(names[0]))
    decided = "prediction" if "prediction" in champion else names[0]
    differs = _differ(champion[decided], candidate.get(decided))
    if score is not None and other is None:
        return None
    if score is None or other is None:
        return ScorePair(champion=0.0, candidate=float(differs), differs=differs)
    return ScorePair(champion=score, candidate=other, differs=differs)


def _optional(answer: Mapping[str, Any]) -> set[str]:
    """Outputs that a row may lack: those that only some requests ask for."""
    return {name for name in answer if name in ("reasons", "warnings", "degraded", "$large")}


def _score(value: object) -> float | None:
    """A number; of a list its last one, which for two classes is the positive class."""
    while isinstance(value, list) and value:
        value = value[-1]
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _differ(decision: object, other: object) -> bool:
    """Whether two decisions differ. A float is no decision, and of scores the place of the greatest decides."""
    if isinstance(decision, list) and isinstance(other, list):
        return _place(decision) != _place(other)
    return False if isinstance(decision, float) else decision != other


def _place(values: list[Any]) -> int:
    numbers = [value if isinstance(value, int | float) else float("-inf") for value in values]
    return numbers.index(max(numbers)) if numbers else 0


def _of(arm: Arm, row: Row) -> bool:
    return bool(row["version"] == arm.version)


def _rows_by_arm(rows: Iterable[Row], after: int, *, shadow: bool) -> dict[str, list[Row]]:
    """The rows that each arm answered after a moment; in shadow the candidate's are those that it was mirrored."""
    by_arm: dict[str, list[Row]] = {CHAMPION: [], CANDIDATE: []}
    for row in rows:
        # What did not come through the gateway has no arm, and is evidence of none.
        if row["time"] <= after or not row["arm"] or (row["shadow"] and not shadow):
            continue
        arm = CANDIDATE if row["shadow"] or row["arm"] == CANDIDATE else CHAMPION
        by_arm[arm].append({**row, "request": _parse_object(row["request"]), "outputs": _outputs(row)})
    return by_arm


def _read_rows(log: Log, release: Release, since: int, until: int, names: Collection[str] | None = None) -> list[Row]:
    """The rows of (since, until], microseconds since 1970 UTC; only those of these names, if any are given."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from cumulant.serving.prediction_log.storage.part_writer import SCHEMA
    from cumulant.serving.prediction_log.storage.scanning import batches

    low, high = (pa.scalar(micros, pa.int64()).cast(pa.timestamp("us", "UTC")) for micros in (since, until))
    # A file holds rows of two days around midnight.
    days = {"since": from_micros(since).date() - timedelta(days=1), "until": from_micros(until).date()}
    time = pc.field("time")
    wanted = (time > low) & (time <= high) & (pc.field("model") == release.model)
    if names is not None:
        wanted &= pc.field("id").isin(pa.array(sorted(names), pa.string()))
    schema = pa.schema([SCHEMA.field(name) for name in _COLUMNS])
    table = pa.Table.from_batches(batches(log, list(_COLUMNS), wanted=wanted, **days), schema)
    place = table.schema.get_field_index("time")
    rows: list[Row] = table.set_column(place, "time", table["time"].cast(pa.int64())).to_pylist()
    return rows


def _outputs(row: Row) -> dict[str, Any]:
    return _parse_object(row["outputs"])


def _parse_object(text: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(text, dict):
        return text
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {"": value}
