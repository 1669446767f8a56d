"""Rules of the port `online`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import polars as pl
import pytest

from cumulant.core.plan import Corrections, FeaturePlan, Field, Source
from cumulant.ports.online import Cells, OnlineStore
from cumulant.testing.conformance.gaps import Suite


class OnlineConformance(Suite):
    """Give a fixture `online`: an empty store."""

    @pytest.fixture
    def online(self) -> OnlineStore:
        raise NotImplementedError

    def test_blobs_come_in_the_order_of_the_keys(self, online: OnlineStore) -> None:
        assert online.put("cards", [(b"b", b"2"), (b"a", b"1"), (b"", b"empty key"), (b"\x00\xff", b"")]) == 4
        keys = [b"a", b"nope", b"b", b"a", b"", b"\x00\xff"]
        assert online.get("cards", keys) == [b"1", None, b"2", b"1", b"empty key", b""]
        assert online.get("cards", [b"b"]) == [b"2"]
        assert online.get("cards", []) == []

    def test_a_table_that_is_not_there(self, online: OnlineStore) -> None:
        assert online.get("nope", [b"a", b"b"]) == [None, None]
        assert online.meta("nope") == {}

    def test_put_replaces_and_keeps_the_rest(self, online: OnlineStore) -> None:
        online.put("cards", [(b"a", b"1"), (b"b", b"1")])
        online.put("cards", [(b"b", b"2" * 100_000), (b"c", b"2")])
        assert online.get("cards", [b"a", b"b", b"c"]) == [b"1", b"2" * 100_000, b"2"]

    def test_tables_are_apart(self, online: OnlineStore) -> None:
        for table in ("cards", 'a "name"; with--marks', "ä/b"):
            online.put(table, [(b"a", table.encode())])
        for table in ("cards", 'a "name"; with--marks', "ä/b"):
            assert online.get(table, [b"a"]) == [table.encode()]

    def test_swap_replaces_everything(self, online: OnlineStore) -> None:
        online.put("cards", [(b"a", b"1"), (b"b", b"1")])
        online.put("other", [(b"a", b"1")])
        assert online.swap("cards", ((b"%d" % number, b"2") for number in range(12_345))) == 12_345
        assert online.get("cards", [b"a", b"b", b"0", b"12344"]) == [None, None, b"2", b"2"]
        assert online.get("other", [b"a"]) == [b"1"]
        assert online.swap("cards", []) == 0
        assert online.get("cards", [b"0"]) == [None]
        online.put("cards", [(b"a", b"3")])
        assert online.get("cards", [b"a"]) == [b"3"]

    def test_a_write_that_fails_changes_nothing(self, online: OnlineStore) -> None:
        def rows() -> Iterator[tuple[bytes, bytes]]:
            for number in range(8_000):
                yield b"%d" % number, b"new"
            raise KeyboardInterrupt

        online.put("cards", [(b"1", b"old")])
        for write in (online.put, online.swap):
            with pytest.raises(KeyboardInterrupt):
                write("cards", rows())
            assert online.get("cards", [b"1", b"2"]) == [b"old", None]

    def test_readers_see_the_old_table_or_the_new_one(self, online: OnlineStore) -> None:
        keys = [b"%d" % number for number in range(0, 2000, 250)]
        online.swap("cards", ((b"%d" % number, b"0") for number in range(2000)))
        failures: list[object] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                values = set(online.get("cards", keys))
                if len(values) != 1 or None in values:
                    failures.append(values)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for generation in range(1, 8):
                blob = b"%d" % generation
                online.swap("cards", ((b"%d" % number, blob) for number in range(2000)))
        finally:
            done.set()
            reader.join()
        assert failures == []
        assert online.get("cards", [b"0"]) == [b"7"]

    def test_an_update_reads_what_it_wrote_and_removes(self, online: OnlineStore) -> None:
        online.put("cards", [(b"a", b"1"), (b"b", b"1")])

        def change(cells: Cells) -> list[bytes | None]:
            assert cells.get("cards", [b"b", b"nope", b"a"]) == [b"1", None, b"1"]
            assert cells.get("new", [b"a"]) == [None]
            cells.put("cards", [(b"a", b"2"), (b"b", None), (b"nope", None)])
            cells.put("new", [(b"a", b"3")])
            return [*cells.get("cards", [b"a", b"b"]), *cells.get("new", [b"a"])]

        assert online.update(change) == [b"2", None, b"3"]
        assert online.get("cards", [b"a", b"b"]) == [b"2", None]
        assert online.get("new", [b"a"]) == [b"3"]

    def test_an_update_that_fails_changes_no_table(self, online: OnlineStore) -> None:
        online.put("cards", [(b"a", b"1")])

        def change(cells: Cells) -> None:
            cells.put("cards", [(b"a", b"2")])
            cells.put("new", [(b"a", b"2")])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            online.update(change)
        assert online.get("cards", [b"a"]) == [b"1"]
        assert online.get("new", [b"a"]) == [None]

    def test_no_update_is_lost_between_others(self, online: OnlineStore) -> None:
        def add(cells: Cells) -> None:
            for table in ("one", "two"):
                count = cells.get(table, [b"n"])[0]
                cells.put(table, [(b"n", b"%d" % (int(count or b"0") + 1))])

        threads = [threading.Thread(target=lambda: [online.update(add) for _ in range(25)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [online.get(table, [b"n"]) for table in ("one", "two")] == [[b"100"], [b"100"]]

    def test_readers_see_an_update_whole_and_at_once(self, online: OnlineStore) -> None:
        failures: list[object] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                values = set(online.get("cards", [b"a", b"b"]))
                if len(values) != 1:
                    failures.append(values)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for number in range(50):
                blob = b"%d" % number
                online.update(lambda cells, blob=blob: cells.put("cards", [(b"a", blob), (b"b", blob)]))  # type: ignore[misc]
                assert online.get("cards", [b"a", b"b"]) == [blob, blob]
        finally:
            done.set()
            reader.join()
        assert failures == []

    def test_posted_corrections_and_deletions_are_in_force(self, online: OnlineStore) -> None:
        """The stored state of features on this store: rows correct each other by known time, and are deleted."""
        from cumulant.features.online.materialization import materialize
        from cumulant.features.online.online import OnlineFeatures

        plan = _sums()
        materialize(plan, {"tx": _payments((1, "a", 1, 2.0), (2, "a", 1, 3.0))}, online, table="t")
        state = OnlineFeatures(plan, online, "t")
        steps: list[tuple[dict[str, object], int, dict[str, float | None]]] = [
            (_payment(1, "a", 2, 5.0), 1, {"a": 8.0, "b": None}),
            (_payment(1, "a", 1, 4.0), 0, {"a": 8.0, "b": None}),  # an older version
            (_payment(2, "b", 3, 7.0), 1, {"a": 5.0, "b": 7.0}),
            (_payment(1, "a", 4, 5.0) | {"op": "D"}, 1, {"a": None, "b": 7.0}),
            (_payment(1, "a", 5, 6.0), 1, {"a": 6.0, "b": 7.0}),
        ]
        for row, accepted, expected in steps:
            assert state.advance("tx", [row]).accepted == accepted
            for reader in (state, OnlineFeatures(plan, online, "t")):
                requests = [{"id": 9, "card": card, "at": _moment(9)} for card in expected]
                assert dict(zip(expected, reader.vectors(requests).columns["spent_1d"], strict=True)) == expected

    def test_posted_rows_give_one_state_in_any_order(self, online: OnlineStore) -> None:
        """Rows that are known at one moment, each posted twice, in two orders of arrival and all at once."""
        from cumulant.features.online.materialization import materialize
        from cumulant.features.online.state import decode_events, entity_key
        from cumulant.features.online.state_writer import StateWriter
        from cumulant.features.posted.state_update import advance

        plan = _sums(corrected=False)
        rows = [_payment(number, "a", 0, number / 4) for number in range(6)]
        orders = {"forward": [*rows, *rows], "backward": [*rows[::-1], *rows[::-1]], "filled": []}
        states = []
        for table, posts in orders.items():
            stored = pl.DataFrame(rows if table == "filled" else rows[2:4])
            materialize(plan, {"tx": stored}, online, table=table, scope=table)
            writer = StateWriter(plan, online, table, now_us=lambda: 0)
            for row in posts:
                advance([writer], "tx", [row])
            (blob,) = online.get(table, [entity_key(0, ["a"])])
            assert blob is not None
            events = decode_events(blob)
            states.append((events.times, events.slots, events.identities, events.event_times, events.since))
        assert states[0] == states[1] == states[2]
        assert len(states[0][0]) == 6 * 8

    def test_readers_of_an_entity_in_tiles_see_one_moment(self, online: OnlineStore) -> None:
        """Each row is worth 1, so that sum and number agree at every moment and never fall. Rows change old tiles, and
        begin new ones.
        """
        from cumulant.features.online.materialization import materialize
        from cumulant.features.online.online import OnlineFeatures
        from cumulant.features.online.state_writer import StateWriter
        from cumulant.features.online.tiles import TileRule
        from cumulant.features.posted.state_update import advance

        plan, rule, rows = _sums(corrected=False), TileRule(limit=8, mean=4), 80
        requests = [{"id": 10**6, "card": "a", "at": _moment(9)}]
        materialize(plan, {"tx": _payments((0, "a", 0, 1.0))}, online, table="t", tiles=rule)
        writer, seen, done = (
            StateWriter(plan, online, "t", now_us=lambda: 0, tiles=rule),
            list[object](),
            threading.Event(),
        )

        async def read() -> None:
            features = OnlineFeatures(plan, online, "t")
            while not done.is_set():
                request = features.request(requests)
                if features.awaits:
                    columns = features.vectors_of(request, await features.read_entities(request)).columns
                else:
                    columns = features.vectors(requests).columns
                seen.append((columns["spent_1d"][0], columns["number_1d"][0]))
            if features.awaits:  # the connection belongs to this loop
                online.close()
                await asyncio.sleep(0)

        reader = threading.Thread(target=lambda: asyncio.run(read()))
        reader.start()
        try:
            for number in range(1, rows):
                # Far from each other, and in no order.
                at = _moment(0) + timedelta(minutes=number * 67 % 240)
                advance([writer], "tx", [_payment(number, "a", 0, 1.0) | {"at": at}])
        finally:
            done.set()
            reader.join()
        assert [pair for pair in seen if pair[0] != pair[1]] == []  # type: ignore[index]
        assert seen == sorted(seen)  # type: ignore[type-var]
        assert OnlineFeatures(plan, online, "t").vectors(requests).columns["number_1d"] == [rows]

    def test_meta(self, online: OnlineStore) -> None:
        online.put_meta("cards", {"as_of": "2013-01-01", "old": "x"})
        online.put_meta("cards", {"as_of": "2013-01-02"})
        online.swap("cards", [(b"a", b"1")])
        assert online.meta("cards") == {"as_of": "2013-01-02"}

    def test_tables_are_listed_and_dropped(self, online: OnlineStore) -> None:
        assert online.tables() == []
        online.put("cards", [(b"a", b"1")])
        online.swap("ä/b", [(b"a", b"2")])
        online.put_meta("cards", {"as_of": "2013-01-01"})
        online.put_meta("bare", {"as_of": "2013-01-01"})
        assert online.tables() == ["bare", "cards", "ä/b"]
        assert online.get("cards", [b"a"]) == [b"1"]
        for table in ("cards", "bare", "nope"):
            online.drop(table)
        assert online.tables() == ["ä/b"]
        assert online.get("cards", [b"a"]) == [None]
        assert online.meta("cards") == {}
        assert online.get("ä/b", [b"a"]) == [b"2"]

    def test_a_dropped_table_can_be_filled_again(self, online: OnlineStore) -> None:
        online.swap("cards", [(b"a", b"1"), (b"b", b"1")])
        assert online.get("cards", [b"a"]) == [b"1"]
        online.drop("cards")
        assert online.swap("cards", [(b"a", b"2")]) == 1
        assert online.get("cards", [b"a", b"b"]) == [b"2", None]
        assert online.tables() == ["cards"]

    def test_close(self, online: OnlineStore) -> None:
        online.put("cards", [(b"a", b"1")])
        online.close()
        online.close()


def _moment(hour: int) -> datetime:
    return datetime(2024, 1, 1, hour, tzinfo=UTC)


def _payment(number: int, card: str, hour: int, amount: float) -> dict[str, object]:
    """A payment as it was known at an hour."""
    return {"id": number, "card": card, "at": _moment(0), "amount": amount, "changed": _moment(hour), "op": "U"}


def _payments(*rows: tuple[int, str, int, float]) -> pl.DataFrame:
    return pl.DataFrame([_payment(*row) for row in rows])


def _sums(*, corrected: bool = True) -> FeaturePlan:
    """Windows by card, over a source whose rows may correct each other by the time in `changed`."""
    from cumulant.features.definition.definitions import source as features_source
    from cumulant.features.definition.loading import collect
    from cumulant.features.definition.plan import compile_plan

    fields = (Field("id", "int"), Field("card", "str"), Field("at", "time"), Field("amount", "float"))
    corrections = Corrections((Field("changed", "time"),), Field("op", "str"), ("D",))
    source = Source("tx", ("id",), "at", fields, corrections=corrections if corrected else msgspec.UNSET)
    card = features_source("tx").by("card")
    defined = {
        "spent": card.sum("amount", window="1d"),
        "number": card.count("amount", window="1d"),
        "newest": card.last("amount", window="1d"),
    }
    return compile_plan(collect(defined), {"tx": source}, entity="tx", predict_at=None)
