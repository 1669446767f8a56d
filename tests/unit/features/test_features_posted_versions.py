"""Posted corrections and deletions against an oracle: what is served is what offline features of the same versions are.

The oracle keeps every version of every row and orders them anew each time: by known time, then sequence, then arrival, then
place.
"""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import Any, NamedTuple

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from test_features_windows import DEFINED, DTYPES, HOUR, SCHEMA, START, assert_same, frame, make_source, quick

from cumulant.core.ids import canonical
from cumulant.core.plan import Corrections, FeaturePlan, Field, KnownAt, PredictAt
from cumulant.core.units import from_micros, to_micros
from cumulant.data.corrections.arrivals import ARRIVED
from cumulant.data.corrections.dated_rows import HIDDEN
from cumulant.data.corrections.repeats import KNOWN
from cumulant.data.corrections.versions import _MARK, _date_rows, _order
from cumulant.data.row_columns import FROM, ROW, UNTIL
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.offline.offline import compute
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures, Vectors
from cumulant.features.online.repair import forget_key
from cumulant.features.online.state import STATE_KEY, decode_state, encode
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.post_reader import AdvanceResult, PostReader
from cumulant.features.posted.posted_events import POSTED, LoggedRow, log_table
from cumulant.features.posted.row_versions import StoredVersion, VersionRule
from cumulant.features.posted.state_update import DEFAULT_SKEW_US, advance
from cumulant.features.posted.update_batches import Advancer
from cumulant.testing.online import MemoryOnline
from cumulant.testing.plans import oracle

pytestmark = pytest.mark.slow

Row = dict[str, Any]
OP = Field("op", "str")
COLUMNS = [*SCHEMA, "op"]
FIELDS = [*(Field(name, DTYPES[name]) for name in SCHEMA), OP]


class Rule(NamedTuple):
    """What orders the versions of a row: a column with its known time, or its arrival; and a column of numbers."""

    dated: bool
    sequence: str | None = None


def make_plan(rule: Rule) -> FeaturePlan:
    """Windows and lookups over two sources that take corrections."""
    dated, sequence = rule.dated, UNSET if rule.sequence is None else Field(rule.sequence, DTYPES[rule.sequence])
    corrections = Corrections((Field("done", "time"),) if dated else (), OP, ("D", "X"), sequence)
    known = {"label": KnownAt(delay_us=to_micros(START + HOUR) - to_micros(START))}
    sources = {
        name: msgspec.structs.replace(
            make_source(name, HOUR),
            corrections=corrections,
            known=known | ({"result": KnownAt(column="done")} if dated else {}),
        )
        for name in ("tx", "other")
    }
    return compile_plan(collect(DEFINED), sources, entity="tx", predict_at=PredictAt("at", 0))


DATED = Rule(dated=True)
RULES = [Rule(dated, sequence) for dated in (False, True) for sequence in (None, "items")]
PLANS = {rule: make_plan(rule) for rule in (*RULES, Rule(dated=True, sequence="word"))}


class Version(msgspec.Struct):
    row: Row
    arrived: int
    place: int
    rule: Rule

    @property
    def deleted(self) -> bool:
        return self.row["op"] in ("D", "X")

    @property
    def known(self) -> int | None:
        if not self.rule.dated:
            return None
        done = self.row["done"]
        return to_micros(done) if done is not None else self.arrived if self.deleted else None

    @property
    def order(self) -> tuple[float, float, int, int]:
        sequence = None if self.rule.sequence is None or self.known is None else self.row[self.rule.sequence]
        known, number = (float("-inf") if value is None else value for value in (self.known, sequence))
        return (known, number, self.arrived, self.place)


def now_in_force(versions: list[Version], key: int) -> Version | None:
    found: Version | None = None
    for one in sorted((one for one in versions if one.row["id"] == key), key=lambda one: one.order):
        if found is None or one.row != found.row:
            found = one
    return found


def rows_in_force(versions: list[Version]) -> list[Row]:
    found = [now_in_force(versions, key) for key in {one.row["id"] for one in versions}]
    stays = sorted((one for one in found if one is not None and not one.deleted), key=lambda one: one.place)
    return [one.row for one in stays]


def snapshot(versions: list[Version]) -> pl.DataFrame:
    """The frame of a snapshot that holds these versions, dated by the code that makes snapshots."""
    found = _every(versions).filter(~pl.col(HIDDEN)).select(*COLUMNS, ROW, FROM, UNTIL)
    # A snapshot of which every row is always in force has no such columns.
    alone = found[FROM].is_null().all() and found[UNTIL].is_null().all()
    return found.drop(FROM, UNTIL) if alone else found


def hidden(versions: list[Version]) -> pl.DataFrame:
    """The rows that `data.scan_deletions` gives of it."""
    return _every(versions).filter(pl.col(HIDDEN), pl.col(UNTIL).is_null()).select(*COLUMNS, ROW, FROM)


def _every(versions: list[Version]) -> pl.DataFrame:
    rows = pl.DataFrame(
        [one.row | {ROW: one.place, ARRIVED: one.arrived, KNOWN: one.known, _MARK: one.deleted} for one in versions],
        schema=SCHEMA | {"op": pl.String, ROW: pl.Int64, ARRIVED: pl.Int64, KNOWN: pl.Int64, _MARK: pl.Boolean},
    )
    sequence = versions[0].rule.sequence if versions else None
    dates = _date_rows(_order(rows, FIELDS, ["id"], sequence), ["id"]).select(ROW, FROM, UNTIL, HIDDEN)
    always = pl.col(HIDDEN).fill_null(value=False)  # a row that is always in force has no dates
    return rows.join(dates, on=ROW, how="left").with_columns(always).sort(ROW)


AMOUNTS = [None, 0.0, -0.0, 0.1, 0.2, -0.3, 1e12, -1e12, 5e-324, 1e300, 1e16, 1.0, 3.14]


def row_of(random: Random, keys: int) -> Row:
    """A row with ties, nulls and awkward numbers; one in six deletes its key."""

    def moment() -> datetime | None:
        return random.choice([None, *(START + half * HOUR / 2 for half in range(6))])

    return {
        "id": random.randrange(keys),
        "card": random.choice(["a", "a", "b", None]),
        "shop": random.choice([1, 2, None]),
        "at": START + random.randrange(6) * HOUR / 2 if random.random() < 0.9 else None,
        "amount": random.choice(AMOUNTS),
        "items": random.choice([None, 1, 2, -3, 2**62, 2**63 - 1]),
        "label": random.choice([True, False, None]),
        "word": random.choice(["x", "y", "", None]),
        "done": moment(),
        "result": random.choice(AMOUNTS),
        "asked": moment(),
        "op": random.choice(["U", "U", "U", None, "U", "D"]),
    }


class World:
    """A source: its versions, those of them that its files hold, and the table that is served."""

    def __init__(self, rule: Rule) -> None:
        self.plan, self.rule, self.store = PLANS[rule], rule, MemoryOnline()
        self.versions: dict[str, list[Version]] = {"tx": [], "other": []}
        self.filed: dict[str, list[Version]] = {"tx": [], "other": []}
        self.clock = to_micros(START)
        self.tables = self.places = 0
        #: whether files came after posted rows
        self.mixed = False

    def tick(self) -> int:
        self.clock += 60_000_000 * 7
        return self.clock

    def add(self, source: str, row: Row, arrived: int) -> Version:
        self.places += 1
        version = Version({name: row.get(name) for name in COLUMNS}, arrived, self.places, self.rule)
        self.versions[source].append(version)
        return version

    def ingest(self, source: str, rows: list[Row]) -> None:
        """A run that takes in a file with these rows. What the files had in force already is no new version."""
        self.mixed |= any(one not in self.filed[source] for one in self.versions[source])
        arrived = self.tick()
        for row in rows:
            before = now_in_force(self.filed[source], row["id"])
            version = self.add(source, row, arrived)
            self.filed[source].append(version)
            if before is not None and before.row == version.row:
                self.versions[source].remove(version)

    def fill(self) -> None:
        self.tables += 1
        frames = {name: snapshot(versions) for name, versions in self.filed.items()}
        gone = self.deletions()
        materialize(self.plan, frames, self.store, table=f"t{self.tables}", scope="s", deletions=gone)

    def deletions(self) -> dict[str, pl.DataFrame]:
        return {name: hidden(versions) for name, versions in self.filed.items()}

    def writer(self) -> StateWriter:
        return StateWriter(self.plan, self.store, f"t{self.tables}", now_us=lambda: self.clock)

    def post(self, source: str, row: Row, *, columns: set[str]) -> int:
        """Post some columns of a row, which the row in force completes."""
        arrived = self.tick()
        told = {name: row[name] for name in COLUMNS if name in columns or name == "id"}
        before = now_in_force(self.versions[source], row["id"])
        deletes = told.get("op") in ("D", "X")
        base = {} if before is None or before.deleted or deletes else before.row
        version = self.add(source, base | told, arrived)
        done = advance([self.writer()], source, [told])
        assert done.early == self.is_early(version, before)
        if done.early:
            self.versions[source].remove(version)
        return done.accepted

    def is_early(self, version: Version, before: Version | None) -> bool:
        """Whether a version that follows `before` corrects or deletes ahead of its known time."""
        if version.known is None or version.known <= self.clock + DEFAULT_SKEW_US:
            return False
        return version.deleted if before is None else before.known is None or version.known > before.known

    def check(self, asked: list[Row]) -> None:
        """Served answers are those of a state that was filled anew, to the last bit, and the oracle's."""
        served = self.served(self.store, f"t{self.tables}", asked)
        rows = {name: rows_in_force(versions) for name, versions in self.versions.items()}
        anew = MemoryOnline()
        materialize(self.plan, {name: frame(of) for name, of in rows.items()}, anew, table="t")
        assert served.columns == self.served(anew, "t", asked).columns
        found = [{name: served.columns[name][i] for name in self.plan.names} for i in range(len(asked))]
        assert_same(found, oracle.features(self.plan, rows, asked))
        # Offline features of a snapshot with all versions are the same after all of them are in force.
        if self.mixed:
            return
        snapshots = {name: snapshot(versions) for name, versions in self.versions.items()}
        dated = compute(self.plan, snapshots, rows=frame(asked)).to_dicts()
        certain = [i for i, row in enumerate(asked) if row["at"] >= START + 3 * HOUR]
        assert_same([found[i] for i in certain], [{name: dated[i][name] for name in self.plan.names} for i in certain])

    def served(self, store: MemoryOnline, table: str, asked: list[Row]) -> Vectors:
        online = OnlineFeatures(self.plan, store, table)
        online.catch_up()
        return online.vectors(asked)


def act(world: World, random: Random, keys: int) -> None:
    """A post, whole or in part, one that is replayed, or a run that takes in new rows or those that were posted."""
    source, row, versions = random.choice(["tx", "other"]), row_of(random, keys), world.versions
    what = random.choice(["post", "post", "post", "part", "again", "file", "same file", "fill"])
    if what == "post":
        world.post(source, row, columns=set(COLUMNS))
    elif what == "part" and now_in_force(versions[source], row["id"]) is not None:
        world.post(source, row, columns=set(random.sample(COLUMNS, random.randint(1, 5))))
    elif what == "again" and versions[source]:
        world.post(source, random.choice(versions[source]).row, columns=set(COLUMNS))
    elif what == "file":
        world.ingest(source, [row, row_of(random, keys)])
    elif what == "same file":
        world.ingest(source, [one.row for one in versions[source] if random.random() < 0.4])
    if "fil" in what:
        world.fill()


@quick
@given(st.sampled_from(RULES), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32))
def test_posted_versions_are_served_as_offline_features_of_the_same_versions(
    rule: Rule, actions: int, keys: int, seed: int
) -> None:
    world, random = World(rule), Random(seed)
    for source in ("tx", "other"):
        world.ingest(source, [row_of(random, keys) for _ in range(random.randrange(6))])
    world.fill()
    for _ in range(actions):
        act(world, random, keys)
    asked = [row_of(random, keys + 2) | {"at": START + half * HOUR / 2} for half in (1, 5, 6, 8)]
    world.check([{name: value for name, value in row.items() if name != "op"} for row in asked])


@quick
@given(st.sampled_from(RULES), st.integers(1, 5), st.integers(0, 2**32))
def test_a_key_that_is_forgotten_is_as_the_history_and_what_else_was_posted_leave_it(
    rule: Rule, keys: int, seed: int
) -> None:
    world, random = World(rule), Random(seed)
    for source in ("tx", "other"):
        world.ingest(source, [row_of(random, keys) for _ in range(random.randrange(6))])
    world.fill()
    posted = [row_of(random, keys) for _ in range(random.randrange(8))]
    for row in posted:
        world.post("tx", row, columns=set(COLUMNS))
    frames = {name: snapshot(versions) for name, versions in world.filed.items()}
    found = [now_in_force(world.versions["tx"], key) for key in range(keys)]
    in_force = [one for one in found if one is not None]
    gone = [one.row["id"] for one in in_force if one not in world.filed["tx"] and not one.deleted and enters(one.row)]
    gone_before = world.deletions()
    forget_key(world.plan, frames, world.store, f"t{world.tables}", {"card": "a"}, deletions=gone_before)
    filed = world.filed["tx"]
    world.versions["tx"] = [one for one in world.versions["tx"] if one.row["id"] not in gone or one in filed]
    world.mixed = True
    asked = [row_of(random, keys + 2) | {"at": START + half * HOUR / 2} for half in (1, 5, 6, 8)]
    asked = [{name: value for name, value in row.items() if name != "op"} for row in asked]
    world.check(asked)
    world.fill()
    world.check(asked)
    # Rows that come again are versions as before.
    for row in posted:
        world.post("tx", row, columns=set(COLUMNS))
    world.check(asked)


def enters(row: Row) -> bool:
    """Whether a row is in windows of the card that is forgotten."""
    return row["card"] == "a" and row["at"] is not None


def world_of(*rows: Row, rule: Rule = DATED, clock: datetime = START) -> World:
    world = World(rule)
    world.clock = to_micros(clock)
    world.ingest("tx", [dict.fromkeys(COLUMNS) | row for row in rows])
    world.fill()
    return world


def tx(number: int, hour: float = 0, **more: Any) -> Row:
    return {"id": number, "card": "a", "at": START + hour * HOUR, "amount": 1.0, "items": 1, **more}


def served(world: World, feature: str, hour: float, number: int = 99, **more: Any) -> Any:
    asked = dict.fromkeys(SCHEMA) | {"id": number, "card": "a", "at": START + hour * HOUR} | more
    return world.served(world.store, f"t{world.tables}", [asked]).columns[feature][0]


def test_a_row_that_is_scored_corrects_nothing_and_gives_way_to_any_other() -> None:
    world = world_of(tx(1, amount=5.0))
    stored, other = tx(1, amount=7.0, word="x"), tx(2, 1, amount=3.0)
    for row in (stored, other):
        advance([world.writer()], "tx", [dict.fromkeys(SCHEMA) | row], scored=True)
    assert (served(world, "card_sum_amount_2d", 2), served(world, "words_2d", 2)) == (8.0, 0)
    clock, world.clock = world.clock, to_micros(START + HOUR)
    advance([world.writer()], "tx", [dict.fromkeys(SCHEMA) | tx(4, 0.5, card="b")], scored=True)
    before = world.writer().present_state().newest["tx"]
    advance([world.writer()], "tx", [other])  # what its source sends after the request tells how fresh it is
    assert (before, world.writer().present_state().newest["tx"]) == (to_micros(START), to_micros(other["at"]))
    world.clock = clock
    assert advance([world.writer()], "tx", [other | {"amount": 4.0}]).accepted == 1
    assert served(world, "card_sum_amount_2d", 2) == 9.0
    advance([world.writer()], "tx", [dict.fromkeys(SCHEMA) | other], scored=True)
    assert served(world, "card_sum_amount_2d", 2) == 9.0
    # a scored row that the next files hold is theirs
    advance([world.writer()], "tx", [dict.fromkeys(SCHEMA) | tx(3, amount=100.0)], scored=True)
    world.ingest("tx", [dict.fromkeys(COLUMNS) | tx(3, amount=10.0)])
    world.fill()
    assert served(world, "card_sum_amount_2d", 2) == 19.0


@quick
@given(st.integers(1, 16), st.integers(1, 4), st.integers(0, 2**32))
def test_a_version_posted_before_its_known_time_counts_when_offline_features_count_it(
    actions: int, keys: int, seed: int
) -> None:
    """Served answers at the clock's moment are offline features of all versions, with those that are still to come."""
    world, random = World(DATED), Random(seed)
    world.ingest("tx", [row_of(random, keys) | {"done": None} for _ in range(random.randrange(4))])
    world.ingest("other", [])
    world.fill()
    world.fill()
    ahead: list[Row] = []
    for _ in range(actions):
        row = row_of(random, keys)
        if row["op"] != "D" and now_in_force(world.versions["tx"], row["id"]) is None:
            row["done"] = None  # the first row of a key counts from the start, whenever it is known
        due = [one for one in ahead if to_micros(one["done"]) <= world.clock]
        for one in due:  # what came too early is posted again once its time has come
            ahead.remove(one)
            assert world.post("tx", one, columns=set(COLUMNS)) in (0, 1)
        before = len(world.versions["tx"])
        world.post("tx", row, columns=set(COLUMNS))
        if len(world.versions["tx"]) == before:
            ahead.append(row)
        if random.random() < 0.2:
            world.tables -= 1
            world.fill()
        world.clock += random.choice([0, 40 * 60_000_000])
        # A check computes all features anew; what an action did wrong stays for a later one.
        if random.random() < 0.4 and not any(to_micros(one["done"]) <= world.clock for one in ahead):
            check_now(world, ahead, row_of(random, keys + 2))


def check_now(world: World, ahead: list[Row], row: Row) -> None:
    at = {"at": from_micros(world.clock)}
    asked = [{name: value for name, value in (row | at).items() if name != "op"}]
    versions = [
        *world.versions["tx"],
        *(Version(one, world.clock, world.places + number, DATED) for number, one in enumerate(ahead, 1)),
    ]
    offline = (
        compute(world.plan, {"tx": snapshot(versions), "other": snapshot([])}, rows=frame(asked))
        .select(world.plan.names)
        .to_dicts()
    )
    for table in (world.tables - 1, world.tables):
        served = world.served(world.store, f"t{table}", asked)
        assert_same([{name: served.columns[name][0] for name in world.plan.names}], offline)
        assert served.late == [None]


def test_a_correction_or_deletion_ahead_of_its_known_time_is_left_out_until_then() -> None:
    world = world_of(tx(1, amount=5.0))
    correction = {"id": 1, "amount": 7.0, "done": START + 2 * HOUR}
    deletions = [{"id": number, "op": "D", "done": START + 2 * HOUR} for number in (1, 2)]
    for row in (correction, *deletions):
        assert advance([world.writer()], "tx", [row]) == AdvanceResult(early=1)
    assert served(world, "card_sum_amount_2d", 1) == 5.0
    world.clock = to_micros(START + 2 * HOUR) - DEFAULT_SKEW_US
    assert advance([world.writer()], "tx", [correction]) == AdvanceResult(accepted=1)
    assert served(world, "card_sum_amount_2d", 3) == 7.0
    # a declared skew takes the place of the default
    row = {"id": 1, "amount": 8.0, "done": START + 2 * HOUR + HOUR / 120}
    for skew, done in (
        (0, AdvanceResult(future=1)),
        (None, AdvanceResult(early=1)),
        (60_000_000, AdvanceResult(accepted=1)),
    ):
        with Advancer([world.writer()], skew_us=skew) as advancer:
            assert advancer.post("tx", [row]).result() == done


def test_a_sequence_orders_versions_of_one_known_time_whichever_comes_first() -> None:
    known = {"done": START}
    world = world_of(tx(1, amount=5.0, **known) | {"items": 5}, rule=Rule(dated=True, sequence="items"))

    def post(items: int, **more: Any) -> AdvanceResult:
        world.tick()
        return advance([world.writer()], "tx", [tx(1, **known, **more) | {"items": items}])

    assert post(4, amount=7.0) == AdvanceResult(duplicates=1)
    assert post(6, amount=8.0) == AdvanceResult(accepted=1)
    # It takes the place of the first version, which is in force from the start, and not from its arrival on.
    asked = dict.fromkeys(SCHEMA) | {"id": 99, "card": "a", "at": START}
    vectors = world.served(world.store, "t1", [asked])
    assert (vectors.columns["card_sum_amount_2d"], vectors.late) == ([8.0], [None])
    world.ingest("tx", [dict.fromkeys(COLUMNS) | tx(1, op="D", **known) | {"items": 7}])
    world.fill()
    for _ in range(2):  # as the table that was filled has it, and as the log has it then
        assert served(world, "card_sum_amount_2d", 1) is None
        assert post(6, amount=8.0).accepted == 0
    assert post(8, amount=9.0).accepted == 1
    assert served(world, "card_sum_amount_2d", 1) == 9.0


def test_a_log_serves_plans_that_order_versions_by_other_columns_or_none() -> None:
    values = tx(1, amount=5.0, done=START) | {"items": 5, "word": "v5"}
    arrival, items, word = worlds = [
        world_of(values, rule=Rule(dated=True, sequence=name)) for name in (None, "items", "word")
    ]
    for number, world in enumerate(worlds):
        world.store, world.tables = arrival.store, number

    def post(*by: World, **more: Any) -> int:
        for world in worlds:
            world.clock = arrival.clock + 60_000_000
        return advance([world.writer() for world in by], "tx", [{"id": 1} | more]).accepted

    def amounts(*of: World) -> list[float]:
        return [served(world, "card_sum_amount_2d", 3) for world in of]

    arrival.fill()
    # the plan without a sequence takes corrections, some with it and some without, before there are others
    assert [post(arrival, **more) for more in ({"items": 6, "amount": 6.0}, {"amount": 7.0})] == [1, 1]
    items.fill()
    word.fill()
    assert amounts(arrival, items, word) == [7.0, 7.0, 7.0]
    # each plan has what the others take, and is ordered by no sequence but its own
    assert (post(items, items=8, amount=8.0), post(arrival, amount=9.0), post(word, word="v6", amount=10.0)) == (
        1,
        1,
        1,
    )
    assert amounts(arrival, items, word) == [10.0, 10.0, 10.0]
    # one server of several tables decides by a sequence, whatever the order of its tables
    for by in ([arrival, items], [items, arrival]):
        assert post(*by, items=4, amount=11.0) == 0
    assert post(arrival, items, items=9, amount=12.0) == 1
    assert amounts(arrival, items) == [12.0, 12.0]


def test_a_row_has_the_sequence_that_a_plan_reads_from_its_values() -> None:
    known, stored = to_micros(START), StoredVersion(1, {"items": 5}, to_micros(START))
    rule = VersionRule(Corrections((Field("done", "time"),), None, (), Field("items", "int")))
    for values, other, later in (
        ({"items": 6}, {}, True),
        ({}, {"items": 6}, True),  # as the plans of that time did not read it
        ({"items": "v6"}, {}, False),  # as text of a plan that declared it so: none
        ({"items": None}, {}, False),
        ({}, {}, True),  # left out: that of the row it was posted over
    ):
        row = LoggedRow(POSTED, 0, values, other, known, known, over=True, over_known=known)
        assert rule.supersedes(row, stored) == later, (values, other)
    text = VersionRule(Corrections((Field("done", "time"),), None, (), Field("items", "str")))
    assert not text.supersedes(
        LoggedRow(POSTED, 0, {"items": 6}, {}, known, known), StoredVersion(1, {"items": "5"}, known)
    )


def test_pieces_of_a_row_are_one_row_whichever_comes_first() -> None:
    landing = {"id": 1, "done": START + 2 * HOUR, "result": 6.0}
    rest = {name: value for name, value in tx(1, shop=1).items() if name not in landing or name == "id"}
    for pieces in ([landing, rest], [rest, landing]):
        world = world_of(tx(7), clock=START + 3 * HOUR)
        assert [advance([world.writer()], "tx", [piece]).accepted for piece in pieces] == [1, 1]
        assert (served(world, "result_last_2d", 3), served(world, "card_n_2d", 3)) == (6.0, 3)
        assert advance([world.writer()], "tx", pieces).duplicates == 2
    # a landing that comes before the file that has the flight
    world = world_of(tx(7))
    advance([world.writer()], "tx", [landing])
    world.ingest("tx", [dict.fromkeys(COLUMNS) | rest])
    world.fill()
    assert served(world, "result_last_2d", 3) == 6.0


def test_a_null_corrects_a_value_and_a_column_that_is_left_out_does_not() -> None:
    world = world_of(tx(1, amount=5.0, word="x"))
    advance([world.writer()], "tx", [{"id": 1, "amount": None}])
    assert [served(world, name, 1) for name in ("card_count_amount_2d", "words_2d", "card_n_2d")] == [0, 1, 2]


def test_a_deleted_row_uncovers_the_one_before_it_for_a_lookup_without_limit() -> None:
    world = world_of()
    writer = world.writer()
    for number in (1, 2, 3):
        advance([writer], "other", [tx(number, 240 * number, items=number)])
    assert served(world, "items", 1000) == 3
    for number in (3, 2):
        assert advance([writer], "other", [{"id": number, "op": "D"}]).accepted == 1
    assert served(world, "items", 1000) == 1


def test_an_answer_for_a_moment_before_a_correction_or_deletion_says_so() -> None:
    world = world_of(tx(1, amount=5.0))
    world.post("tx", tx(1, amount=7.0), columns={"amount"})
    asked = [dict.fromkeys(SCHEMA) | {"id": 9, "card": "a", "at": START + hour * HOUR} for hour in (0.01, 3)]
    found = world.served(world.store, "t1", asked)
    assert (found.late, found.columns["card_sum_amount_2d"]) == ([world.clock, None], [7.0, 7.0])
    world.post("tx", {"id": 1, "op": "D"}, columns={"op"})
    found = world.served(world.store, "t1", asked)
    assert (found.late, found.columns["card_n_2d"]) == ([world.clock, None], [1, 1])


def test_corrections_that_are_known_further_ahead_than_the_skew_are_left_out() -> None:
    world = world_of(tx(1))
    rows = [tx(1, done=from_micros(world.clock + at * 1_000_000)) for at in (5, 20)]
    reader = PostReader([world.writer()], skew_us=10_000_000)
    assert [reader.read("tx", [row])[1].future for row in rows] == [0, 1]


def test_a_table_from_before_corrections_is_read_and_takes_rows_as_it_did() -> None:
    """Stores of earlier versions hold no rows in force: there the first value of a column stands."""
    world = world_of(tx(1, amount=5.0))
    older = msgspec.structs.replace(decode_state(world.store.get("t1", [STATE_KEY])[0] or b""), versions=())
    world.store.put("t1", [(STATE_KEY, encode(older))])
    writer = world.writer()
    assert advance([writer], "tx", [tx(1, amount=7.0, word=None)]).duplicates == 1
    assert advance([writer], "tx", [tx(2, amount=3.0)]).accepted == 1
    assert served(world, "card_sum_amount_2d", 2) == 8.0
    # the log of that time: its rows enter the next table, where the row of the snapshot counts
    world.fill()
    assert served(world, "card_sum_amount_2d", 2) == 8.0
    advance([world.writer()], "tx", [tx(1, amount=7.0), tx(2, amount=4.0)])
    assert served(world, "card_sum_amount_2d", 2) == 11.0


def test_what_the_files_hold_leaves_the_log_after_a_while() -> None:
    world = world_of(tx(1))
    world.post("tx", tx(1, amount=7.0), columns={"amount"})
    world.post("tx", {"id": 2, "op": "D"}, columns={"op"})
    log = world.store._tables[log_table("s", "tx")]
    assert sum(key.startswith(b"\x02") for key in log) == 2
    rows = [tx(1, amount=7.0), tx(3, 24 * 100)]
    world.ingest("tx", [dict.fromkeys(COLUMNS) | row for row in rows])
    world.fill()
    assert not [key for key in world.store._tables[log_table("s", "tx")] if key.startswith(b"\x02")]
    assert served(world, "card_sum_amount_2d", 1) == 7.0


def test_a_plan_of_a_source_that_takes_no_corrections_keeps_its_hash() -> None:
    assert b"corrections" not in canonical(make_source("tx", HOUR))


def test_an_older_version_that_is_posted_again_is_not_carried_into_the_next_table() -> None:
    world = world_of(tx(1, amount=5.0, done=START), clock=START + 3 * HOUR)
    versions = [tx(1, amount=amount, done=START + hour * HOUR) for amount, hour in ((7.0, 2), (6.0, 1))]
    assert [advance([world.writer()], "tx", [one]).accepted for one in versions] == [1, 0]
    world.fill()
    assert served(world, "card_sum_amount_2d", 3) == 7.0


def test_what_brings_a_deleted_row_back_has_nothing_of_the_row_before() -> None:
    world = world_of(tx(1, amount=5.0, word="x"), rule=Rule(dated=False))
    for row in ({"id": 1, "op": "D"}, {"id": 1, "card": "a", "at": START, "op": "U"}):
        assert advance([world.writer()], "tx", [row]).accepted == 1
    for _ in range(2):
        assert [served(world, name, 1) for name in ("card_count_amount_2d", "words_2d", "card_n_2d")] == [0, 0, 2]
        world.fill()


def test_a_correction_leaves_a_row_in_its_place_among_those_known_at_one_moment() -> None:
    """Whether or not it changes what the window reads."""
    world = world_of()
    advance([world.writer()], "tx", [tx(1, items=1, word="x"), tx(2, items=2)])
    assert served(world, "card_last_items_2d", 1) == 2
    advance([world.writer()], "tx", [{"id": 1, "label": True}])
    assert served(world, "card_last_items_2d", 1) == 2
    advance([world.writer()], "tx", [{"id": 1, "items": 5}])
    assert served(world, "card_last_items_2d", 1) == 2
    advance([world.writer()], "tx", [{"id": 2, "items": 6}])
    assert served(world, "card_last_items_2d", 1) == 6
