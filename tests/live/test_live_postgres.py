"""The journal on a real PostgreSQL: the rules of the port, many processes, restarts, faults, tampering."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from cumulant.core.errors import CredentialsError, EngineUnavailableError, LeaseHeldError, StorageError, UsageError
from cumulant.core.events import Actor, Fact
from cumulant.core.scope import Scope
from cumulant.drivers.postgres import database as postgres_database
from cumulant.drivers.postgres.journal import PostgresJournal
from cumulant.drivers.postgres.location import parse_database_url
from cumulant.drivers.postgres.migrations import MIGRATIONS
from cumulant.flows.deployment.host_report import SERVER_HOST, HostReport, write_report
from cumulant.flows.ledger.lease import LeaseWatch, take_lease
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.ledger.run_events import verify
from cumulant.testing.certificates import Authority
from cumulant.testing.conformance.journal import JournalConformance
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs

pytestmark = pytest.mark.live

ADA = Actor("user:ada")
LEASE_WORKER = str(Path(__file__).parents[1] / "unit" / "flows" / "lease_worker.py")


class Happened(Fact, frozen=True, kw_only=True):
    kind: ClassVar[str] = "test.happened"
    value: object = None


@pytest.fixture(scope="module")
def server():
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    with postgres_server("fsync = off") as running:
        yield running


@pytest.fixture
def url(server, request):
    """A database of its own."""
    name = f"t{abs(hash(request.node.nodeid))}"
    server.execute(f"CREATE DATABASE {name}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def journal(url):
    opened = PostgresJournal(url)
    yield opened
    opened.close()


def database(url):
    return url.rpartition("/")[2]


def write(journal, value=None, key="a"):
    with journal.transaction(actor=ADA) as tx:
        tx.put("step", key, {"value": value})
        return tx.emit(Happened(value=value))


class TestPostgresJournal(JournalConformance):
    @pytest.fixture
    def journal(self, url):
        opened = PostgresJournal(url)
        yield opened
        opened.close()

    @pytest.fixture
    def connect(self, url):
        return lambda scope: PostgresJournal(url, scope=scope)


# Processes -----------------------------------------------------------------------------------------------------


def count_up(url, times, ready):
    journal = PostgresJournal(url)
    ready.wait()
    for _ in range(times):
        with journal.transaction(actor=ADA) as tx:
            row = tx.get("count", "all")
            number = row.value["n"] if row else 0
            tx.put("count", "all", {"n": number + 1}, expect=row.version if row else 0)
            tx.emit(Happened(value=number))
    journal.close()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes_share_a_journal_that_none_of_them_has_made(url, method):
    context = multiprocessing.get_context(method)
    ready = context.Barrier(6)
    processes = [context.Process(target=count_up, args=(url, 15, ready)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    journal = PostgresJournal(url)
    assert journal.get("count", "all").value == {"n": 90}
    assert [event.data["value"] for event in journal.events()] == list(range(90))
    verified = verify(journal)
    assert (verified.breaks, verified.rows) == ([], 1)
    journal.close()


def test_a_forked_child_does_not_use_its_parents_connections(journal):
    write(journal, "parent")
    process = multiprocessing.get_context("fork").Process(target=write, args=(journal, "child"))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert journal.get("step", "a").value == {"value": "child"}
    assert write(journal, "parent").seq == 3


def write_for_ever(url):
    journal, number = PostgresJournal(url), 0
    while True:
        number += 1
        write(journal, number, str(number % 7))


def test_writers_that_are_killed_leave_whole_transactions(url):
    journal = PostgresJournal(url)
    for _ in range(4):
        seq = journal.head().seq
        process = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(url,))
        process.start()
        assert journal.wait(seq + 5, 60)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert verify(journal).breaks == []
    journal.close()


def test_a_stopped_writer_loses_its_transaction_and_holds_up_no_other(url):
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def stop_inside():
        journal = PostgresJournal(url, wait=1.0)
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"value": "stopped"})
            begun.set()
            time.sleep(60)

    process = context.Process(target=stop_inside)
    process.start()
    assert begun.wait(60)
    os.kill(process.pid, signal.SIGSTOP)
    journal = PostgresJournal(url, wait=30.0)
    write(journal, "other")
    assert journal.get("step", "a").value == {"value": "other"}
    process.kill()
    process.join()
    journal.close()


def test_scopes_do_not_wait_for_each_other(url):
    first, second = PostgresJournal(url), PostgresJournal(url, scope=Scope(project="other"), wait=1.0)
    same = PostgresJournal(url, wait=0.2)
    with first.transaction(actor=ADA) as tx:
        tx.put("step", "a", {})
        write(second)
        with pytest.raises(EngineUnavailableError, match="another process has been writing"):
            write(same)
    for opened in (first, second, same):
        opened.close()


# Restarts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server_is_waited_for(server, journal, mode, caplog):
    write(journal, 1)
    server.stop(mode)
    later = threading.Timer(1.0, server.start)
    later.start()
    try:
        assert write(journal, 2).seq == 2
    finally:
        later.join()
    assert "does not answer" in caplog.text
    assert "waiting up to 60 s" in caplog.text
    server.stop(mode)
    server.start()
    assert journal.get("step", "a").value == {"value": 2}
    assert verify(journal).breaks == []


def test_a_server_that_was_waited_for_in_vain_is_reported_at_once_until_it_answers(server, url, caplog):
    with contextlib.closing(PostgresJournal(url, wait=0.2)) as impatient:
        write(impatient, 1)
        server.stop("immediate")
        try:
            for _ in range(3):
                with pytest.raises(EngineUnavailableError, match="does not answer"):
                    impatient.get("step", "a")
        finally:
            server.start()
        assert caplog.text.count("waiting up to 0.2 s") == 1
        assert impatient.get("step", "a").value == {"value": 1}


@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("point", ["begun", "read", "written", "reported"])
def test_a_transaction_that_is_open_when_the_server_restarts_is_repeated(server, journal, mode, point):
    write(journal, 1)

    def restart(here):
        if here == point:
            server.stop(mode)
            server.start()

    with journal.transaction(actor=ADA, run="r") as tx:
        restart("begun")
        row = tx.get("step", "a")
        restart("read")
        tx.put("step", "a", {"value": row.value["value"] + 1}, expect=row.version)
        tx.delete("step", "none")
        restart("written")
        event = tx.emit(Happened(value=2))
        restart("reported")
    assert journal.get("step", "a").value == {"value": 2}
    assert list(journal.events())[-1].id == event.id
    assert journal.head().seq == 2
    assert verify(journal).breaks == []


def test_a_transaction_is_not_repeated_where_others_changed_what_it_read(server, journal, url):
    other = PostgresJournal(url)
    write(journal, 1)

    def change():
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "b", {"value": tx.get("step", "a").value["value"]})
            server.stop()
            server.start()
            write(other, 5)
            tx.put("step", "c", {})

    with pytest.raises(EngineUnavailableError, match="others wrote to it"):
        change()
    assert [row.key for row in journal.rows("step")] == ["a"]
    assert verify(journal).breaks == []
    other.close()


def test_a_server_that_never_answers_is_named_with_what_to_do():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://me:hidden@127.0.0.1:{closed.getsockname()[1]}/x"
        with pytest.raises(EngineUnavailableError, match="does not answer") as caught:
            PostgresJournal(url).head()
    assert "run the same command again" in caught.value.hint
    assert "hidden" not in f"{caught.value.full_text} {caught.value.subject} {caught.value.__cause__}"


def test_a_wait_outlives_a_restart(server, journal):
    write(journal)
    ended = []
    waiting = threading.Thread(target=lambda: ended.append(journal.wait(1, 60)))
    waiting.start()
    server.stop()
    server.start()
    write(journal)
    waiting.join(60)
    assert ended == [True]


class CutAtCommit:
    """Between client and server; passes the next COMMIT on, or not, and cuts the connection before the answer, after
    `meanwhile`, until whose end it passes no new connection on."""

    def __init__(self, port, *, passes, meanwhile=lambda: None):
        self._target, self._passes, self._meanwhile, self.armed = port, passes, meanwhile, False
        self._accepts = threading.Event()
        self._accepts.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._accepts.wait(60)
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionError:  # it is down
                    client.close()
                    continue
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client, server):
        with contextlib.suppress(OSError), client:
            while data := client.recv(65536):
                if self.armed and b"COMMIT\0" in data:
                    self.armed = False
                    self._accepts.clear()
                    self._meanwhile()
                    self._accepts.set()
                    client.shutdown(socket.SHUT_RDWR)
                    if self._passes:
                        server.sendall(data)
                    else:
                        server.shutdown(socket.SHUT_RDWR)
                    continue
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _back(self, server, client):
        with contextlib.suppress(OSError), server:
            while data := server.recv(65536):
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("passes", [True, False])
def test_a_commit_whose_answer_is_lost_is_looked_up_and_repeated_if_it_was_lost_too(server, url, passes):
    proxy = CutAtCommit(server.port, passes=passes)
    journal = PostgresJournal(url.replace(str(server.port), str(proxy.port)))
    write(journal, 1)
    proxy.armed = True
    assert write(journal, 2).seq == 2
    assert not proxy.armed
    assert journal.get("step", "a").value == {"value": 2}
    assert [event.data["value"] for event in journal.events()] == [1, 2]
    assert verify(journal).breaks == []
    journal.close()
    proxy.close()


class Silent(CutAtCommit):
    """Between client and server; from `silence` on, or from the next COMMIT if armed, the connections that exist stay
    open and carry nothing, or only what the client sends (`passes`)."""

    def __init__(self, port, *, passes):
        self._present, self._silent = set(), set()
        super().__init__(port, passes=passes)

    def silence(self):
        self._silent.update(self._present)

    def _forward(self, client, server):
        self._present.add(client)
        with contextlib.suppress(OSError), client:
            while data := client.recv(65536):
                if self.armed and b"COMMIT\0" in data:
                    self.armed = False
                    self.silence()
                if self._passes or client not in self._silent:
                    server.sendall(data)

    def _back(self, server, client):
        with contextlib.suppress(OSError), server:
            while data := server.recv(65536):
                if client not in self._silent:
                    client.sendall(data)


@pytest.fixture
def silent(server, url, monkeypatch, request):
    """A proxy, and a journal behind it that gives a connection up after 3 s without an answer."""
    monkeypatch.setattr(postgres_database, "_REPLY", 1.0)
    proxy = Silent(server.port, passes=request.param)
    journal = PostgresJournal(url.replace(str(server.port), str(proxy.port)), wait=2.0)
    write(journal, 1)
    yield proxy, journal
    proxy.close()
    journal.close()


def within_a_minute(work):
    """The result of `work`, done in a thread, which is left where it waits for ever."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(60)
    assert results, "it waits, or it failed"
    return results[0]


@pytest.mark.parametrize("silent", [False], indirect=True)
def test_a_connection_that_carries_no_answers_is_given_up_for_another(silent):
    proxy, journal = silent
    proxy.silence()
    assert within_a_minute(lambda: journal.get("step", "a")).value == {"value": 1}


@pytest.mark.parametrize(
    ("silent", "point"), [(True, "write"), (False, "write"), (True, "commit")], indirect=["silent"]
)
def test_a_transaction_is_done_once_where_its_connection_carries_no_answers(silent, point):
    proxy, journal = silent

    def work():
        with journal.transaction(actor=ADA) as tx:
            if point == "write":
                proxy.silence()
            tx.put("step", "a", {"value": 2})
            event = tx.emit(Happened(value=2))
            proxy.armed = point == "commit"
        return event

    event = within_a_minute(work)
    assert [event.data["value"] for event in journal.events()] == [1, 2]
    assert list(journal.events())[-1].id == event.id
    assert journal.get("step", "a").version == 2
    assert verify(journal).breaks == []


class Counted(CutAtCommit):
    """Between client and server; counts what the client sends."""

    messages = 0

    def _forward(self, client, server):
        with contextlib.suppress(OSError), client:
            while data := client.recv(65536):
                self.messages += 1
                server.sendall(data)


def test_a_machine_s_report_is_one_message_and_waits_for_no_writer(server, url):
    proxy, reports = Counted(server.port, passes=True), 20
    journal, other = PostgresJournal(url.replace(str(server.port), str(proxy.port))), PostgresJournal(url, wait=1.0)
    report = HostReport(host="a", roles=("servers",), supervisor=this_process())
    with other.transaction(actor=ADA) as transaction:
        transaction.put("step", "a", {})
        version = write_report(journal, report)
        before = proxy.messages
        for _ in range(reports):
            version = write_report(journal, report, version=version)
        assert proxy.messages - before <= reports + 1, "one more when the statement is prepared"
        assert [row.version for row in other.reports(SERVER_HOST)] == [version]
        transaction.emit(Happened())
    assert verify(journal).breaks == []
    journal.close()
    other.close()
    proxy.close()


def test_machines_report_at_once_and_each_row_counts_its_own_reports(url):
    def machine(number):
        journal, version = PostgresJournal(url), 0
        for _ in range(20):
            report = HostReport(host=f"host-{number}", roles=(), supervisor=this_process())
            version = write_report(journal, report, version=version)
        journal.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(machine, range(8)))
    journal = PostgresJournal(url)
    assert {row.key: row.version for row in journal.reports(SERVER_HOST)} == {f"host-{n}": 20 for n in range(8)}
    journal.close()


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("reports", [True, False])
def test_a_commit_lost_in_a_crash_is_not_taken_for_that_of_the_next_writer(server, url, others, reports):
    """After a crash the server gives the number of a transaction that it never stored to another one."""

    crashed = threading.Event()

    def crash():
        server.stop("immediate")
        server.start()
        for number in range(others):
            write(other, number, f"other{number}")
        crashed.set()

    def change():
        with journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {"value": 2})
            if reports:
                tx.emit(Happened(value=2))

    other = PostgresJournal(url)
    proxy = CutAtCommit(server.port, passes=False, meanwhile=crash)
    journal = PostgresJournal(url.replace(str(server.port), str(proxy.port)))
    write(journal, 1)
    other.head()
    proxy.armed = True
    if reports and others:  # its event would have been the one after 1
        with pytest.raises(EngineUnavailableError, match="others wrote to it") as caught:
            change()
        assert "nothing was changed" in caught.value.hint
    else:
        change()
    assert crashed.wait(60)
    assert not proxy.armed
    lost = bool(reports and others)
    assert journal.get("step", "a").value == {"value": 1 if lost else 2}
    repeated = [2] if reports and not lost else []
    assert [event.data["value"] for event in journal.events()] == [1, *repeated, *range(others)]
    assert verify(journal).breaks == []
    journal.close()
    other.close()
    proxy.close()


# What the server refuses ---------------------------------------------------------------------------------------


def test_a_missing_database_is_no_reason_to_wait(server):
    with pytest.raises(UsageError, match=r"refuses the connection.*does not exist") as caught:
        PostgresJournal(server.url("nowhere")).head()
    assert "check user, password, database" in caught.value.hint


def test_a_role_without_rights(server, url):
    server.execute("CREATE ROLE reader LOGIN")
    try:
        with pytest.raises(StorageError, match="may not do this") as caught:
            PostgresJournal(server.url(database(url), "reader")).head()
        assert "GRANT" in caught.value.hint
        owner = PostgresJournal(url)
        write(owner)
        owner.close()
        server.execute("GRANT USAGE ON SCHEMA cumulant TO reader", database(url))
        server.execute("GRANT SELECT ON ALL TABLES IN SCHEMA cumulant TO reader", database(url))
        reader = PostgresJournal(server.url(database(url), "reader"))
        assert [row.key for row in reader.rows("step")] == ["a"]
        assert verify(reader).breaks == []
        with pytest.raises(StorageError, match="may not do this"):
            write(reader)
        reader.close()
    finally:
        server.execute("DROP OWNED BY reader", database(url))
        server.execute("DROP ROLE reader")


def test_a_server_that_can_only_be_read(server, url, journal):
    write(journal)
    server.execute(f"ALTER DATABASE {database(url)} SET default_transaction_read_only = on")
    journal.close()
    with pytest.raises(StorageError, match="can be read but not written") as caught:
        write(journal)
    assert "target_session_attrs" in caught.value.hint


def test_a_full_disk(server, url, tmp_path):
    place = server.folder / "small"
    place.mkdir()
    mounted = os.system(f"mount -t tmpfs -o size=24m,uid=65534,gid=65534 tmpfs {place} 2>/dev/null") == 0
    if not mounted:
        pytest.skip("no small disk can be mounted here")
    try:
        server.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        server.execute("CREATE DATABASE full_disk TABLESPACE small")
        journal = PostgresJournal(server.url("full_disk"))

        def fill():
            for number in range(200):
                write(journal, os.urandom(200_000).hex(), str(number))

        with pytest.raises(StorageError, match="the disk of the journal's server is full"):
            fill()
        assert journal.head().seq > 0
        assert verify(journal).breaks == []
        journal.close()
    finally:
        server.execute("DROP DATABASE IF EXISTS full_disk WITH (FORCE)")
        server.execute("DROP TABLESPACE IF EXISTS small")
        os.system(f"umount {place}")


# Encryption and passwords --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that takes encrypted connections with a password only, and the file of its authority."""
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    authority = Authority(tmp_path_factory.mktemp("tls") / "ca")
    other = Authority(tmp_path_factory.mktemp("tls") / "other")
    files = authority.signed("IP:127.0.0.1")
    with postgres_server("fsync = off") as running:
        running.execute("CREATE ROLE ada LOGIN PASSWORD 'right'")
        running.execute("CREATE DATABASE ada OWNER ada")
        running.encrypt(Path(files.certificate), Path(files.private_key))
        running.require_password("ada", kind="hostssl")
        yield running, authority.file, other.file


def test_an_encrypted_connection_with_a_verified_server(guarded):
    server, authority, _ = guarded
    journal = PostgresJournal(server.url("ada", "ada:right") + f"?sslmode=verify-full&sslrootcert={authority}")
    assert write(journal).seq == 1
    encrypted = server.execute(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'ada'"
    )
    assert encrypted == "1"
    journal.close()


@pytest.mark.parametrize("options", ["sslmode=verify-full&sslrootcert={other}", "sslmode=disable"])
def test_a_server_of_another_authority_or_without_encryption_is_refused(guarded, options):
    server, _, other = guarded
    with pytest.raises(UsageError, match="refuses the connection") as caught:
        PostgresJournal(server.url("ada", "ada:right") + f"?{options.format(other=other)}").head()
    assert "sslrootcert" in caught.value.hint


def test_a_wrong_password_is_refused_and_not_shown(guarded):
    with pytest.raises(CredentialsError, match="password authentication failed") as caught:
        PostgresJournal(guarded[0].url("ada", "ada:wr0ng-one")).head()
    assert "wr0ng-one" not in f"{caught.value.full_text} {caught.value.subject} {caught.value.__cause__}"


# Migrations ----------------------------------------------------------------------------------------------------


def make_format(server, name, number):
    """The tables as a release with that many migrations left them."""
    if number == 0:
        return
    server.execute("CREATE SCHEMA cumulant", name)
    for done, statements in enumerate(MIGRATIONS[:number], 1):
        server.execute(f"SET search_path TO cumulant; {statements} INSERT INTO migrations VALUES ({done})", name)


def migrate_at_once(url, ready, number):
    ready.wait()
    journal = PostgresJournal(url, scope=Scope(project=f"p{number}"))
    write(journal, number)
    journal.close()


@pytest.mark.parametrize("number", range(len(MIGRATIONS) + 1))
def test_each_format_is_upgraded_by_processes_that_come_at_once(server, url, number):
    make_format(server, database(url), number)
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(4)
    processes = [context.Process(target=migrate_at_once, args=(url, ready, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    applied = server.execute("SELECT number FROM cumulant.migrations ORDER BY number", database(url))
    assert applied.split() == [str(done) for done in range(1, len(MIGRATIONS) + 1)]


def test_tables_of_a_newer_version(server, url):
    journal = PostgresJournal(url)
    write(journal)
    journal.close()
    server.execute("INSERT INTO cumulant.migrations VALUES (99)", database(url))
    with pytest.raises(UsageError, match="newer Cumulant"):
        PostgresJournal(url).head()


def test_a_database_of_another_encoding(server):
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        with pytest.raises(UsageError, match="has LATIN1"):
            PostgresJournal(server.url("latin")).head()
    finally:
        server.execute("DROP DATABASE latin WITH (FORCE)")


def test_two_schemas_are_two_journals(url):
    first, second = PostgresJournal(url), PostgresJournal(f"{url}?schema=second")
    write(first)
    assert second.head().seq == 0
    assert write(second).seq == 1
    first.close()
    second.close()


# Tampering -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "row", "problem"),
    [
        ("UPDATE state SET value = '{}'", "state row step a", "has another content than version 3 in event 3"),
        ("DELETE FROM state", "state row step a", "is missing: event 3 has version 3"),
        (
            "INSERT INTO state VALUES ('default/default/local', 'step', 'b', 1, 0, '{}')",
            "state row step b",
            "was inserted: no event and no record of a write has it",
        ),
        (
            "UPDATE events SET envelope = replace(envelope, 'ada', 'eve') WHERE seq = 2",
            None,
            "was altered after it was written",
        ),
        ("DELETE FROM events WHERE seq = 2", None, "event 2 is missing"),
        ("DELETE FROM events WHERE seq = 3", None, "the newest events are missing"),
        ("UPDATE events SET run = 'x' WHERE seq = 2", None, "is stored under another number, kind or run than its own"),
    ],
)
def test_what_is_changed_by_hand_is_found(server, url, journal, statement, row, problem):
    for number in range(3):
        write(journal, number)
    assert verify(journal).breaks == []
    server.execute(f"SET search_path TO cumulant; {statement}", database(url))
    assert (row, problem) in [(found.row, found.problem) for found in verify(journal).breaks]


def test_an_event_of_another_scope_is_found(server, url, journal):
    other = PostgresJournal(url, scope=Scope(project="other"))
    write(other)
    server.execute("UPDATE cumulant.events SET scope = 'default/default/local'", database(url))
    server.execute("UPDATE cumulant.chain SET scope = 'default/default/local'", database(url))
    problems = [found.problem for found in verify(journal).breaks]
    assert "is stored under another number, kind or run than its own" in problems
    other.close()


# URLs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://db.example.com/x", "require"),
        ("postgresql://a@10.0.0.7:6432/x", "require"),
        ("postgresql://db.example.com/x?sslmode=verify-full&sslrootcert=/ca.pem", "verify-full"),
        ("postgresql://db.example.com/x?sslmode=disable", "disable"),
        ("postgresql://localhost/x", None),
        ("postgresql://[::1]/x", None),
        ("postgresql:///x?host=/run/postgresql", None),
    ],
)
def test_a_connection_to_another_machine_is_encrypted(url, mode):
    assert parse_database_url(url).settings.get("sslmode") == mode


@pytest.mark.parametrize(
    "url", ["postgresql://h/x?nonsense=1", "postgresql://h/x?schema=A%20B", "postgresql://h:port/x"]
)
def test_a_url_that_is_none(url):
    with pytest.raises(UsageError) as caught:
        parse_database_url(url)
    assert caught.value.hint


def test_the_name_of_a_location_has_no_password():
    location = parse_database_url("postgresql://me:s3cret@h:6432/x?schema=abc")
    assert (location.name, location.schema, location.settings["password"]) == ("h:6432/x", "abc", "s3cret")


def test_an_expected_version_that_does_not_hold(journal):
    write(journal)
    for expect in (0, 2):
        with pytest.raises(LeaseHeldError, match=f"version 1, expected {expect}"), journal.transaction(actor=ADA) as tx:
            tx.put("step", "a", {}, expect=expect)


# Leases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lease_of_a_killed_or_stopped_holder_is_taken_over_by_one(url, fault):
    worker = subprocess.Popen([sys.executable, LEASE_WORKER, url, "far-away", "1.0"], stdout=subprocess.PIPE, text=True)
    journals = [PostgresJournal(url) for _ in range(4)]
    fence = json.loads(worker.stdout.readline())["fence"]
    watches = [LeaseWatch() for _ in journals]
    waiters = list(zip(journals, watches, strict=True))

    def take(waiter):
        return take_lease(waiter[0], "job", ttl=60.0, actor=ADA, watch=waiter[1])

    try:
        assert [take(waiter) for waiter in waiters] == [None] * 4
        os.kill(worker.pid, fault)
        deadline, leases = time.monotonic() + 60, []
        with ThreadPoolExecutor(4) as pool:
            while not leases:
                assert time.monotonic() < deadline
                leases = [lease for lease in pool.map(take, waiters) if lease is not None]
        assert len(leases) == 1
        assert leases[0].fence > fence
        with journals[0].transaction(actor=ADA) as tx:
            leases[0].confirm(tx)
            tx.put("result", "a", {"by": "other"})
        if fault == signal.SIGSTOP:
            os.kill(worker.pid, signal.SIGCONT)
            assert json.loads(worker.stdout.readline()) == {"lost": True}
        assert journals[0].get("result", "a").value == {"by": "other"}
    finally:
        worker.kill()
        worker.communicate()
        for journal in journals:
            journal.close()
