"""What becomes of posted rows, case by case: counted, trimmed, refused, carried over, forgotten."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from test_features_online import HOUR, START, TX, ask, card, history, make_plan, tx

from cumulant.core.errors import IntegrityError, RequestError, UsageError
from cumulant.core.plan import FeaturePlan, Field, KnownAt, Source
from cumulant.core.units import to_micros
from cumulant.features.definition.definitions import source
from cumulant.features.definition.loading import collect
from cumulant.features.definition.plan import compile_plan
from cumulant.features.online.materialization import materialize
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import STATE_KEY, decode_state
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.post_reader import AdvanceResult
from cumulant.features.posted.posted_events import log_table
from cumulant.features.posted.state_update import advance
from cumulant.features.posted.update_batches import Advancer
from cumulant.testing.online import MemoryOnline

DAY = 24 * HOUR


def filled(plan: FeaturePlan, hours: list[float], store: MemoryOnline | None = None, **options: Any) -> OnlineFeatures:
    store = MemoryOnline() if store is None else store
    columns = options.pop("columns", {})
    materialize(plan, {"tx": history(hours, **columns)}, store, table="t", **options)
    return OnlineFeatures(plan, store, "t")


def one(online: OnlineFeatures, feature: str, hour: float, **fields: Any) -> Any:
    return online.vectors([ask(hour, **fields)]).columns[feature][0]


def test_a_scored_row_counts_once_for_itself_and_once_for_the_next() -> None:
    online = filled(make_plan(n=card.count(window="9h")), [0])
    writer = online.writer()
    assert writer is not None
    for row, count in ((ask(1), 2), (ask(1), 2), (ask(2, id=100), 3)):
        assert online.vectors([row]).columns["n_9h"] == [count]
        advance([writer], "tx", [row], scored=True)


def test_requests_make_no_source_fresh_until_it_sends_their_rows() -> None:
    store = MemoryOnline()
    online = filled(make_plan(n=card.count(window="9h")), [0], store)
    writer = online.writer()
    assert writer is not None
    newest = [writer.present_state().newest]
    advance([writer], "tx", [ask(1), ask(2, id=100)], scored=True)
    newest.append(writer.present_state().newest)
    assert online.advance("tx", [ask(1)]) == AdvanceResult(duplicates=1)
    newest.append(writer.present_state().newest)
    assert newest == [{"tx": micros(0)}, {"tx": micros(0)}, {"tx": micros(1)}]
    materialize(make_plan(n=card.count(window="9h")), {"tx": history([0])}, store, table="another")
    assert decode_state(store.get("another", [STATE_KEY])[0] or b"").newest == {"tx": micros(1)}


def test_rows_are_counted_by_what_became_of_them() -> None:
    online = filled(make_plan(n=card.count(window="9h")), [0])
    assert online.advance("tx", [ask(1), ask(1), ask(2, id=None), {"card": "a"}]) == AdvanceResult(
        accepted=1, duplicates=1, unkeyed=2
    )
    assert online.advance("weather", [{"x": 1}]) == AdvanceResult(unused=1)
    # of the snapshot, and so nothing new
    assert online.advance("tx", history([0]).to_dicts()) == AdvanceResult(duplicates=1)
    assert one(online, "n_9h", 3) == 2
    with pytest.raises(RequestError, match='"at" takes'):
        online.advance("tx", [{"id": 5, "at": 7}])
    assert OnlineFeatures(make_plan(), None, "t").advance("tx", [{}]) == AdvanceResult(unused=1)


def test_a_label_finds_the_row_of_the_snapshot_that_waited_for_it() -> None:
    plan = make_plan(rate=card.mean("label", window="1d"), n=card.count("label", window="1d"))
    online = filled(plan, [0, 1], columns={"label": [True, None]})
    assert (one(online, "rate_1d", 3), one(online, "n_1d", 3)) == (1.0, 1)
    assert online.advance("tx", [{"id": 1, "label": False}]) == AdvanceResult(accepted=1)
    assert (one(online, "rate_1d", 3), one(online, "n_1d", 3)) == (0.5, 2)
    # the first value stands
    assert online.advance("tx", [{"id": 1, "label": True}]) == AdvanceResult(duplicates=1)
    assert one(online, "rate_1d", 3) == 0.5
    assert one(online, "n_1d", 1.5) == 1


def test_what_a_filling_as_of_a_moment_hid_can_be_told() -> None:
    plan = make_plan(rate=card.mean("label", window="1d"))
    online = filled(plan, [0, 1], as_of=START + 1.5 * HOUR)
    assert one(online, "rate_1d", 3) == 1.0
    online.advance("tx", [{"id": 1, "label": False}])
    assert one(online, "rate_1d", 3) == 0.5
    assert online.advance("tx", [{"id": 0, "label": False}]) == AdvanceResult(accepted=1)
    assert one(online, "rate_1d", 3) == 0.5, "the snapshot held that label already"


def test_of_rows_known_at_one_moment_the_one_with_the_larger_key_comes_last() -> None:
    plan = make_plan(seen=card.last("label", window="1d"), newest=tx.as_of("card").columns("label"))
    online = filled(plan, [])
    online.advance("tx", [{"id": 1}, {"id": 2}])
    online.advance("tx", [ask(1, id=2, label=True)])
    online.advance("tx", [ask(1, id=1, label=False)])
    assert (one(online, "seen_1d", 3), one(online, "label", 3)) == (True, True)


def micros(hours: float) -> int:
    """Microseconds of a moment so many hours after the start."""
    return to_micros(START + hours * HOUR)


def test_a_row_makes_room_and_later_moments_are_answered_from_what_is_left() -> None:
    online = filled(make_plan(n=card.count(window="2h")), [0, 1, 10])
    online.advance("tx", [ask(26, id=50), ask(26, id=51)])
    assert one(online, "n_2h", 2) == 2, "all that a moment a day ago can see is there"
    assert one(online, "n_2h", 2.5) == 2
    late = online.vectors([ask(1.9), ask(2.5), ask(1, card="b")])
    assert late.columns["n_2h"] == [2, 2, 1]
    assert late.late == [micros(2), None, None]
    assert late.incomplete == {0: ("n_2h",)}
    # too late to matter
    assert online.advance("tx", [ask(0.1, id=52)]).accepted == 1
    assert one(online, "n_2h", 2.5) == 2


def test_one_row_of_a_wrong_date_drops_nothing() -> None:
    online = filled(make_plan(n=card.count(window="2h")), [0, 1, 10])
    online.advance("tx", [ask(10_000, id=50)])
    assert online.vectors([ask(1.5)]).late == [None]
    assert one(online, "n_2h", 1.5) == 3
    online.advance("tx", [ask(11, id=51)])
    assert one(online, "n_2h", 1.5) == 3
    assert one(online, "n_2h", 11.5) == 3, "rows after it enter as before"


def test_rows_of_the_future_drop_nothing_however_many() -> None:
    plan, store = make_plan(n=card.count(window="2h")), MemoryOnline()
    online = filled(plan, [0, 1], store)
    writer = StateWriter(plan, store, "t", now_us=lambda: micros(500))
    with Advancer([writer]) as advancer:
        advancer.post("tx", [ask(1000 + number, id=50 + number) for number in range(20)]).result()
    assert one(online, "n_2h", 1.5) == 3
    assert online.vectors([ask(1.5)]).late == [None]


def test_rows_beyond_the_declared_skew_are_left_out_and_counted() -> None:
    plan, store = make_plan(n=card.count(window="2h")), MemoryOnline()
    online = filled(plan, [0, 1], store)
    writer = StateWriter(plan, store, "t", now_us=lambda: micros(2))
    with Advancer([writer], skew_us=micros(1) - micros(0)) as advancer:
        done = advancer.post("tx", [ask(2.5, id=50), ask(3, id=51), ask(3.1, id=52), ask(9000, id=53)]).result()
    assert done == AdvanceResult(accepted=2, future=2)
    assert one(online, "n_2h", 3.2, id=99) == 3, "the row itself and two that were taken"
    assert one(online, "n_2h", 9000.1, id=99) == 1


def test_the_newest_row_is_kept_for_lookups_without_a_limit() -> None:
    online = filled(make_plan(ever=tx.as_of("card").columns("amount")), [0, 1])
    online.advance("tx", [ask(200, id=50), ask(201, id=53), ask(100, id=51), ask(1.5, id=52, amount=3.0)])
    assert one(online, "amount", 176, id=60) == 10.0
    assert online.vectors([ask(100, id=60)]).late == [micros(200 - 24)]


def test_a_row_of_the_future_does_not_push_out_the_present() -> None:
    plan, store = make_plan(n=card.count(window="2h")), MemoryOnline()
    filled(plan, [0, 1], store)
    now = START + 1 * HOUR
    writer = StateWriter(plan, store, "t", now_us=lambda: int(now.timestamp() * 1e6))
    with Advancer([writer]) as advancer:
        advancer.post("tx", [ask(1000, id=50)]).result()
    assert one(OnlineFeatures(plan, store, "t"), "n_2h", 1.5) == 3


def test_stored_rows_leave_the_log_when_nobody_waits_for_them() -> None:
    plan, store = make_plan(n=card.count(window="2h")), MemoryOnline()
    online = filled(plan, [0], store)
    online.advance("tx", [ask(1, id=1, amount=2.0), ask(2, id=7), ask(2400, id=8)])
    assert len(keys(store)) == 7
    # 100 days later the snapshot holds the first of them, and nobody has seen the second
    filled(plan, [0, 1, 2400], store)
    assert len(keys(store)) == 5
    assert one(OnlineFeatures(plan, store, "t"), "n_2h", 2400.5, id=70) == 3


def keys(store: MemoryOnline) -> list[bytes]:
    return list(store._tables[log_table("", "tx")])


def test_several_plans_advance_together_and_one_that_was_left_out_catches_up() -> None:
    store = MemoryOnline()
    plans = [make_plan(n=card.count(window="2h")), make_plan(m=card.mean("amount", window="9h"))]
    for i, plan in enumerate(plans):
        materialize(plan, {"tx": history([0])}, store, table=f"t{i}")
    first, second = (OnlineFeatures(plan, store, f"t{i}") for i, plan in enumerate(plans))
    first.advance("tx", [ask(1)])
    assert second.catch_up() == 1
    assert second.catch_up() == 0
    assert one(second, "m_9h", 2, id=60, amount=4.0) == 5.0
    first.advance("tx", [ask(1.5, id=61)])
    second.advance("tx", [ask(1.6, id=62, amount=4.0)])
    assert one(second, "m_9h", 2, id=60, amount=1.0) == pytest.approx((1 + 10 + 10 + 4 + 1) / 5)
    with Advancer([first.writer(), second.writer()]) as advancer:  # type: ignore[list-item]
        assert advancer.post("tx", [ask(1.7, id=63)]).result() == AdvanceResult(accepted=1)
    assert (one(first, "n_2h", 1.8, id=64), second.catch_up()) == (6, 0)


def test_tables_of_several_scopes_do_not_advance_together() -> None:
    plan, store = make_plan(n=card.count(window="2h")), MemoryOnline()
    for scope in ("a", "b"):
        materialize(plan, {"tx": history([0])}, store, table=scope, scope=scope)
    writers = [StateWriter(plan, store, "a"), StateWriter(plan, store, "b")]
    with Advancer(writers) as advancer, pytest.raises(UsageError, match="several scopes"):
        advancer.post("tx", [ask(1)]).result()


def test_rows_of_many_threads_are_committed_together() -> None:
    plan, store = make_plan(n=card.count(window="9h")), MemoryOnline()
    online = filled(plan, [0], store)
    commits: list[int] = []
    update = store.update
    store.update = lambda change: commits.append(1) or update(change)  # type: ignore[method-assign]
    gate = threading.Event()
    acknowledged: list[AdvanceResult] = []
    with Advancer([online.writer()]) as advancer:  # type: ignore[list-item]
        futures = [advancer.post("tx", [ask(1, id=100 + i)]) for i in range(200)]
        futures[-1].add_done_callback(lambda future: (acknowledged.append(future.result()), gate.set()))
        with pytest.raises(RequestError):
            advancer.post("tx", [{"id": "x"}])
        assert gate.wait(60)
        assert sum(future.result(10).accepted for future in futures) == 200
    assert acknowledged == [AdvanceResult(accepted=1)]
    assert len(commits) < 100
    assert one(online, "n_9h", 2, id=1) == 202
    with pytest.raises(UsageError, match="closed"):
        advancer.post("tx", [ask(1)])


@pytest.mark.parametrize(("remote", "most"), [(False, 512), (True, 128)])
def test_a_commit_takes_so_many_rows_at_most(remote: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryOnline, "remote", remote)
    plan, store = make_plan(n=card.count(window="9h")), MemoryOnline()
    online, counts, update = filled(plan, [0], store), list[int](), StateWriter.take
    monkeypatch.setattr(StateWriter, "take", lambda *of: (taken := update(*of), counts.append(taken.rows))[0])
    rows = [ask(1, id=1000 + number) for number in range(1200)]
    with Advancer([online.writer()]) as advancer:  # type: ignore[list-item]
        many = advancer.post("tx", [*rows, *rows[:2]])
        few = [advancer.post("tx", [ask(1, id=5000 + 50 * at + number) for number in range(50)]) for at in range(30)]
        assert many.result() == AdvanceResult(accepted=1200, duplicates=2)
        assert sum(done.result().accepted for done in few) == 1500
    assert max(counts) <= most
    assert len(counts) < 30
    assert one(online, "n_9h", 2, id=1) == 2702


def test_a_commit_that_fails_tells_everyone_who_waits_and_the_next_works() -> None:
    plan, store = make_plan(n=card.count(window="9h")), MemoryOnline()
    online = filled(plan, [0], store)
    state = store.get("t", [b"\x00state"])[0]
    with Advancer([online.writer()]) as advancer:  # type: ignore[list-item]
        store.put("t", [(b"\x00state", b"rubbish")])
        with pytest.raises(IntegrityError):
            advancer.post("tx", [ask(1)]).result()
        store.put("t", [(b"\x00state", state or b"")])
        assert advancer.post("tx", [ask(1)]).result() == AdvanceResult(accepted=1)


def test_a_source_without_a_key_cannot_be_posted_to() -> None:
    plain = Source("tx", (), "at", TX.fields, TX.known)
    plan, store = (
        compile_plan(collect({"n": card.count(window="9h")}), {"tx": plain}, entity="tx", predict_at=None),
        MemoryOnline(),
    )
    online = filled(plan, [0], store)
    assert online.advance("tx", [ask(1)]) == AdvanceResult(unkeyed=1)
    assert one(online, "n_9h", 2) == 2


def test_a_row_that_is_told_before_its_time_column_waits_for_it() -> None:
    trips = Source(
        "tx",
        ("id",),
        "at",
        (Field("id", "int"), Field("card", "str"), Field("at", "time"), Field("end", "time"), Field("km", "float")),
        {"km": KnownAt("end")},
    )
    plan = compile_plan(
        collect({"km": source("tx").by("card").sum("km", window="9h")}), {"tx": trips}, entity="tx", predict_at=None
    )
    store = MemoryOnline()
    frame = history([]).select("id", "card", "at", end="at", km="amount")
    materialize(plan, {"tx": frame}, store, table="t")
    online = OnlineFeatures(plan, store, "t")
    online.advance("tx", [{"id": 1, "km": 7.0}])
    online.advance("tx", [{"id": 1, "end": START + 2 * HOUR}])
    asked = {"card": "a", "at": START + 3 * HOUR}
    assert online.vectors([asked]).columns["km_9h"] == [None]
    online.advance("tx", [{"id": 1, "card": "a", "at": START + timedelta(hours=1)}])
    assert online.vectors([asked, {**asked, "at": START + HOUR}]).columns["km_9h"] == [7.0, None]


def test_more_rows_than_one_update_takes_in_are_all_there() -> None:
    plan, store = make_plan(n=card.count(window="9h"), m=card.count("label", window="9h")), MemoryOnline()
    online = filled(plan, [0], store)
    rows = [ask(1, id=100 + i, label=None if i % 2 else True) for i in range(2_500)]
    assert online.advance("tx", rows + rows[:10]) == AdvanceResult(accepted=2_500, duplicates=10)
    assert online.vectors([ask(3, id=1)]).columns == {"n_9h": [2_502], "m_9h": [1_251]}
    # months later a snapshot holds the first 1,500 of them: the log is left with the others
    frame = history([2_400.0 + i for i in range(1_500)], id=[100 + i for i in range(1_500)])
    materialize(plan, {"tx": frame}, store, table="new")
    assert sum(key.startswith(b"\x02") for key in keys(store)) == 1_000
    assert sum(key.startswith(b"\x01") for key in keys(store)) == 1_000
    new = OnlineFeatures(plan, store, "new")
    assert new.vectors([ask(3_899.5, id=1)]).columns == {"n_9h": [10], "m_9h": [9]}
    assert new.advance("tx", rows[1_500:]).duplicates == 1_000
