"""Rules of the port `tables`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cumulant.core.errors import DataError, NotFoundError, UsageError
from cumulant.core.scope import Scope
from cumulant.ports.tables import UNPROTECTED, Protection, TableHead, TableStore
from cumulant.testing.conformance.gaps import Suite
from cumulant.testing.conformance.scopes import SCOPES


def every_type() -> pl.DataFrame:
    """A column of each type that packages store, nulls and awkward values among them."""
    return pl.DataFrame(
        {
            "flag": [True, None, False],
            "count": [-(2**63), 2**63 - 1, None],
            "number": [0.1, float("nan"), None],
            "text": ["", "ä/\u2028", None],
            "time": [datetime(2013, 1, 1, 5, 30, tzinfo=UTC), None, datetime(1969, 1, 1, 0, 0, 0, 1, tzinfo=UTC)],
            "day": [date(2013, 1, 1), None, date(1, 1, 1)],
            "blob": [b"", b"\x00\xff", None],
        },
        schema_overrides={"time": pl.Datetime("us", "UTC")},
    )


def shuffled(rows: int = 1000) -> pl.DataFrame:
    """Rows in an order that no column sorts, with keys that repeat."""
    numbers = pl.Series("n", [(37 * number) % rows for number in range(rows)])
    return pl.DataFrame({"n": numbers, "key": numbers % 7, "name": (numbers % 3).cast(pl.String)})


class TablesConformance(Suite):
    """Give the fixtures `tables`, an empty store, and `tables_of`: makes clients of one store, each for a scope.

    Gaps: `partition_by`.
    """

    @pytest.fixture
    def tables(self) -> TableStore:
        raise NotImplementedError

    @pytest.fixture
    def tables_of(self) -> Callable[[Scope], TableStore]:
        raise NotImplementedError

    def test_scopes_have_tables_of_their_own_under_the_same_key(self, tables_of: Callable[[Scope], TableStore]) -> None:
        clients = [tables_of(scope) for scope in SCOPES]
        for rows, client in enumerate(clients, 1):
            assert client.find("a/b") is None
            assert client.write("a/b", shuffled(rows)).rows == rows
        for rows, client in enumerate(clients, 1):
            assert client.keys() == client.keys("a/") == ["a/b"]
            client.check("a/b")
            assert_frame_equal(client.scan("a/b").collect(), shuffled(rows))

    def test_a_scope_neither_sees_nor_deletes_what_another_has(self, tables_of: Callable[[Scope], TableStore]) -> None:
        first, *others = [tables_of(scope) for scope in SCOPES]
        first.write("a", shuffled(3))
        for scope, other in zip(SCOPES[1:], others, strict=True):
            for key in ("a", f"../../../{SCOPES[0].prefix}a", f"{SCOPES[0].prefix}a"):
                other.delete(key)
                assert other.find(key) is None
                with pytest.raises(NotFoundError):
                    other.scan(key)
            with pytest.raises(NotFoundError):
                other.write("b", shuffled(5), head=TableHead("a", 1))
            assert other.keys() == [], scope
        assert_frame_equal(first.scan("a").collect(), shuffled(3))
        first.delete("a")
        assert first.keys() == []

    def test_a_frame_is_read_as_it_was_written(self, tables: TableStore) -> None:
        reference = tables.write("a", every_type())
        assert (reference.key, reference.rows) == ("a", 3)
        assert reference.bytes > 0
        assert_frame_equal(tables.scan(reference).collect(), every_type())
        assert_frame_equal(tables.scan("a").collect(), every_type())

    def test_what_is_personal_is_stored_with_a_table(self, tables: TableStore) -> None:
        protect = Protection("name", ("name", "key"))
        tables.write("frame", shuffled(), protect=protect)
        tables.write("parts", (shuffled()[start : start + 10] for start in range(0, 100, 10)), protect=protect)
        tables.write("head", shuffled(20), head=TableHead("frame", 10), protect=protect)
        tables.write("plain", shuffled())
        assert [tables.protection(key) for key in ("frame", "parts", "head")] == [protect] * 3
        assert tables.protection("plain") == UNPROTECTED
        assert_frame_equal(tables.scan("frame").collect(), shuffled())
        tables.delete("frame")
        with pytest.raises(NotFoundError):
            tables.protection("frame")

    def test_rows_keep_their_order(self, tables: TableStore) -> None:
        tables.write("frame", shuffled())
        tables.write("lazy", shuffled().lazy())
        tables.write("parts", (shuffled()[start : start + 10] for start in range(0, 1000, 10)))
        for key in ("frame", "lazy", "parts"):
            assert_frame_equal(tables.scan(key).collect(), shuffled())

    def test_partitions_keep_order_and_columns(self, tables: TableStore) -> None:
        with self.can("partition_by"):
            for columns in (["key"], ["key", "name"]):
                reference = tables.write(f"by/{'-'.join(columns)}", shuffled(), partition_by=columns)
                assert reference.rows == 1000
                assert_frame_equal(tables.scan(reference).collect(), shuffled())
                few = tables.scan(reference).filter(pl.col("key") == 3).select("n", "key").collect()
                assert_frame_equal(few, shuffled().filter(pl.col("key") == 3).select("n", "key"))

    def test_partitions_by_awkward_values(self, tables: TableStore) -> None:
        frame = pl.DataFrame({"n": range(6), "key": ["a/b", None, "", "ä=%", "a/b", "x" * 50]})
        with self.can("partition_by"):
            tables.write("a", frame, partition_by=["key"])
            assert_frame_equal(tables.scan("a").collect(), frame)
            tables.write("parts", iter([frame[:3], frame[3:]]), partition_by=["key"])
            assert_frame_equal(tables.scan("parts").collect(), frame)

    def test_partition_by_a_column_that_is_not_there(self, tables: TableStore) -> None:
        with pytest.raises(UsageError):
            tables.write("a", shuffled(), partition_by=["nope"])
        assert tables.find("a") is None

    def test_no_rows(self, tables: TableStore) -> None:
        empty = shuffled().clear()
        tables.write("frame", empty)
        tables.write("lazy", empty.lazy())
        tables.write("parts", iter([empty, empty]))
        for key in ("frame", "lazy", "parts"):
            assert tables.scan(key).collect().height == 0
            assert_frame_equal(tables.scan(key).collect(), empty)
        with self.can("partition_by"):
            tables.write("by", empty, partition_by=["key"])
            assert_frame_equal(tables.scan("by").collect(), empty)

    def test_no_frames(self, tables: TableStore) -> None:
        assert tables.write("none", iter(())).rows == 0
        assert tables.scan("none").collect().shape == (0, 0)

    @pytest.mark.parametrize("rows", [0, 1, 999, 1000])
    def test_a_table_begins_with_the_rows_of_another(self, tables: TableStore, rows: int) -> None:
        whole, after = shuffled(), shuffled(70)[30:]
        tables.write("head", (whole[start : start + 10] for start in range(0, 1000, 10)))
        expected = pl.concat([whole[:rows], after])
        for key, frames in (("frame", after), ("lazy", after.lazy()), ("parts", iter([after[:15], after[15:]]))):
            reference = tables.write(key, frames, head=TableHead("head", rows))
            assert reference.rows == rows + 40
            assert_frame_equal(tables.scan(reference).collect(), expected)
        tables.write("none", iter(()), head=TableHead("head", rows))
        assert_frame_equal(tables.scan("none").collect(), whole[:rows])
        tables.delete("head")
        tables.write("again", after, head=TableHead("frame", rows + 40))
        tables.delete("frame")
        assert_frame_equal(tables.scan("again").collect(), pl.concat([expected, after]))
        assert sorted(tables.keys()) == ["again", "lazy", "none", "parts"]

    def test_a_head_that_does_not_fit(self, tables: TableStore) -> None:
        tables.write("head", shuffled(10))
        with pytest.raises(DataError):
            tables.write("a", pl.DataFrame({"n": ["x"]}), head=TableHead("head", 10))
        with pytest.raises(NotFoundError):
            tables.write("a", shuffled(10), head=TableHead("nope", 10))
        assert tables.keys() == ["head"]

    def test_a_check(self, tables: TableStore) -> None:
        tables.write("head", shuffled(10))
        tables.write("a", shuffled(10), head=TableHead("head", 10))
        tables.check("head")
        tables.check("a")
        with pytest.raises(NotFoundError):
            tables.check("nope")

    def test_an_existing_table_is_not_replaced(self, tables: TableStore) -> None:
        first = tables.write("a", shuffled(10))
        assert tables.write("a", shuffled(20)) == first
        assert_frame_equal(tables.scan("a").collect(), shuffled(10))

    def test_parts_must_agree(self, tables: TableStore) -> None:
        with pytest.raises(DataError):
            tables.write("a", iter([pl.DataFrame({"a": [1]}), pl.DataFrame({"a": ["x"]})]))
        assert tables.find("a") is None

    def test_nothing_is_visible_of_a_write_that_failed(self, tables: TableStore) -> None:
        def frames() -> Iterator[pl.DataFrame]:
            yield shuffled()
            assert tables.find("a") is None
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            tables.write("a", frames())
        assert tables.find("a") is None
        assert tables.keys() == []
        assert tables.write("a", shuffled(5)).rows == 5

    def test_of_two_writers_of_a_key_one_wins(self, tables: TableStore) -> None:
        def frames() -> Iterator[pl.DataFrame]:
            yield shuffled(5)
            tables.write("a", shuffled(7))

        assert tables.write("a", frames()).rows == 7
        assert_frame_equal(tables.scan("a").collect(), shuffled(7))
        assert tables.keys() == ["a"]

    def test_a_missing_table(self, tables: TableStore) -> None:
        assert tables.find("nope") is None
        tables.write("flights", shuffled(1))
        with pytest.raises(NotFoundError, match="flight") as caught:
            tables.scan("flight")
        assert "flights" in (caught.value.hint or "")

    def test_keys(self, tables: TableStore) -> None:
        names = ["a", "a/b", "a/b/c", "a.parquet/x", "b c", "ä", "x=1/y", ".hidden", "a%2Fb", "Z", "a:b*?"]
        for name in names:
            tables.write(name, shuffled(len(name)))
        assert tables.keys() == sorted(names)
        assert tables.keys("a/") == ["a/b", "a/b/c"]
        for name in names:
            assert tables.scan(name).collect().height == len(name)

    @pytest.mark.parametrize("key", ["", "/a", "a/", "a//b"])
    def test_keys_that_name_nothing(self, tables: TableStore, key: str) -> None:
        with pytest.raises(UsageError):
            tables.write(key, shuffled(1))

    @pytest.mark.parametrize("key", ["..", "../a", "a/../../b", "."])
    def test_keys_do_not_climb(self, tables: TableStore, key: str) -> None:
        tables.write(key, shuffled(3))
        assert tables.keys() == [key]
        assert tables.scan(key).collect().height == 3

    def test_delete(self, tables: TableStore) -> None:
        for key in ("a", "a/b"):
            tables.write(key, shuffled(4))
        tables.delete("a")
        tables.delete("never")
        assert tables.keys() == ["a/b"]
        with pytest.raises(NotFoundError):
            tables.scan("a")
        assert tables.write("a", shuffled(2)).rows == 2
        assert tables.scan("a").collect().height == 2
