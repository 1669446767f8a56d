"""Rules of the port `journal`."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, ClassVar

import pytest

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import GENESIS, Actor, Fact, verify_chain
from cumulant.core.scope import Scope
from cumulant.ports.journal import ChainHead, Journal
from cumulant.testing.conformance.gaps import Suite

ADA = Actor("user:ada", reason="a test")


class Happened(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.happened"
    number: int = 0
    share: float = 0.5
    names: tuple[str, ...] = ()


class Followed(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.followed"
    schema: ClassVar[int] = 2


Connect = Callable[[Scope], Journal]


class JournalConformance(Suite):
    """Give two fixtures: `journal`, an empty one of the scope `Scope()`, and `connect`, which makes a further client of
    the same store for any scope. The gap `processes` is of a journal that one process alone can use.
    """

    @pytest.fixture
    def journal(self) -> Journal:
        raise NotImplementedError

    @pytest.fixture
    def connect(self) -> Connect:
        raise NotImplementedError

    def test_a_row_is_read_as_it_was_written(self, journal: Journal) -> None:
        value: dict[str, object] = {"n": 1, "x": 0.1, "t": "ä\n", "list": [1, None, True], "of": {"a": {}}}
        with journal.transaction(actor=ADA) as tx:
            written = tx.put("step", "a", value)
        assert journal.get("step", "a") == written
        assert written.value == value
        assert (written.kind, written.key, written.version) == ("step", "a", 1)
        assert written.updated.utcoffset() is not None

    def test_an_absent_row_is_none(self, journal: Journal) -> None:
        assert journal.get("step", "a") is None
        assert journal.rows("step") == []

    def test_a_later_change_of_the_value_does_not_reach_the_row(self, journal: Journal) -> None:
        value: dict[str, object] = {"list": [1]}
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", value)
            value["list"] = [2]
        row = journal.get("step", "a")
        assert row is not None
        assert row.value == {"list": [1]}

    def test_each_write_raises_the_version(self, journal: Journal) -> None:
        for number in (1, 2, 3):
            with journal.transaction(actor=ADA) as tx:
                assert tx.put("step", "a", {"n": number}).version == number

    def test_expect_writes_only_over_that_version(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"n": 1}, expect=0)
        for wrong in (0, 2):
            with pytest.raises(LeaseHeldError), journal.transaction(actor=ADA) as tx:
                tx.put("step", "a", {"n": 9}, expect=wrong)
        with journal.transaction(actor=ADA) as tx:
            assert tx.put("step", "a", {"n": 2}, expect=1).version == 2

    def test_expect_of_an_absent_row(self, journal: Journal) -> None:
        with pytest.raises(LeaseHeldError), journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {}, expect=1)
        assert journal.get("step", "a") is None

    def test_a_version_never_comes_back(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            first = tx.put("step", "a", {})
            tx.delete("step", "a")
            again = tx.put("step", "a", {}, expect=0)
        assert again.version > first.version
        with pytest.raises(LeaseHeldError), journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {}, expect=first.version)

    def test_delete(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {})
            tx.delete("step", "a")
            tx.delete("step", "never")
            assert tx.get("step", "a") is None
        assert journal.get("step", "a") is None
        assert journal.rows("step") == []

    def test_rows_are_ordered_and_chosen_by_kind_and_prefix(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            for key in ("b", "a/2", "a/10", "a", "á", "a%", "A"):
                tx.put("step", key, {})
            tx.put("run", "a/3", {})
        assert [row.key for row in journal.rows("step")] == ["A", "a", "a%", "a/10", "a/2", "b", "á"]
        assert [row.key for row in journal.rows("step", "a/")] == ["a/10", "a/2"]
        assert [row.key for row in journal.rows("step", "a%")] == ["a%"]
        assert journal.rows("step", "z") == []

    def test_only_the_transaction_sees_its_uncommitted_writes(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"n": 1})
            tx.emit(Happened())
            seen = tx.get("step", "a")
            assert seen is not None
            assert [row.key for row in tx.rows("step")] == ["a"]
            assert journal.get("step", "a") is None
            assert list(journal.events()) == []
        assert journal.get("step", "a") == seen
        assert len(list(journal.events())) == 1

    def test_an_exception_undoes_state_and_events(self, journal: Journal) -> None:
        def interrupted() -> None:
            with journal.transaction(actor=ADA) as tx:
                tx.put("step", "a", {})
                tx.emit(Happened())
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert journal.get("step", "a") is None
        assert list(journal.events()) == []
        assert journal.head() == ChainHead(0, GENESIS)
        with journal.transaction(actor=ADA) as tx:
            assert tx.emit(Happened()).seq == 1

    def test_the_envelope_of_an_event(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA, run="r1") as tx:
            first = tx.emit(Happened(number=7, names=("a", "b")))
            second = tx.emit(Followed(), cause=first.id)
        assert list(journal.events()) == [first, second]
        assert (first.seq, first.kind, first.schema, first.run, first.cause) == (1, "test.happened", 1, "r1", None)
        assert (first.actor, first.reason) == ("user:ada", "a test")
        assert first.data == {"number": 7, "share": 0.5, "names": ["a", "b"]}
        assert (second.seq, second.schema, second.cause, second.data) == (2, 2, first.id, {})
        assert first.id != second.id
        assert first.time.utcoffset() is not None

    def test_events_are_a_chain(self, journal: Journal) -> None:
        for number in range(5):
            with journal.transaction(actor=ADA) as tx:
                tx.emit(Happened(number=number))
                tx.emit(Followed())
        events = list(journal.events())
        assert list(verify_chain(events)) == []
        assert journal.head() == ChainHead(10, events[-1].hash)
        assert [event.previous for event in events] == [GENESIS, *(event.hash for event in events[:-1])]

    def test_events_are_chosen_by_cursor_kind_and_run(self, journal: Journal) -> None:
        for run in ("r1", "r2", None):
            with journal.transaction(actor=ADA, run=run) as tx:
                tx.emit(Happened())
                tx.emit(Followed())

        def chosen(**choice: Any) -> list[int]:
            return [event.seq for event in journal.events(**choice)]

        assert chosen(after=2, limit=2) == chosen(run="r2", kinds=["*"]) == chosen(run="r2", kinds=["test."]) == [3, 4]
        assert chosen(kinds=["test.followed"]) == chosen(kinds=["tes.", "test.f*", "test.h"]) == [2, 4, 6]
        assert chosen(kinds=["", "t.h."]) + chosen(after=6) + chosen(run="r2", kinds=["test.happened", "test"]) == [3]

    def test_many_events_are_read_while_more_are_written(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            for number in range(1200):
                tx.emit(Happened(number=number))
        seen = []
        for event in journal.events(limit=1100):
            seen.append(event.seq)
            if event.seq == 600:
                with journal.transaction(actor=ADA) as tx:
                    tx.emit(Followed())
        assert seen == list(range(1, 1101))

    def test_a_cursor_never_moves_back(self, journal: Journal) -> None:
        assert journal.cursor("console") == 0
        journal.advance("console", 5)
        journal.advance("console", 3)
        journal.advance("metrics", 1)
        assert journal.cursor("console") == 5
        assert journal.cursor("metrics") == 1

    def test_threads_wait_for_each_other(self, journal: Journal) -> None:
        def count() -> None:
            for _ in range(10):
                with journal.transaction(actor=ADA) as tx:
                    row = tx.get("count", "all")
                    before = row.value["n"] if row else 0
                    assert isinstance(before, int)
                    tx.put("count", "all", {"n": before + 1})
                    tx.emit(Happened(number=before))

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        row = journal.get("count", "all")
        assert row is not None
        assert row.value == {"n": 40}
        assert [event.data["number"] for event in journal.events()] == list(range(40))
        assert list(verify_chain(journal.events())) == []

    def test_rows_are_read_in_pages(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            for key in ("b", "a/1", "a/2", "a/3", "c"):
                tx.put("step", key, {})
            assert [row.key for row in tx.rows("step", after="a/2", limit=2)] == ["a/3", "b"]
        assert [row.key for row in journal.rows("step", limit=2)] == ["a/1", "a/2"]
        assert [row.key for row in journal.rows("step", "a/", after="a/1")] == ["a/2", "a/3"]
        assert [row.key for row in journal.rows("step", "a/", after="A", limit=1)] == ["a/1"]
        assert journal.rows("step", after="c") == journal.rows("step", limit=0) == []

    def test_rows_are_read_in_pages_from_the_last_key(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            for key in ("b", "a/1", "a/2", "a/3", "c", "á"):
                tx.put("step", key, {})
            tx.delete("step", "a/2")

        def keys(prefix: str = "", **page: Any) -> str:
            return " ".join(row.key for row in journal.rows("step", prefix, descending=True, **page))

        assert (keys(), keys(limit=2), keys(after="c", limit=2)) == ("á c b a/3 a/1", "á c", "b a/3")
        assert (keys("a/"), keys("a/", after="a/3"), keys("a/", after="z", limit=1)) == ("a/3 a/1", "a/1", "a/3")
        assert keys("a/", after="A") == keys(after="a/1") == keys(limit=0) == ""

    def test_rows_are_counted_and_their_versions_read_without_values(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            for key in ("a/1", "b", "a/2", "a/2"):
                tx.put("step", key, {})
            tx.delete("step", "b")
        assert [(row.key, row.version) for row in journal.row_versions("step")] == [("a/1", 1), ("a/2", 2)]
        last = journal.row_versions("step", "a/", descending=True, limit=1)
        assert [row.updated for row in last] == [row.updated for row in journal.rows("step", "a/2")]
        assert [row.key for row in journal.row_versions("step", after="a/1")] == ["a/2"]
        assert (journal.count("step"), journal.count("step", "a/1"), journal.count("step", "z")) == (2, 1, 0)

    def test_waiting_ends_with_the_next_event(self, journal: Journal) -> None:
        assert not journal.wait(0, 0)
        with journal.transaction(actor=ADA) as tx:
            tx.emit(Happened())
        assert journal.wait(0, 60)
        assert not journal.wait(1, 0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(journal.wait, 1, 60)
            with journal.transaction(actor=ADA) as tx:
                tx.put("step", "a", {})
            with journal.transaction(actor=ADA) as tx:
                tx.emit(Followed())
            assert waiting.result()

    def test_a_client_sees_its_own_scope_alone(self, journal: Journal, connect: Connect) -> None:
        scopes = [
            Scope(project="other"),
            Scope(environment="prod"),
            Scope(tenant="acme"),
            Scope(tenant="a-b", project="c"),
            Scope(tenant="a", project="b-c"),
        ]
        others = [connect(scope) for scope in scopes]
        for number, client in enumerate([journal, *others], 1):
            for _ in range(number):
                with client.transaction(actor=ADA, run="r1") as tx:
                    tx.put("step", "a", {"n": number})
                    tx.emit(Happened(number=number))
            client.advance("console", number)
        for number, client in enumerate([journal, *others], 1):
            row = client.get("step", "a")
            assert row is not None
            assert (row.value, row.version) == ({"n": number}, number)
            assert len(client.rows("step")) == 1
            assert [event.data["number"] for event in client.events(run="r1")] == [number] * number
            assert list(verify_chain(client.events())) == []
            assert client.head().seq == number
            assert client.cursor("console") == number
        for scope, client in zip(scopes, others, strict=True):
            event = next(client.events())
            assert (event.tenant, event.project, event.environment) == (scope.tenant, scope.project, scope.environment)
            with client.transaction(actor=ADA) as tx:
                tx.delete("step", "a")
            client.close()
        assert journal.get("step", "a") is not None

    def test_two_clients_of_a_scope_share_it(self, journal: Journal, connect: Connect) -> None:
        other = connect(Scope())
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"n": 1})
            tx.emit(Happened())
        assert other.get("step", "a") == journal.get("step", "a")
        with other.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"n": 2}, expect=1)
            assert tx.emit(Happened()).seq == 2
        with pytest.raises(LeaseHeldError), journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"n": 3}, expect=1)
        other.close()

    def test_processes_write_one_chain(self, journal: Journal, connect: Connect) -> None:
        if "processes" in self.gaps:
            pytest.skip(self.gaps["processes"].reason)
        context = multiprocessing.get_context("fork")
        ready = context.Barrier(4)
        workers = [context.Process(target=_count, args=(connect, ready)) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        row = journal.get("count", "all")
        assert row is not None
        assert (row.value, row.version) == ({"n": 40}, 40)
        assert [event.data["number"] for event in journal.events()] == list(range(40))
        assert list(verify_chain(journal.events())) == []

    def test_a_report_is_written_over_the_version_that_is_expected(self, journal: Journal, connect: Connect) -> None:
        first = journal.report("machine", "a", {"n": 1}, expect=0)
        second = journal.report("machine", "a", {"n": 2}, expect=first.version)
        assert (second.kind, second.key, second.value) == ("machine", "a", {"n": 2})
        assert second.version > first.version
        assert second.updated.utcoffset() is not None
        for wrong in (0, first.version, second.version + 1):
            with pytest.raises(LeaseHeldError):
                journal.report("machine", "a", {"n": 9}, expect=wrong)
        with pytest.raises(LeaseHeldError):
            journal.report("machine", "b", {}, expect=1)
        other = connect(Scope())
        assert other.reports("machine") == journal.reports("machine") == [second]
        assert other.report("machine", "a", {"n": 3}, expect=second.version).value == {"n": 3}
        other.close()

    def test_a_removed_report_never_gets_an_earlier_version_again(self, journal: Journal) -> None:
        first = journal.report("machine", "a", {}, expect=0)
        assert not journal.remove_report("machine", "a", expect=first.version + 1)
        assert not journal.remove_report("machine", "b", expect=0)
        assert journal.remove_report("machine", "a", expect=first.version)
        assert not journal.remove_report("machine", "a", expect=first.version)
        assert journal.reports("machine") == []
        with pytest.raises(LeaseHeldError):
            journal.report("machine", "a", {}, expect=first.version)
        assert journal.report("machine", "a", {}, expect=0).version > first.version

    def test_reports_are_apart_from_rows_and_events_and_those_of_other_scopes(
        self, journal: Journal, connect: Connect
    ) -> None:
        for key in ("b", "a"):
            journal.report("step", key, {"of": "report"}, expect=0)
        with journal.transaction(actor=ADA) as tx:
            assert tx.get("step", "a") is None
            tx.put("step", "a", {"of": "state"}, expect=0)
        row = journal.get("step", "a")
        assert row is not None
        assert row.value == {"of": "state"}
        assert [row.key for row in journal.rows("step")] == ["a"]
        assert [(row.key, row.value) for row in journal.reports("step")] == [
            ("a", {"of": "report"}),
            ("b", {"of": "report"}),
        ]
        assert journal.reports("other") == []
        assert journal.head() == ChainHead(0, GENESIS)
        other = connect(Scope(project="other"))
        assert other.reports("step") == []
        other.close()

    def test_close_twice(self, journal: Journal) -> None:
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {})
        journal.close()
        journal.close()


def _count(connect: Connect, ready: Barrier) -> None:
    """Count on from what is stored, in a process of its own."""
    journal = connect(Scope())
    ready.wait()
    for _ in range(10):
        with journal.transaction(actor=ADA) as tx:
            row = tx.get("count", "all")
            before = row.value["n"] if row else 0
            assert isinstance(before, int)
            tx.put("count", "all", {"n": before + 1}, expect=row.version if row else 0)
            tx.emit(Happened(number=before))
    journal.close()
