"""Repeated keys: which row stays, corrections and deletions, against a row-by-row reading of the rules."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import polars as pl
import pytest

from cumulant.core.errors import DataError
from cumulant.data.corrections import versions as versions_module
from cumulant.data.parts import group_repeats
from cumulant.data.retention import removable_keys
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.data.snapshot import scan, scan_versions

DAY = datetime(2024, 1, 10, tzinfo=UTC)
EVENT = datetime(2020, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return DAY + timedelta(days=number)


def arrive(place, previous, number: int, **more):
    return place.ingest(path="in", key="id", quarantine=1, now=day(number), previous=previous, **more)


@pytest.mark.parametrize("mode", ["quarantine", "first"])
def test_a_late_file_whose_name_comes_first_replaces_no_accepted_row(place, mode):
    place.write("in/b.csv", "id,km\n1,10\n2,20\n")
    before = arrive(place, None, 0, on_repeat=mode)
    place.write("in/a.csv", "id,km\n1,99\n3,30\n")
    found = arrive(place, before, 1, on_repeat=mode)
    assert sorted(place.rows(found, "id", "km")) == [(1, 10), (2, 20), (3, 30)]
    assert place.quarantine(found).select("__rule", "__file", "km").rows() == [("key:repeat", "in/a.csv", 99)]
    assert arrive(place, found, 2, on_repeat=mode).id == found.id


def test_a_late_file_takes_no_unique_value_either(place):
    place.write("in/b.csv", "id,plate\n1,P\n")
    before = arrive(place, None, 0, rules={"plate": {"unique": True}})
    place.write("in/a.csv", "id,plate\n2,P\n")
    found = arrive(place, before, 1, rules={"plate": {"unique": True}})
    assert place.rows(found, "id") == [(1,)]


def test_renaming_a_file_or_adding_rows_to_it_changes_no_accepted_row(place):
    place.write("in/m.csv", "id,km\n1,10\n")
    found = arrive(place, None, 0)
    place.write("in/n.csv", "id,km\n1,11\n2,20\n")
    found = arrive(place, found, 1)
    (place.root / "in/n.csv").rename(place.root / "in/a.csv")
    found = arrive(place, found, 2)
    assert sorted(place.rows(found, "id", "km")) == [(1, 10), (2, 20)]
    place.write("in/m.csv", "id,km\n2,21\n1,10\n3,30\n")
    found = arrive(place, found, 3)
    assert sorted(place.rows(found, "id", "km")) == [(1, 10), (2, 20), (3, 30)]
    place.write("in/m.csv", "id,km\n2,21\n1,10\n3,30\n4,40\n")
    assert sorted(place.rows(arrive(place, found, 4), "id", "km")) == [(1, 10), (2, 20), (3, 30), (4, 40)]


def test_snapshots_of_equal_files_that_arrived_in_another_order_have_other_names(place):
    place.write("in/b.csv", "id,km\n1,10\n")
    late = arrive(place, None, 0)
    place.write("in/a.csv", "id,km\n1,99\n")
    late, together = arrive(place, late, 1), arrive(place, None, 1)
    assert (place.rows(late, "km"), place.rows(together, "km")) == ([(10,)], [(99,)])
    assert late.id != together.id


def test_only_quarantine_counts_repeats_towards_the_limit(place):
    place.write("trips.csv", "id,km\n1,1\n1,2\n")
    refused = place.refused(key="id")
    assert "key:repeat (1)" in refused.breaches[0]
    kept = place.ingest(key="id", on_repeat="first")
    assert (kept.rows_passed, kept.rows_quarantined) == (1, 1)
    assert "more than the 0.01 that `quarantine` allows" in kept.warned[0]


def test_first_keeps_the_one_known_first_of_rows_that_arrive_together(place):
    text = "id,km,seen\n1,1,2024-01-03T00:00:00Z\n1,2,2024-01-02T00:00:00Z\n1,3,\n"
    place.write("in/a.csv", text)
    place.write("in/b.csv", "id,km,seen\n1,4,2024-01-01T00:00:00Z\n")
    found = arrive(place, None, 0, known_time={"seen": "km"}, on_repeat="first")
    assert place.rows(found, "km") == [(4,)]
    assert place.rows(arrive(place, None, 0, known_time={"seen": "km"}), "km") == [(1,)]


def test_a_correction_is_in_force_from_the_run_that_read_it(place):
    place.write("in/b.csv", "id,km\n1,10\n2,20\n")
    before = arrive(place, None, 0, on_repeat="latest")
    place.write("in/a.csv", "id,km\n1,11\n2,20\n")
    found = arrive(place, before, 1, on_repeat="latest")
    assert sorted(place.rows(found, "id", "km")) == [(1, 11), (2, 20)]
    assert not found.rows_quarantined
    assert (found.rows_passed, found.rows_current, found.rows_superseded, found.rows_repeated) == (4, 2, 1, 1)
    then = scan(found, place.tables, as_of=day(0.9)).select("id", "km").sort("id").collect().rows()
    assert then == [(1, 10), (2, 20)]
    assert arrive(place, found, 2, on_repeat="latest").id == found.id
    kept = removable_keys("trips", [found], place.tables)
    assert found.versions is not None
    assert found.versions.key not in kept


def test_a_declared_known_time_decides_whatever_arrives_first(place):
    new, old = "1,11,2024-01-02T00:00:00Z\n", "1,10,2024-01-01T00:00:00Z\n"
    more = {"on_repeat": "latest", "known_time": {"seen": "km"}}
    place.write("in/b.csv", f"id,km,seen\n{new}")
    before = arrive(place, None, 0, **more)
    place.write("in/a.csv", f"id,km,seen\n{old}")
    found = arrive(place, before, 1, **more)
    assert place.rows(found, "km") == [(11,)]
    then = scan(found, place.tables, as_of=datetime(2024, 1, 1, 12, tzinfo=UTC)).collect()
    assert then["km"].to_list() == [10]


def test_a_correction_may_keep_its_unique_value_and_another_row_may_not_have_it(place):
    place.write("in/a.csv", "id,plate,km\n1,P,1\n1,P,2\n2,P,3\n")
    place.write("in/b.csv", "id,plate,km\n3,P,4\n1,P,5\n")
    found = arrive(place, None, 0, on_repeat="latest", rules={"plate": {"unique": True}})
    assert place.rows(found, "id", "km") == [(1, 5)]


def test_row_counts_are_of_rows_in_force(place):
    place.write("trips.csv", "id,km\n1,1\n1,2\n")
    more = {"key": "id", "on_repeat": "latest"}
    assert "at least 2 rows (1 are)" in place.refused(table={"min_rows": 2}, **more).breaches[0]
    assert place.ingest(table={"max_rows": 1}, **more).rows_current == 1


def test_a_deletion_needs_nothing_but_its_key(place):
    more = {"on_repeat": "latest", "deleted": {"column": "op", "values": ["D"]}, "event_time": "at"}
    more |= {"rules": {"km": {"nulls": 0, "min": 0}}, "table": {"where": ["km < 100"]}}
    place.write("in/b.csv", "id,at,km,op\n1,2024-01-01T00:00:00Z,5,I\n2,2024-01-01T00:00:00Z,6,I\n")
    before = arrive(place, None, 0, **more)
    place.write("in/a.csv", "id,at,km,op\n1,,,D\n,,,D\n2,2024-01-01T00:00:00Z,,U\n3,,200,D\n")
    found = arrive(place, before, 1, **more)
    assert place.rows(found, "id", "km") == [(2, 6)]
    assert place.quarantine(found)["__rule"].to_list() == ["id:nulls", "km:nulls"]
    assert (found.rows_superseded, found.rows_deletions) == (1, 2)
    assert values(scan(found, place.tables, as_of=day(0.5))) == [(1, 5), (2, 6)]


def test_a_deletion_without_its_known_time_counts_from_the_run_that_read_it(place):
    more = {"on_repeat": "latest", "deleted": {"column": "op", "values": ["D"]}}
    more |= {"event_time": "at", "known_time": {"changed": ["km"]}}
    place.write("in/b.csv", "id,at,changed,km,op\n1,2024-01-01T00:00:00Z,2024-01-01T00:00:00Z,5,I\n")
    before = arrive(place, None, 0, **more)
    place.write("in/a.csv", "id,at,changed,km,op\n1,,,,D\n")
    deleted = arrive(place, before, 1, **more)
    assert deleted.rows_current == 0
    assert values(scan(deleted, place.tables, as_of=day(0.5))) == [(1, 5)]
    place.write("in/c.csv", "id,at,changed,km,op\n1,2024-01-01T00:00:00Z,2024-01-12T00:00:00Z,7,I\n")
    assert place.rows(arrive(place, deleted, 2, **more), "id", "km") == [(1, 7)]


SEQUENCED = {"key": "id", "on_repeat": "latest", "known_time": {"at": []}}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"on_repeat": "latest"}, "needs a key"),
        ({"key": "id", "deleted": {"column": "op", "values": ["D"]}}, "needs `on_repeat: latest`"),
        ({"key": "id", "on_repeat": "latest", "deleted": {"column": "po", "values": ["D"]}}, 'no column "po"'),
        ({"key": "id", "on_repeat": "latest", "deleted": {"column": "id", "values": ["D"]}}, "is int"),
        ({"key": "id", "sequence_by": "op"}, "`sequence_by` needs `on_repeat: latest`"),
        ({"key": "id", "on_repeat": "latest", "sequence_by": "id"}, "needs a known time"),
        (SEQUENCED | {"sequence_by": "po", "rules": {"po": {"type": "int"}}}, 'no column "po"'),
        (SEQUENCED | {"sequence_by": "share", "rules": {"share": {"type": "float"}}}, "which is float"),
        (
            SEQUENCED | {"sequence_by": "op", "rules": {"op": {"in": ["U"]}}},
            '"op", which `sequence_by` names, is not decl',
        ),
    ],
)
def test_what_cannot_be_decided_is_refused(place, more, text):
    place.write("trips.csv", "id,op,share,at\n1,U,0.5,2024-01-01T00:00:00Z\n")
    with pytest.raises(DataError, match=text):
        place.ingest(**more)


class Line(NamedTuple):
    key: int
    value: int | None
    seen: int | None
    op: str
    #: null in some rows
    number: int | None

    def text(self) -> str:
        seen = "" if self.seen is None else f"{day(self.seen):%Y-%m-%dT%H:%M:%SZ}"
        fields = ["" if value is None else str(value) for value in (self.key, self.value, self.number)]
        return ",".join([*fields, seen, self.op, f"{EVENT:%Y-%m-%dT%H:%M:%SZ}"])


def lines(world: random.Random, known: bool) -> list[Line]:
    return [
        Line(
            world.randint(1, 4),
            world.choice([None, 0, 1, 2]),
            world.choice([None, None, None, None, -2, -1, 0, 1, 2]) if known else None,
            world.choice("UUUD"),
            world.choice([None, *range(6)]),
        )
        for _ in range(world.randint(1, 5))
    ]


class Told(NamedTuple):
    """A row, when it arrived, its place, and its known time: of a deletion that has none, its arrival."""

    arrived: int
    file: str
    at: int
    line: Line
    seen: int | None


def in_order(told: list[Told], *, sequenced: bool) -> dict[int, list[tuple[float, Line]]]:
    """The different rows of each key as they became known, each with the moment (in days)."""

    def number(one: Told) -> int:
        return -1 if one.line.number is None or one.seen is None or not sequenced else one.line.number

    found: dict[int, list[tuple[float, Line]]] = {}
    by_key = defaultdict(list)
    for one in told:
        by_key[one.line.key].append(one)
    for key, rows in by_key.items():
        rows.sort(key=lambda one: (-99 if one.seen is None else one.seen, number(one), one.arrived, one.file, one.at))
        versions: list[tuple[float, Told]] = []
        for one in rows:
            if not versions:
                versions.append((-999.0, one))
                continue
            moment, before = versions[-1]
            if one.line == before.line:
                continue
            if one.seen is not None and (before.seen is None or one.seen > before.seen):
                moment = one.seen
            elif one.arrived != before.arrived and (one.seen is None or number(one) == number(before)):
                moment = one.arrived
            versions.append((moment, one))
        found[key] = [(moment, one.line) for moment, one in versions]
    return found


def expected(told: list[Told], at: float, *, sequenced: bool) -> list[tuple[int, int | None]]:
    """Of each key the last row that was known at a moment, unless that deletes it."""
    result = []
    for key, versions in in_order(told, sequenced=sequenced).items():
        # A row that became known later than one that follows it was never in force.
        ends = [moment for moment, _ in versions]
        known = [line for place, (_, line) in enumerate(versions) if min(ends[place:]) <= at]
        if known and known[-1].op != "D":
            result.append((key, known[-1].value))
    return sorted(result, key=str)


def values(frame: pl.LazyFrame) -> list[tuple[int, int | None]]:
    return sorted(frame.select("id", "km").collect().rows(), key=str)


@pytest.mark.slow
@pytest.mark.parametrize(("known", "sequenced"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", range(6))
def test_every_moment_shows_what_was_known_then(place, seed, known, sequenced):
    world, told, found = random.Random(seed), [], None
    deliveries = world.randint(2, 4)
    for number in range(deliveries):
        for name in world.sample("abcdefghijklmnop", world.randint(1, 2)):
            file = f"in/{name}{number}.csv"
            rows = lines(world, known)
            place.write(file, "\n".join(["id,km,number,seen,op,at", *(row.text() for row in rows)]) + "\n")
            for at, row in enumerate(rows):
                seen = number if known and row.op == "D" and row.seen is None else row.seen
                told.append(Told(number, file, at, row, seen))
        found = arrive(
            place,
            found,
            number,
            event_time="at",
            known_time={"seen": []} if known else {},
            on_repeat="latest",
            deleted={"column": "op", "values": ["D"]},
            sequence_by="number" if sequenced else None,
            rules={name: {"type": "time" if name == "seen" else "int"} for name in ("id", "km", "number", "seen")},
        )
        assert found.rows_quarantined == 0
        assert values(scan(found, place.tables)) == expected(told, 999, sequenced=sequenced)
        assert found.rows_current == len(expected(told, 999, sequenced=sequenced))
        for at in (-5, -2.5, -1, 0, 0.5, 1, 2.5, 3):
            assert values(scan(found, place.tables, as_of=day(at))) == expected(told, at, sequenced=sequenced), at
        versions = scan_versions(found, place.tables).collect()
        if found.versions is not None:
            alive = versions.filter(pl.col(UNTIL).is_null())
            assert alive.select(ROW).equals(scan(found, place.tables).select(ROW).collect())
            assert versions.filter(pl.col(UNTIL) <= pl.col(FROM)).is_empty()


def test_a_snapshot_written_before_arrivals_were_recorded_is_before_all_runs(place):
    place.write("in/b.csv", "id,km\n1,10\n")
    before = arrive(place, None, 0)
    files = tuple(msgspec.structs.replace(file, arrived=None) for file in before.files)
    place.write("in/a.csv", "id,km\n1,99\n")
    found = arrive(place, msgspec.structs.replace(before, files=files), 1)
    assert place.rows(found, "km") == [(10,)]
    assert [file.arrived for file in found.files] == [day(1), None]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_versions_by_partitions_are_those_of_all_rows_at_once(place, monkeypatch, seed) -> None:
    """Also the stored files: the name of a snapshot may not depend on the memory of the machine."""
    draw = random.Random(seed)
    times = [datetime(2024, 1, 1 + draw.randrange(20), tzinfo=UTC) for _ in range(draw.choice([4, 12, 60]))]
    rows = {
        "id": [draw.randrange(draw.choice([4, 40])) for _ in times],
        "at": times,
        "done": [draw.choice([None, moment]) for moment in times],
        "x": [draw.choice([None, 0.0, -0.0, 1.5]) for _ in times],
        "op": [draw.choice(["U", "U", None, "D"]) for _ in times],
    }
    place.write("t.parquet", pl.DataFrame(rows))
    deleted = {"column": "op", "values": ["D"]} if draw.random() < 0.7 else None
    known = {"done": "x"} if draw.random() < 0.5 else {}

    def versions():
        found = place.ingest(path="t.parquet", key="id", on_repeat="latest", deleted=deleted, known_time=known)
        return found.id, found.versions, found.rows_superseded, found.rows_repeated, found.rows_deletions

    at_once, partitions = versions(), []
    monkeypatch.setattr(versions_module, "_STEP", 7)
    monkeypatch.setattr(group_repeats, "_partitions", lambda *_: partitions.append(3) or 3)
    assert versions() == at_once
    assert len(partitions) == 2 or not at_once[1]
