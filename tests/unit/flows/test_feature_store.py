"""Stored features of a project: what is known of them, how fresh they are, and their values read directly."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from cumulant.cli.app import run as command
from cumulant.core.errors import (
    ConflictError,
    CumulantError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    RequestError,
    UsageError,
)
from cumulant.core.ids import digest, short
from cumulant.core.servable import Input
from cumulant.features.offline.offline import compute
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.online import OnlineFeatures
from cumulant.features.online.state import STATE_KEY
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.data.validate import newest_snapshot, snapshots_of, validate
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.features.backfill import backfill
from cumulant.flows.features.feature_table import scans, used_sources
from cumulant.flows.features.freshness import evaluate_freshness, show_freshness
from cumulant.flows.features.online_read import FeatureReaders, OnlineReadRequest, read_at_once, read_features
from cumulant.flows.features.store_status import feature_status
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.maintenance.unneeded_files import unneeded_states
from cumulant.flows.observe.data_metrics import data_series
from cumulant.flows.overview.project_overview import OverviewMemory
from cumulant.flows.serving.serve import materialize
from cumulant.flows.serving.stored_keys import show_key
from cumulant.packaging.builder import build
from cumulant.ports.access import Principal
from cumulant.ports.deploy import STATE_TABLE, ServedSpec
from cumulant.project.file.loading import load
from cumulant.server import handler
from cumulant.server.operation import ApiCall
from cumulant.server.operations.features import OnlineBody, online
from cumulant.testing.access import GrantedAccess
from cumulant.testing.clock import ManualClock
from cumulant.testing.registry import MemoryRegistry
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.payload import LinearWeights

ME = Principal("tester")
#: a program that is killed while it writes a table of the online store
KILLED = """\
import os, signal, sys
from cumulant.flows.features.backfill import backfill
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load

def progress(text, share=None):
    if text.startswith("visits by kind"):
        os.kill(os.getpid(), signal.SIGKILL)

with load(sys.argv[1]) as project:
    backfill(project, principal=Principal("tester"), progress=progress)
"""
FILE = """\
version: 1
model: {name: visits, owner: web}
data:
  visits:
    path: visits.csv
    key: id
    event_time: {column: at, zone: UTC}
    DECLARED
training: {target: bought, predict_at: at}
"""
FEATURES = """\
from cumulant.features import col, source
visits = source("visits")
pages = visits.by("who").mean("pages", window="2d")
number = visits.by("who").count(window="2d")
last = visits.by("kind").sum("pages", window="2d")
double = pages * 2
share = col("pages") / pages
"""
BEGIN = datetime(2026, 1, 1, 10, tzinfo=UTC)
END = BEGIN + timedelta(hours=39)
TABLE, OBJECT = "state_1", "servables/1"


def open_project(folder, declared="freshness: 2h"):
    rows = (f"{n},{BEGIN + timedelta(hours=n):%Y-%m-%d %H:%M},w{n % 3},k,{n},{n % 2}\n" for n in range(40))
    (folder / "visits.csv").write_text("id,at,who,kind,pages,bought\n" + "".join(rows))
    (folder / "features.py").write_text(FEATURES)
    (folder / "cumulant.yaml").write_text(FILE.replace("DECLARED", declared))
    return load(folder)


def fill(project, table=""):
    """Stored features of the present definition; the plan and the table."""
    with open_run(project, "plan", principal=ME, progress=lambda *_: None) as context:
        snapshots = snapshots_of(context, ["visits"])[0]
        plan = resolve_task(project, snapshots).plan
        return plan, materialize(context, plan, snapshots, as_of=None, into=table)[0]


def serve(project, plan, folder, table=TABLE):
    """Version 1, which is served from a table."""
    card = ModelCard(
        kind="linear", trainer="linear", task="binary", classes=("0", "1"), inputs=(Input("pages_2d", "number"),)
    )
    weights = LinearWeights(
        columns=(0,), fill=(0.0,), mean=(0.0,), scale=(1.0,), weight=((1.0,),), missing=((0.0,),), tables={},
        bias=(0.0,), link="sigmoid",
    )  # fmt: skip
    build(
        FittedModel(card, weights), plan, name="visits", sample={"pages_2d": [1.0]}, out=folder, lineage={}, example={}
    )
    project.objects().put(OBJECT, folder)
    spec = ServedSpec(version="1", servable=OBJECT, arguments={STATE_TABLE: table})
    deployment_of(project).ensure("visits", [spec])


def post(project, plan, table, number, at, who="w0"):
    hashed = HashedKeys.of(plan, project.salt)
    row = {"id": number, "at": at, "who": who, "kind": "k", "pages": 1000}
    return OnlineFeatures(hashed.plan, project.online(), table).advance("visits", [row])


@pytest.fixture
def registry(monkeypatch):
    registry = MemoryRegistry()
    monkeypatch.setattr("cumulant.project.project.Project.registry", lambda self: registry)
    return registry


def test_status_says_what_is_stored_how_old_it_is_and_whether_it_fits_what_is_served(tmp_path, registry):
    with open_project(tmp_path) as project:
        clock = ManualClock(END + timedelta(hours=1))
        assert feature_status(project, principal=ME, clock=clock).tables == ()
        plan, _ = fill(project, TABLE)
        (table,) = feature_status(project, principal=ME, clock=clock).tables
        assert (table.table, table.served, table.keys, table.events) == (TABLE, (), 4, 80)
        assert table.fingerprint == short(digest(plan))
        (source,) = table.sources
        assert (source.newest, source.staleness, source.objective, source.stale) == (END, 3600.0, 7200.0, False)
        assert source.owner == "web"

        serve(project, plan, tmp_path / "model")
        clock.move(timedelta(hours=1, seconds=1))
        status = feature_status(project, principal=ME, clock=clock)
        (table,) = status.tables
        assert (status.faulty, table.served, table.faults) == (True, ("visits/1",), ())
        # A row makes it fresh; one dated after the clock of the writer does not.
        post(project, plan, TABLE, 900, END + timedelta(hours=1))
        post(project, plan, TABLE, 901, datetime.now(UTC) + timedelta(days=3))
        status = feature_status(project, principal=ME, clock=clock)
        assert (status.faulty, status.tables[0].sources[0].staleness) == (False, 3601.0)
        series = {each.family: each.value for each in data_series(project)}
        assert series["cumulant_online_newest_timestamp_seconds"] == (END + timedelta(hours=1)).timestamp()
        assert series["cumulant_online_freshness_objective_seconds"] == 7200.0

        # Another definition under the same name, and then nothing at all.
        (tmp_path / "features.py").write_text(FEATURES.replace('window="2d"', 'window="3d"', 1))
        fill(project, TABLE)
        status = feature_status(project, principal=ME, clock=clock)
        (fault,) = status.tables[0].faults
        assert status.faulty
        assert "visits/1 has other windows and lookups" in fault.sentence
        assert fault.next == "cumulant features backfill visits/1"
        project.online().drop(TABLE)
        (fault,) = feature_status(project, principal=ME, clock=clock).tables[0].faults
        assert "does not have the table state_1" in fault.sentence


def test_a_freshness_objective_that_is_missed_is_an_alert_until_rows_come(tmp_path, capsys):
    with open_project(tmp_path, "owner: shop\n    freshness: 2h") as project:
        clock = ManualClock(END + timedelta(hours=3))

        def firing():
            evaluate_freshness(project, principal=ME, clock=clock)
            return [alert.finding.moved for alert in read_alerts(project.journal())[0].firing]

        assert show_freshness(project, principal=ME, clock=clock).missed == []  # nothing is stored
        plan, _ = fill(project, TABLE)
        assert firing() == []  # and served
        serve(project, plan, tmp_path / "model")
        old = "the newest stored event of visits is 3h old; the objective is 2h"
        assert firing() == [old]
        # A table that is lost makes nothing fresh.
        project.online().drop(TABLE)
        for _ in range(3):
            clock.move(timedelta(minutes=6))
            assert firing() == [old]
        text = evaluate_freshness(project, principal=ME, clock=clock)
        lost = "the online store does not have the table state_1, which is served"
        assert text == f"{old}; {lost}; the alert on visits stays while its age is not known"
        report = show_freshness(project, principal=ME, clock=clock)
        assert (report.lost, report.unknown, report.sources[0].newest) == ((TABLE,), ("visits",), None)
        assert command(["features", "freshness", "--project", str(tmp_path)]) == 0
        assert lost in capsys.readouterr().out
        clock.move(timedelta(minutes=-18))
        fill(project, TABLE)
        assert firing() == [old]
        post(project, plan, TABLE, 900, END + timedelta(hours=3))
        clock.move(timedelta(minutes=6))
        firing()
        clock.move(timedelta(minutes=6))
        assert firing() == []
        report = show_freshness(project, principal=ME, clock=clock)
        assert (report.served, report.missed, report.sources[0].owner) == (True, [], "shop")
    assert command(["features", "freshness", "--project", str(tmp_path)]) == 1  # by the present clock
    assert "stale" in capsys.readouterr().out
    with open_project(tmp_path, "keep: 30d") as project:
        assert evaluate_freshness(project, principal=ME) == "the project declares no freshness objectives"
    assert command(["features", "freshness", "--project", str(tmp_path)]) == 0
    assert "add `freshness: 10m`" in capsys.readouterr().out


def test_features_of_entities_are_those_of_the_history_at_any_moment(tmp_path, registry, capsys):
    with open_project(tmp_path) as project:
        read = OnlineReadRequest([{"who": "w0"}], definition=True)
        validate(project, principal=ME)
        with pytest.raises(ConflictError, match="nothing is stored of the project's definition yet") as not_filled:
            read_features(project, read, principal=ME)
        assert not_filled.value.hint == "fill it: cumulant features backfill"
        with pytest.raises(NotFoundError) as none_serves:
            read_features(project, OnlineReadRequest([{"who": "w0"}]), principal=ME)
        assert "`--definition`" in none_serves.value.hint
        plan, table = fill(project)
        readers = FeatureReaders()

        def values(keys, **options):
            request = OnlineReadRequest(keys, definition=True, **options)
            return read_features(project, request, principal=ME, readers=readers)

        # Right to the second: the event of `END` counts from that moment on.
        before, then = (values([{"who": "w0"}], at=at).rows[0] for at in (END - timedelta(seconds=1), END))
        assert (before.features["number_2d"], then.features["number_2d"]) == (13, 14)
        assert (before.staleness, then.staleness) == (3 * 3600 - 1, 0.0)
        post(project, plan, table, 900, END + timedelta(seconds=5))
        later = values([{"who": "w0"}, {"who": "none"}], at=END + timedelta(seconds=5))
        assert [row.features["number_2d"] for row in later.rows] == [15, 0]
        assert later.rows[0].features["double"] == 2 * later.rows[0].features["pages_2d"]
        assert later.missing == {"last_2d": ("kind",), "share": ("pages",)}
        assert (later.table, later.fingerprint) == (table, short(digest(plan)))

        # Whole rows of predictions have the features of training.
        snapshots = {"visits": newest_snapshot(project, "visits")}
        frames = scans(project, snapshots, used_sources(plan, snapshots), as_of=None)
        rows = frames["visits"].select("id", "at", "who", "kind", "pages").collect().tail(20)
        offline = compute(plan, frames, rows=rows).select(plan.names).to_dicts()
        online = values(rows.to_dicts(), own_rows=True)
        assert all(row.features == pytest.approx(of) for row, of in zip(online.rows, offline, strict=True))

        # The answer names the moments that it is of.
        assert (online.at, [row.at for row in online.rows]) == (None, rows["at"].to_list())
        dated = {"who": "w0", "at": END}
        one = values([dated], at=END)
        assert (one.at, one.rows[0].at, one.rows[0].features) == (END, END, then.features)
        assert values([dated, dated]).at == END
        for at, own in ((END, "the moment 2"), (None, "no moment")):
            with pytest.raises(RequestError, match=f"key 2 names {own}.* by at, and the read is of 2") as two_moments:
                values([dated, {"who": "w0", "at": at and at - timedelta(hours=1)}], at=END)
            assert "leave out the moment of the read (`--as-of`, `at`), or `at` in the keys" in two_moments.value.hint
        line = ["features", "get", "--online", "--definition", "--project", str(tmp_path)]
        line += [word for hour in (0, 1) for word in ("who=w0", f"at={END - timedelta(hours=hour):%Y-%m-%dT%H:%MZ}")]
        assert command(line) == 0
        shown = capsys.readouterr().out
        assert "the project's definition at the moments of the keys" in shown
        assert command([*line, "--as-of", END.isoformat()]) == 2
        assert "key 2 names the moment" in capsys.readouterr().err
        assert command([*line, "--model", "shop/1"]) == 2
        assert "of shop/1 or of the project's definition, not of both" in capsys.readouterr().err

        for fingerprint in (short(digest(plan)), digest(plan)):
            values([{"who": "w0"}], fingerprint=fingerprint)
        with pytest.raises(ConflictError, match=f"has the fingerprint {short(digest(plan))}, not 0123"):
            values([{"who": "w0"}], fingerprint="0123")
        for keys, text in (
            ([], "1 to 1,000 keys, not 0"),
            ([{"whom": "w0"}], 'no feature reads a field "whom"'),
            ([{"who": "w0"}, {"kind": "k"}], "the same fields"),
            ([{"who": 5}], '"who" takes text'),
            ([{"at": END}], "no feature can be read by at alone"),
        ):
            with pytest.raises(RequestError, match=text):
                values(keys)


def test_an_event_loop_reads_at_once_what_is_known_and_never_what_changed_5_seconds_ago(tmp_path, monkeypatch):
    with open_project(tmp_path) as project:
        plan, table = fill(project)
        seconds = ManualClock(BEGIN)
        readers = FeatureReaders(steady=lambda: seconds.now().timestamp())

        def request(count=1, **fields):
            keys = [{"who": f"w{n % 3}"} | fields for n in range(count)]
            return OnlineReadRequest(keys, END + timedelta(seconds=5), definition=True)

        def at_once(read, principal=ME):
            return read_at_once(project, read, principal=principal, model="", readers=readers)

        def whole(read):
            return read_features(project, read, principal=ME, readers=readers)

        assert at_once(request()) is None  # a definition that is not known is read by a thread
        known = whole(request()).fingerprint
        for read in (request(), request(3), request(16), request(2, pages=5), request(2, kind="k"), request()):
            assert at_once(read) == whole(read)
        assert at_once(request(17)) is None  # many take a thread
        (entities,) = readers._readers.values()
        with entities._cache._lock:
            assert at_once(request()) is None  # so does what would wait for another thread that reads entities
        before = at_once(request()).rows[0].features["number_2d"]
        post(project, plan, table, 900, END + timedelta(seconds=5))
        assert at_once(request()).rows[0].features["number_2d"] == before + 1
        with pytest.raises(ConflictError):
            at_once(request()._replace(fingerprint="0123"))
        with pytest.raises(RequestError, match="the same fields"):
            at_once(request()._replace(keys=[{"who": "w0"}, {"kind": "k"}]))

        # Who may read is decided for each read; a refusal is an event, which a thread writes.
        monkeypatch.setattr(type(project), "access", lambda self: GrantedAccess({("tester", "features.read")}))
        assert at_once(request()) is not None
        assert at_once(request(), Principal("other")) is None

        # Another definition is in force after 5 s, or after a thread has read it, which is due from 2.5 s on.
        (tmp_path / "features.py").write_text(FEATURES.replace('window="2d"', 'window="3d"', 1))
        fill(project)
        seconds.move(timedelta(seconds=2.4))
        assert not readers.takes_renewal("", own=True)
        seconds.move(timedelta(seconds=0.2))
        assert [readers.takes_renewal("", own=True) for _ in range(2)] == [True, False]
        assert at_once(request()).fingerprint == known
        readers.renew(project, "", own=True)
        renewed = at_once(request()).fingerprint
        assert renewed == whole(request()).fingerprint != known
        assert not readers.takes_renewal("", own=True)
        (tmp_path / "features.py").write_text("nothing = ")
        seconds.move(timedelta(seconds=4.9))
        assert readers.takes_renewal("", own=True)
        readers.renew(project, "", own=True)  # it cannot be read
        assert at_once(request()).fingerprint == renewed
        assert not readers.takes_renewal("", own=True), "it failed less than a second ago"
        seconds.move(timedelta(seconds=0.1))
        assert at_once(request()) is None
        seconds.move(timedelta(seconds=60))
        assert not readers.takes_renewal("", own=True), "it is not known any more"
        with pytest.raises(CumulantError):
            whole(request())

        # Reads of personal columns are events.
        (tmp_path / "features.py").write_text(FEATURES)
        file = tmp_path / "cumulant.yaml"
        file.write_text(file.read_text().replace("freshness: 2h", "personal: [who]"))
    with load(tmp_path) as project:
        fill(project)
        readers = FeatureReaders()
        assert whole(request()).rows[0].features["number_2d"] == before
        assert at_once(request()) is None
        kinds = [event.kind for event in project.journal().events()]
        assert kinds.count("access.personal_data_read") == 1


def test_the_api_reads_features_on_its_event_loop_and_renews_the_definition_by_a_thread(tmp_path, monkeypatch):
    threads = []

    async def in_thread(function):
        threads.append(function)
        return function()

    monkeypatch.setattr(handler, "run_in_threadpool", in_thread)
    with open_project(tmp_path) as project:
        fill(project)
        seconds, memory = ManualClock(BEGIN), OverviewMemory("visits")
        memory.features = FeatureReaders(steady=lambda: seconds.now().timestamp())
        call = ApiCall(project, ME, "features.read", memory=memory)
        arguments = {"body": OnlineBody(keys=[{"who": "w0"}], at=END, definition=True)}

        def answer():
            return asyncio.run(handler.run_operation(call, online, arguments))  # waits for threads at its end

        answers = [answer() for _ in range(3)]
        assert (len(threads), len(set(answers))) == (1, 1), "only the first one takes a thread"
        (tmp_path / "features.py").write_text(FEATURES.replace('window="2d"', 'window="3d"', 1))
        fill(project)
        seconds.move(timedelta(seconds=3))
        assert [answer() == answers[0] for _ in range(2)] == [True, False], "the first one has it renewed"
        assert len(threads) == 1

        # Who may not read has no thread read the definition.
        monkeypatch.setattr(type(project), "access", lambda self: GrantedAccess(set()))
        seconds.move(timedelta(seconds=3))
        assert memory.features.takes_renewal("", own=True)
        memory.features._renewals.clear()
        with pytest.raises(ForbiddenError):
            answer()
        assert memory.features.takes_renewal("", own=True)


@pytest.mark.parametrize("then", ["missing", "refuse"])
def test_entities_older_than_their_ttl_are_null_or_refused(tmp_path, then):
    with open_project(tmp_path, f"ttl: 1d\n    on_expired: {then}") as project:
        fill(project)

        def read(at):
            return read_features(project, OnlineReadRequest([{"who": "w0"}], at, definition=True), principal=ME)

        life = timedelta(days=1)
        assert read(END + life).rows[0].features["number_2d"] > 0
        if then == "refuse":
            with pytest.raises(RefusedError, match="of visits of key 1 is 1d1s old; its ttl is 1d"):
                read(END + life + timedelta(seconds=1))
            return
        row = read(END + life + timedelta(seconds=1)).rows[0]
        assert row.expired == ("pages_2d", "number_2d", "double")
        assert (set(row.features.values()), row.staleness) == ({None}, 86_401.0)


def test_moments_before_a_correction_are_incomplete(tmp_path):
    open_project(tmp_path, "on_repeat: latest\n    known_time: {sent: [pages]}").close()
    (tmp_path / "features.py").write_text(FEATURES.replace('share = col("pages") / pages\n', ""))
    rows = (f"{n},{BEGIN + timedelta(hours=n):%Y-%m-%d %H:%M},w{n % 3},k,{n},{n % 2}," for n in range(40))
    sent = [f"{row}{BEGIN + timedelta(hours=n):%Y-%m-%d %H:%M}" for n, row in enumerate(rows)]
    corrected = BEGIN + timedelta(hours=15)
    later = f"6,{BEGIN + timedelta(hours=6):%Y-%m-%d %H:%M},w0,k,1000,0,{corrected:%Y-%m-%d %H:%M}"
    (tmp_path / "visits.csv").write_text("\n".join(["id,at,who,kind,pages,bought,sent", *sent, later]) + "\n")
    with load(tmp_path) as project:
        fill(project)

        def read(who, at):
            request = OnlineReadRequest([{"who": who}], at, definition=True)
            return read_features(project, request, principal=ME).rows[0]

        before, after = read("w0", corrected - timedelta(minutes=1)), read("w0", corrected)
        assert before.incomplete == ("pages_2d", "number_2d", "double")
        assert (set(before.features.values()), before.since) == ({None}, corrected)
        # ids 0, 3, 6 (corrected to 1,000), 9, 12 and 15
        assert (after.incomplete, after.since, after.features["pages_2d"]) == ((), None, pytest.approx(1039 / 6))
        other = read("w1", corrected - timedelta(minutes=1))
        assert (other.incomplete, other.features["number_2d"]) == ((), 5)
    line = [
        "features",
        "get",
        "--online",
        "who=w0",
        "--definition",
        "--as-of",
        (BEGIN + timedelta(hours=14)).isoformat(),
    ]
    assert command([*line, "--project", str(tmp_path)]) == 0


def test_a_changed_definition_is_filled_beside_the_served_one_also_after_a_kill(tmp_path, registry):
    with open_project(tmp_path) as project:
        plan, _ = fill(project, TABLE)
        serve(project, plan, tmp_path / "model")
        with registry.run("visits", "train", key="1") as log:
            example, tags = pd.DataFrame({"id": [1]}), {"cumulant.servable": OBJECT}
            registry.register(log, "visits", tmp_path / "model", example, tags=tags, key="1")
        served = project.online().get(TABLE, [STATE_KEY])
        (stored,) = show_key(project, "visits/1", {"who": "w0"}, principal=ME)
        states = [table for table in project.online().tables() if table.startswith("state_")]
        assert (stored.events, states) == (14, [TABLE])  # shown as it is served; nothing is filled
        (tmp_path / "features.py").write_text(FEATURES.replace("2d", "3d"))

        # A process that is killed while it writes the table.
        line = [sys.executable, "-c", KILLED, str(tmp_path)]
        assert subprocess.run(line, check=False, timeout=120).returncode == -signal.SIGKILL
        assert [table.table for table in feature_status(project, principal=ME).tables] == [TABLE]
        seen = []
        done = backfill(project, principal=ME, progress=lambda text, share=None: seen.append((text, share)))
        assert (done.filled, done.model, done.keys, done.events) == (True, None, 4, 80)
        assert done.served == {"visits/1": TABLE}
        assert [share for text, share in seen if text.startswith("visits by")] == sorted(
            share for text, share in seen if text.startswith("visits by")
        )
        assert any(text == "visits by who: 0 keys" for text, _ in seen)
        again = backfill(project, principal=ME)
        assert (again.table, again.filled, again.fingerprint) == (done.table, False, done.fingerprint)
        assert project.online().get(TABLE, [STATE_KEY]) == served  # what is served is untouched

        # The version that is trained by it needs no fill; its table stays until another definition is backfilled.
        assert fill(project)[1] == done.table
        assert unneeded(project) == set()
        (tmp_path / "features.py").write_text(FEATURES.replace("2d", "4d"))
        later = backfill(project, principal=ME)
        assert (unneeded(project), later.filled) == ({done.table}, True)
        (tmp_path / "features.py").write_text(
            'from cumulant.features import source\npages = source("visits").columns("pages")'
        )
        with pytest.raises(UsageError, match="nothing is stored of them"):
            backfill(project, principal=ME)


def unneeded(project):
    return {item.key for item in unneeded_states(project)}
