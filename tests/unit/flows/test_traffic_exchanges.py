"""Exchanges of gateways by a log: each once, wherever an upload is killed, and when parts are merged."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulant.core.clock import FixedClock
from cumulant.core.errors import EngineUnavailableError, LeaseHeldError, StorageError
from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.client import EnvoyTraffic
from cumulant.drivers.envoy.exchanges import ExchangeWriter
from cumulant.flows.traffic.exchange_log import LoggedExchanges
from cumulant.flows.traffic.exchange_parts import SCHEMA, write_part
from cumulant.flows.traffic.exchange_upload import ExchangeUpload
from cumulant.ports.log import PartInfo, current_parts
from cumulant.project.file.loading import load
from cumulant.project.host_name import host_name
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.testing.gateways import PATIENCE
from cumulant.testing.log import folder_log

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


class KilledError(BaseException):
    """The process ended here."""


class Machine:
    """A gateway's folder with its log, and the upload from it. `kill_at`: the step at which it is killed."""

    def __init__(self, folder, log, name="a", clock=None) -> None:
        self.folder, self.log, self.name, self.clock = folder / name, log, name, clock or FixedClock(NOON)
        (self.folder / "exchanges").mkdir(parents=True)
        self.count, self.steps, self.kill_at = 0, 0, None

    def answer(self, count):
        """Requests that one life of the gateway answers."""
        numbers = range(self.count, self.count + count)
        writer = ExchangeWriter(self.folder / "exchanges", most_files=1000)
        with contextlib.closing(writer):
            writer.write([exchange(f"{self.name}{number}", number) for number in numbers])
        self.count += count

    @property
    def names(self):
        return [f"{self.name}{number}" for number in range(self.count)]

    def upload(self):
        """With a new process each time: nothing is remembered but what is in the folder."""
        upload = ExchangeUpload(
            EnvoyTraffic(f"envoy://{self.folder}"), self, self.folder, host=self.name, clock=self.clock
        )
        write = upload._write

        def counted(position):
            self.step()
            write(position)
            self.step()

        upload._write = counted
        count = 0
        while got := upload.upload():
            count += got
        return count

    @contextlib.contextmanager
    def append(self, part):
        self.step()
        with self.log.append(part) as stream:
            yield stream
        self.step()

    def parts(self, day):
        return self.log.parts(day)

    def step(self):
        self.steps += 1
        if self.steps == self.kill_at:
            raise KilledError


def exchange(name, number):
    time = round(NOON.timestamp() * 1e6) + number
    return Exchange(
        request=name,
        time=time,
        model="late",
        assigned="candidate",
        served="champion" if number % 2 else "",
        status=200 + number % 3,
        duration_us=number,
        key=f"k{number % 7}",
        forced=number % 5 == 0,
        fault="timeout" if number % 11 == 0 else "",
        revision=number % 4,
        predicts=number % 6 > 0,
        caller_id=f"c{number}" if number % 2 else "",
    )


@pytest.fixture
def log(tmp_path):
    return folder_log(tmp_path / "log")


def read_all(source, limit=100_000):
    exchanges, cursor = [], ""
    while True:
        page, cursor = source.exchanges(cursor, limit=limit)
        exchanges += page
        if len(page) < limit:
            return exchanges, cursor


def test_what_is_read_is_what_was_written(tmp_path, log):
    machine = Machine(tmp_path, log)
    machine.answer(500)
    assert machine.upload() == 500
    read, cursor = read_all(LoggedExchanges(log))
    assert {one.gateway.partition("-")[0] for one in read} == {"a"}
    assert [of_gateway(one, "") for one in read] == [exchange(f"a{number}", number) for number in range(500)]
    assert LoggedExchanges(log).exchanges(cursor) == ([], cursor)
    assert machine.upload() == 0
    machine.answer(3)
    machine.answer(2)
    machine.upload()
    assert [one.request for one in LoggedExchanges(log).exchanges(cursor)[0]] == machine.names[500:]


@pytest.mark.parametrize("kill_at", range(1, 13))
def test_an_upload_that_is_killed_anywhere_gives_each_exchange_once(tmp_path, log, kill_at):
    machine = Machine(tmp_path, log)
    machine.kill_at = kill_at
    reader, seen, cursor = LoggedExchanges(log), [], ""
    for count in (3, 4, 5, 0):
        machine.answer(count)
        with contextlib.suppress(KilledError):
            machine.upload()
        machine.answer(2)  # more than the killed upload had read
        page, cursor = reader.exchanges(cursor)
        seen += page
    machine.upload()
    assert machine.steps > kill_at, "the upload was killed"
    seen += reader.exchanges(cursor)[0]
    assert [one.request for one in seen] == machine.names
    assert [one.request for one in read_all(reader)[0]] == machine.names


def test_a_part_is_read_once_also_if_it_is_merged_with_others(tmp_path, log):
    machines = [Machine(tmp_path, log, name) for name in "ab"]
    reader, seen, cursor = LoggedExchanges(log), [], ""
    for turn in range(80):
        for machine in machines:
            machine.answer(turn % 3 + 1)
            machine.upload()
        if turn in (10, 50):
            page, cursor = reader.exchanges(cursor)
            seen += page
    before = len(current_parts(log))
    upkeep(log, keep=None, file_size=1 << 20, file_age=0.0, schema=SCHEMA)
    assert len(current_parts(log)) == 2 < before
    seen += reader.exchanges(cursor)[0]
    names = [one.request for one in seen]
    assert sorted(names) == sorted(machines[0].names + machines[1].names)
    for machine in machines:
        assert [name for name in names if name[0] == machine.name] == machine.names


def test_an_upload_across_midnight_is_read_by_a_cursor_of_the_day_before(tmp_path, log):
    first = Machine(tmp_path, log, "a")
    second = Machine(tmp_path, log, "b", clock=FixedClock(NOON + timedelta(days=1)))
    second.answer(2)
    second.upload()
    reader = LoggedExchanges(log)
    seen, cursor = reader.exchanges()
    first.answer(3)
    first.upload()  # a machine whose clock is behind
    page, cursor = reader.exchanges(cursor)
    assert [one.request for one in seen + page] == ["b0", "b1", "a0", "a1", "a2"]
    first.clock = FixedClock(NOON + timedelta(days=3))
    first.answer(1)
    first.upload()
    log.delete_day(NOON.date())
    page, cursor = reader.exchanges(cursor)
    assert [one.request for one in page] == ["a3"]


def test_a_damaged_part_is_named(tmp_path, log):
    machine = Machine(tmp_path, log)
    machine.answer(3)
    machine.upload()
    [path] = (tmp_path / "log").glob("date=*/*.parquet")
    path.write_bytes(b"no parquet")
    with pytest.raises(StorageError, match=path.name):
        LoggedExchanges(log).exchanges()


def test_a_log_that_does_not_answer_is_reported_and_waited_for(tmp_path, log):
    machine = Machine(tmp_path, log)
    machine.answer(3)
    said, waits = [], iter([False, False, True])

    class Away:
        def append(self, part):
            raise EngineUnavailableError("the store is away")

    upload = ExchangeUpload(
        EnvoyTraffic(f"envoy://{machine.folder}"), Away(), machine.folder, host="a", report=said.append
    )
    upload.run(lambda seconds: next(waits))
    assert said == ["exchanges are not uploaded, and wait: the store is away"] * 3
    assert machine.upload() == 3


def end_while_uploading(folder, store):
    """Start the agent of a machine and end it while it waits for the object store; what it wrote to standard error."""
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    agent = subprocess.Popen(
        [sys.executable, "-m", "cumulant.flows.traffic", str(folder), "--env", "prod"],
        env=os.environ | keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.getsockname()[1]}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with contextlib.closing(store.accept()[0]):
            agent.terminate()
            _, said = agent.communicate(timeout=PATIENCE)
    finally:
        agent.kill()
        agent.wait()
    assert agent.returncode == 0
    return said


@pytest.mark.slow
def test_an_agent_ends_while_its_log_hangs_and_the_next_one_uploads_what_is_left(tmp_path, log):
    pytest.importorskip("obstore")
    project = "version: 1\nmodel: {name: late}\nenvironments:\n  prod: {deploy: 'hosts://', log: 's3://bucket/log'}\n"
    (tmp_path / "cumulant.yaml").write_text(project)
    with load(tmp_path, environment="prod") as opened:
        gateway = opened.drivers.path(opened.endpoints.traffic)
    (gateway / "exchanges").mkdir(parents=True)
    with contextlib.closing(ExchangeWriter(gateway / "exchanges")) as writer:
        writer.write([exchange(f"a{number}", number) for number in range(3)])
    with socket.create_server(("127.0.0.1", 0)) as store:
        store.settimeout(PATIENCE)
        said = end_while_uploading(tmp_path, store)
    assert "the last exchanges are not uploaded within 4 s: they stay on this machine" in said
    upload = ExchangeUpload(EnvoyTraffic(f"envoy://{gateway}"), log, gateway, host=host_name())
    assert [upload.upload(), upload.upload()] == [3, 0]
    assert [one.request for one in LoggedExchanges(log).exchanges()[0]] == ["a0", "a1", "a2"]


def names_in(log):
    return [one.request for one in LoggedExchanges(log).exchanges()[0]]


def copied(machine, name):
    """A machine made of a copy of another's folder."""
    copy = Machine(machine.folder.parent, machine.log, name)
    shutil.rmtree(copy.folder)
    shutil.copytree(machine.folder, copy.folder)
    return copy


def test_a_copy_of_a_machine_uploads_its_own_exchanges_and_none_of_the_original(tmp_path, log):
    original = Machine(tmp_path, log)
    original.answer(3)
    original.upload()
    original.answer(2)  # those are not uploaded yet
    copy = copied(original, "b")
    assert copy.upload() == 0
    for _ in range(2):
        for machine in (original, copy):
            machine.answer(4)
            machine.upload()
    assert sorted(names_in(log)) == sorted(original.names + copy.names)


def test_a_position_of_an_earlier_version_is_continued_on_its_machine_alone(tmp_path, log):
    original = Machine(tmp_path, log)
    original.answer(3)
    original.upload()
    position = original.folder / "upload.json"
    stored = json.loads(position.read_bytes())
    del stored["home"]
    position.write_text(json.dumps(stored))
    copy = copied(original, "b")
    for machine in (original, copy):
        machine.upload()
        machine.answer(4)
        machine.upload()
    lives = [json.loads((machine.folder / "upload.json").read_bytes())["life"] for machine in (original, copy)]
    assert lives[0] == stored["life"] != lives[1]
    assert sorted(names_in(log)) == sorted(original.names + copy.names)


def test_a_machine_that_is_moved_goes_on_where_it_was(tmp_path, log):
    machine = Machine(tmp_path, log)
    machine.answer(3)
    machine.upload()
    machine.answer(2)
    machine.folder = machine.folder.rename(tmp_path / "moved")
    assert machine.upload() == 2
    assert names_in(log) == machine.names


def remove_oldest_file(machine):
    """As a gateway does that has written many files since."""
    min((machine.folder / "exchanges").iterdir()).unlink()


@pytest.mark.parametrize("is_taken", [False, True])
@pytest.mark.parametrize("later", [1, 9])
def test_exchanges_that_remain_of_a_part_are_uploaded_once(tmp_path, log, is_taken, later):
    machine = Machine(tmp_path, log)
    machine.answer(3)
    machine.answer(2)
    machine.kill_at = 4 if is_taken else 3  # after the upload of the part, or before
    with pytest.raises(KilledError):
        machine.upload()
    assert names_in(log) == (machine.names if is_taken else [])
    remove_oldest_file(machine)
    machine.answer(later)
    machine.upload()
    assert names_in_order(log) == (machine.names if is_taken else machine.names[3:])


def names_in_order(log):
    return sorted(names_in(log), key=lambda name: int(name[1:]))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.integers(1, 6), st.booleans()), max_size=12),
    st.integers(1, 7),
)
def test_any_order_of_answers_uploads_kills_and_merges_gives_each_exchange_once(tmp_path_factory, events, limit):
    folder = tmp_path_factory.mktemp("any")
    log = folder_log(folder / "log")
    machines = {name: Machine(folder, log, name) for name in "ab"}
    reader, seen, cursor = LoggedExchanges(log), [], ""
    for name, count, kill_at, merged in events:
        machine = machines[name]
        machine.answer(count)
        machine.kill_at = machine.steps + kill_at
        with contextlib.suppress(KilledError):
            machine.upload()
        machine.kill_at = None
        page, cursor = reader.exchanges(cursor, limit=limit)
        seen += page
        if merged:
            upkeep(log, keep=None, file_size=1 << 20, file_age=0.0, schema=SCHEMA)
    for machine in machines.values():
        machine.upload()
    while True:
        page, cursor = reader.exchanges(cursor, limit=limit)
        seen += page
        if not page:
            break
    for machine in machines.values():
        assert [one.request for one in seen if one.request[0] == machine.name] == machine.names


# Erasure -------------------------------------------------------------------------------------------------------


def named(number):
    return msgspec.structs.replace(exchange(f"n{number}", number), key=f"#k{number % 3}", caller_id=f"caller {number}")


def of_gateway(exchange, gateway):
    return msgspec.structs.replace(exchange, gateway=gateway)


def erased(number):
    return named(number).without_names() if number % 3 == 1 or number == 5 else named(number)


def test_erased_names_leave_a_gateways_files_readable_while_it_writes(tmp_path):
    traffic, count = EnvoyTraffic(f"envoy://{tmp_path}"), 3000
    (tmp_path / "exchanges").mkdir()
    writer = ExchangeWriter(tmp_path / "exchanges", size=20_000, most_files=1000)
    writer.write([named(number) for number in range(300)])
    _, cursor = traffic.exchanges(limit=100)

    def write():
        for number in range(300, count):
            writer.write([named(number)])

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(5):
        traffic.erase_names(["#k1"], ["n5"])
    thread.join()
    writer.close()
    traffic.erase_names(["#k1"], ["n5"])
    assert traffic.erase_names(["#k1"], ["n5"]) == 0
    assert traffic.exchanges()[0] == [erased(number) for number in range(count)]
    assert traffic.exchanges(cursor)[0] == [erased(number) for number in range(100, count)]
    files = b"".join(path.read_bytes() for path in (tmp_path / "exchanges").iterdir())
    assert b"#k1" not in files
    assert b'"caller 4"' not in files
    assert b'"caller 3"' in files


def test_an_incomplete_or_damaged_line_is_left_as_it_is(tmp_path):
    traffic = EnvoyTraffic(f"envoy://{tmp_path}")
    (tmp_path / "exchanges").mkdir()
    line = json.dumps(msgspec.to_builtins(named(1))).encode()
    content = b"{damaged #k1\r\n" + line + b"\n" + line
    (tmp_path / "exchanges" / "0000000001.jsonl").write_bytes(content)
    assert traffic.erase_names(["#k1"], []) == 1
    after = (tmp_path / "exchanges" / "0000000001.jsonl").read_bytes()
    assert len(after) == len(content)
    assert traffic.exchanges()[0] == [named(1).without_names()]


def test_erased_names_leave_parts_and_cursors_of_the_shared_log_as_they_are(tmp_path):
    log = folder_log(tmp_path / "log")
    exchanges = LoggedExchanges(log)
    for first in range(0, 60, 10):
        with log.append(PartInfo(NOON.date(), "a", first + 1, first + 10)) as stream:
            write_part(stream, [named(number) for number in range(first, first + 10)])
    _, cursor = exchanges.exchanges(limit=20)
    upkeep(log, keep=None, file_size=1 << 26, file_age=0, steady=60, say=print, schema=SCHEMA, name="it")
    parts = [part.key for part in log.parts(NOON.date())]
    assert exchanges.erase_names(["#k1"], ["n5"]) >= 21
    assert exchanges.erase_names(["#k1"], ["n5"]) == 0
    assert [part.key for part in log.parts(NOON.date())] == parts
    assert exchanges.exchanges()[0] == [of_gateway(erased(number), "a") for number in range(60)]
    assert exchanges.exchanges(cursor)[0] == [of_gateway(erased(number), "a") for number in range(20, 60)]
    for part in log.parts(NOON.date()):
        with log.open(part) as stream:
            assert b"#k1" not in stream.read()


def test_names_in_the_shared_log_wait_for_its_maintenance(tmp_path):
    log = folder_log(tmp_path / "log")
    with log.maintenance() as mine:
        assert mine
        with pytest.raises(LeaseHeldError):
            LoggedExchanges(log).erase_names(["#k1"], [])
