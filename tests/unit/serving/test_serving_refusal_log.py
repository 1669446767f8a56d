"""Refusals of a server: counted, written to a log, none lost at its end, whatever the log does."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
from serving_models import ROW, servable
from test_serving_program import program

from cumulant.core.errors import EngineUnavailableError
from cumulant.ports.log import UNDATED
from cumulant.serving.access import refusal_log
from cumulant.serving.access.control import RefusedRequest
from cumulant.serving.access.refusal_log import MERGED, MOST, RefusalLog, read_records
from cumulant.serving.models.stores import open_log

PREDICT = "/v1/models/flight-late/predict"
REFUSED = RefusedRequest("service:scraper", "model.predict", "flight-late", "policy", ("p1",))
TOKEN = "0123456789abcdef"
MOMENT = datetime(2026, 3, 2, tzinfo=UTC)


def records(log):
    """The records of every part; a part has one principal."""
    found = []
    for part in log.parts(UNDATED):
        with log.open(part) as stream:
            of_part = read_records(stream.read())
        assert len({record.refusal.principal for record in of_part}) == 1
        found += of_part
    return found


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_first_refusal_is_written_at_once_and_the_others_with_their_number(tmp_path):
    log = open_log(str(tmp_path / "refusals"))
    refusals = RefusalLog(log, "s1")
    refusals.add(REFUSED)
    until(lambda: records(log))
    for _ in range(999):
        refusals.add(REFUSED)
    refusals.close()
    first, rest = records(log)
    assert (first.refusal, first.server, first.count, rest.count) == (REFUSED, "s1", 1, 999)
    assert first.last <= rest.first <= rest.last


def test_names_that_callers_choose_are_told_apart_up_to_a_number(tmp_path):
    log = open_log(str(tmp_path / "refusals"))
    refusals = RefusalLog(log, "s1", window=timedelta(hours=1))
    for number in range(MOST + 500):
        refusals.add(RefusedRequest("anonymous", "model.predict", f"made up {number}", "policy"))
    refusals.close()
    written = records(log)
    assert sum(record.count for record in written) == MOST + 500
    assert len(written) <= MOST + 2
    assert sum(record.count for record in written if record.refusal.resource == MERGED) == 500


class Failing:
    """A log that takes nothing until it is mended."""

    def __init__(self, log):
        self.log, self.mended, self.tries = log, False, 0
        self.parts = log.parts

    @contextmanager
    def append(self, part):
        self.tries += 1
        if not self.mended:
            raise EngineUnavailableError("the store does not answer")
        with self.log.append(part) as stream:
            yield stream


def test_what_the_log_does_not_take_is_kept(tmp_path, capsys):
    log = Failing(open_log(str(tmp_path / "refusals")))
    refusals = RefusalLog(log, "s1")  # type: ignore[arg-type]
    refusals.add(REFUSED)
    until(lambda: log.tries)
    for _ in range(9):
        refusals.add(REFUSED)
    log.mended = True
    refusals.close()
    assert sum(record.count for record in records(log.log)) == 10
    assert "kept until their log takes them" in capsys.readouterr().err


class Faulty(Failing):
    """Fails the first time as no driver should."""

    @contextmanager
    def append(self, part):
        self.tries += 1
        if self.tries == 1:
            raise ValueError("a fault of the driver")
        with self.log.append(part) as stream:
            yield stream


def test_a_fault_of_the_log_does_not_end_the_recording(tmp_path, capsys):
    log = Faulty(open_log(str(tmp_path / "refusals")))
    refusals = RefusalLog(log, "s1")  # type: ignore[arg-type]
    refusals.add(REFUSED)
    until(lambda: log.tries)
    refusals.add(REFUSED)
    refusals.close()
    assert sum(record.count for record in records(log.log)) == 2
    assert "a fault of the driver" in capsys.readouterr().err


class Hanging(Failing):
    """Takes the first part, and does not return from the second."""

    def __init__(self, log):
        super().__init__(log)
        self.released = threading.Event()

    @contextmanager
    def append(self, part):
        self.tries += 1
        if self.tries > 1:
            self.released.wait(60)
        with self.log.append(part) as stream:
            yield stream


def test_what_waits_behind_a_write_that_hangs_is_on_standard_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(refusal_log, "_LAST", 0.2)
    log = Hanging(open_log(str(tmp_path / "refusals")))
    refusals = RefusalLog(log, "s1", clock=lambda: MOMENT)  # type: ignore[arg-type]
    refusals.add(REFUSED)
    until(lambda: records(log.log))
    for name in ("user:a", "user:b", "user:c"):
        refusals.add(msgspec.structs.replace(REFUSED, principal=name))
    until(lambda: log.tries == 2)
    refusals.close()
    log.released.set()
    lines = [line for line in capsys.readouterr().err.splitlines() if "did not take" in line]
    kept = [json.loads(line.partition("did not take ")[2])["refusal"]["principal"] for line in lines]
    assert sorted(kept) == ["user:a", "user:b", "user:c"]


def test_a_log_that_nobody_reads_does_not_grow_for_ever(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(refusal_log, "MOST_PARTS", 3)
    monkeypatch.setattr(refusal_log, "_COUNT", 0.0)
    log = open_log(str(tmp_path / "refusals"))
    refusals = RefusalLog(log, "s1")
    for name in ("user:a", "user:b", "user:c", "user:d", "user:e"):
        refusals.add(msgspec.structs.replace(REFUSED, principal=name))
    refusals.close()
    assert len(log.parts(UNDATED)) == 3
    err = capsys.readouterr().err
    assert ("holds 3 parts that nobody has read" in err, err.count("did not take")) == (True, 2)


def test_what_the_log_does_not_take_at_the_end_is_on_standard_error(tmp_path, capsys):
    refusals = RefusalLog(Failing(open_log(str(tmp_path / "refusals"))), "s1")  # type: ignore[arg-type]
    for _ in range(10):
        refusals.add(REFUSED)
    refusals.close()
    lines = [line for line in capsys.readouterr().err.splitlines() if "did not take" in line]
    assert sum(json.loads(line.partition("did not take ")[2])["count"] for line in lines) == 10


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_loses_none_when_it_ends(tmp_path, workers):
    folder, place, tokens = servable(tmp_path / "model"), tmp_path / "refusals", tmp_path / "tokens"
    tokens.write_text(f"{TOKEN} ada\n")
    tokens.chmod(0o600)
    arguments = ("--token-file", tokens, "--refusals", place, "--name", "late", "--workers", workers)
    with program(folder, "--http", "127.0.0.1:0", *arguments) as (process, ready):
        for _ in range(40):  # a connection each, so that every worker gets some
            assert httpx.post(ready["url"] + PREDICT, json=ROW).status_code == 401
        assert httpx.get(f"{ready['url']}/metrics").status_code == 401
        answer = httpx.get(f"{ready['url']}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
        counts = [line for line in answer.text.splitlines() if line.startswith("cumulant_access_refused_total")]
        assert 'cumulant_access_refused_total{action="model.predict",reason="token"} 40' in counts
        process.terminate()
        assert process.wait(30) == 0
    written = records(open_log(str(place)))
    by_action = dict.fromkeys(("model.predict", "server.show"), 0)
    for record in written:
        assert (record.refusal.principal, record.refusal.reason, record.server) == ("anonymous", "token", "late")
        by_action[record.refusal.action] += record.count
    assert by_action == {"model.predict": 40, "server.show": 1}
    assert len(written) <= 3 * workers
