"""Refusals of a server: counted, written to a log, none lost at its end, whatever the log does."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from datetime import timedelta

import httpx
import pytest
from serving_models import ROW, servable
from test_serving_program import program

from cumulant.core.errors import EngineUnavailableError
from cumulant.ports.log import UNDATED
from cumulant.serving.access.control import RefusedRequest
from cumulant.serving.access.refusal_log import MERGED, MOST, RefusalLog, read_records
from cumulant.serving.models.stores import open_log

PREDICT = "/v1/models/flight-late/predict"
REFUSED = RefusedRequest("service:scraper", "model.predict", "flight-late", "policy", ("p1",))
TOKEN = "0123456789abcdef"


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
