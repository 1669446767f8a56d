"""The pages of runs: filters, pages, and a run with its steps and its error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from console_support import HOSTILE

from cumulant.core.events import Actor
from cumulant.flows.ledger.ledger_records import RUN, STEP, RunRecord, StepRecord, StepUse
from cumulant.flows.ledger.processes import this_process

BASE = "/projects/flight-late/runs"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.fixture
def filled(project):
    def put(kind, key, value):
        with project.journal().transaction(actor=Actor("t")) as transaction:
            transaction.put(kind, key, msgspec.to_builtins(value))

    for number in range(60):
        failed = number == 59
        put(
            RUN,
            f"run{number:03d}",
            RunRecord(
                id=f"run{number:03d}",
                flow=HOSTILE if number == 58 else "train",
                status="failed" if failed else "done",
                principal=HOSTILE if failed else "user:ada",
                settings={HOSTILE: HOSTILE} if failed else {},
                process=this_process(),
                started=NOW + timedelta(minutes=number),
                finished=NOW + timedelta(minutes=number, seconds=9),
                seconds=9,
                steps=(StepUse(HOSTILE, "a", reused=False, seconds=2.5), StepUse("search", "b", reused=True))
                if failed
                else (),
                error={"code": "data", "error": HOSTILE, "hint": HOSTILE} if failed else None,
            ),
        )
    put(
        STEP,
        "a",
        StepRecord(
            name="x",
            status="failed",
            inputs={},
            code="c",
            attempt=2,
            run="run001",
            holder=this_process(),
            lease=60,
            started=NOW,
            error={"error": HOSTILE},
            result={"a": HOSTILE},
        ),
    )
    return project


def test_runs_are_listed_fifty_at_a_time_and_by_state(client, filled):
    first = client.get(BASE).text
    assert first.count("data-row") == 50
    assert "run059" in first
    assert f'href="{BASE}?after=run010" rel="next"' in first
    assert client.get(f"{BASE}?after=run010").text.count("data-row") == 10
    failed = client.get(f"{BASE}?status=failed").text
    assert failed.count("data-row") == 1
    assert "Nothing matches" in client.get(f"{BASE}?flow=none").text
    assert HOSTILE not in first
    assert "<script>alert" not in first


def test_a_run_shows_its_steps_its_error_and_hostile_texts_as_text(client, filled):
    text = client.get(f"{BASE}/run059").text
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert ">Error</h2>" in text
    assert "2.5 s" in text
    assert f'href="{BASE}/run001"' in text
    assert "/projects/flight-late/events?run=run059" in text


def test_an_unknown_run_is_not_found(client, filled):
    assert client.get(f"{BASE}/nothing").status_code == 404
    assert client.get(f"{BASE}/run").status_code == 400


def test_a_project_without_runs_says_what_to_do(client):
    assert "cumulant train" in client.get(BASE).text
