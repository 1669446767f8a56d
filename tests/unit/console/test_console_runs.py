"""The pages of runs: filters, pages, and a run with its steps and its error."""

from __future__ import annotations

import csv
import inspect
import io
import re
import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from console_support import ADA, HOSTILE, SAME_ORIGIN, ConsoleClient, console_application, console_client, csrf_of
from console_trained import make_trained

from cumulant.alerting.alert_events import MessageRefused, ReceiverFailed
from cumulant.console.pages.events import REQUESTED_ENDS
from cumulant.core.events import Actor
from cumulant.features.events import StateLost
from cumulant.flows.ledger.ledger_records import RUN, STEP, RunRecord, StepRecord, StepUse
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.stack import supervisor
from cumulant.flows.stack.events import ProcessEnded
from cumulant.flows.training.run_trials import run_trials
from cumulant.flows.training.search_step import FoldReports
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess
from cumulant.training.events import FoldFinished, TrialFinished

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


def put_run(project, **values):
    """A run of a training that has just begun, with other values."""
    record = RunRecord(
        **{
            "id": "run9",
            "flow": "train",
            "status": "running",
            "principal": ADA.id,
            "settings": {"quick": False},
            "process": this_process(),
            "started": NOW,
        }
        | values
    )
    with project.journal().transaction(actor=Actor("t"), run=record.id) as transaction:
        transaction.put(RUN, record.id, msgspec.to_builtins(record))
    return record


def finish(project, run, *trials):
    for trial in trials:
        with project.journal().transaction(actor=Actor("t"), run=run) as transaction:
            transaction.emit(trial)


def fold(number, *scores):
    return FoldFinished(number=number, trainer=HOSTILE, scores=scores, folds=3, seconds=1.5)


def trial(number, score, **params):
    return TrialFinished(
        number=number,
        trainer=HOSTILE,
        state="complete",
        score=score,
        seconds=1.5,
        scores=() if score is None else (score - 0.01, score + 0.01),
        params=params,
    )


def test_the_trials_of_a_run_under_way_are_shown_with_the_scores_of_their_folds(project, client):
    put_run(project)
    assert 'id="search"' not in client.get(f"{BASE}/run9").text
    finish(project, "run9", trial(0, 0.5, depth=3, rate=0.001), trial(1, 0.4, depth=9, rate=0.9, **{HOSTILE: HOSTILE}))
    text = client.get(f"{BASE}/run9").text
    assert "2 trials have ended" in text
    assert "the search goes on" in text
    assert "Parameters and score of 2 trials" in text
    assert "0.4900</td>" in text
    assert "training.trial_finished" in text  # the log
    assert HOSTILE not in text
    assert client.get(f"{BASE}/run9?trainer=other").status_code == 404
    heads, *rows = csv.reader(io.StringIO(client.get(f"{BASE}/run9/trials.csv").text))
    assert heads[:8] == ["trial", "trainer", "state", "score", "time, s", "fold 1", "fold 2", "depth"]
    assert [row[3] for row in rows] == ["0.5", "0.4"]


def test_folds_of_a_trial_under_way_are_shown_until_it_ends(project, client):
    put_run(project)
    finish(project, "run9", fold(0, 0.625), fold(0, 0.625, 0.75), fold(1, 0.375))
    text = client.get(f"{BASE}/run9").text
    assert "0 trials have ended, 2 are running" in text
    assert 'running <span class="soft">2 of 3 folds</span>' in text
    assert "0.7500</td>" in text
    assert "0.3750</td>" in text
    assert ">fold 3</th>" in text
    finish(project, "run9", trial(0, 0.5))
    text = client.get(f"{BASE}/run9").text
    assert "1 trial has ended, 1 is running" in text
    assert "2 of 3 folds" not in text
    put_run(project, status="failed")
    text = client.get(f"{BASE}/run9").text
    assert 'unfinished <span class="soft">1 of 3 folds</span>' in text
    assert "1 trial has ended, 1 did not end" in text


def test_slow_folds_are_reported_and_quick_ones_once_a_second_and_after_many_once_a_minute():
    now, sent = [0.0], []
    reports = FoldReports(sent.append, clock=lambda: now[0])
    for place in range(1000):  # a hundred a second
        now[0] = place / 100
        reports(fold(place, 0.5))
    assert len(sent) == 14  # five at once, and nine in the seconds after
    sent.clear()
    for place in range(20):
        now[0] += 1
        reports(fold(place, 0.5))
    assert len(sent) == 20
    for _ in range(2 * 3600):
        now[0] += 1
        reports(fold(0, 0.5))
    assert len(sent) < 1_100, "a search of hours reports about one a minute"
    sent.clear()
    for _ in range(600):
        now[0] += 1
        reports(fold(0, 0.5))
    assert len(sent) in (9, 10, 11)


def test_a_trial_that_was_done_again_counts_once_and_one_without_a_score_is_listed(project, client):
    put_run(project)
    finish(project, "run9", trial(0, 0.5), trial(0, 0.5), trial(1, None))
    assert [each.number for each in run_trials(project, "run9", principal=ADA).trials] == [0, 1]
    text = client.get(f"{BASE}/run9").text
    assert "2 trials have ended" in text
    assert "Trials in order" not in text  # one score is no course


def test_a_run_without_a_search_has_no_file_of_trials(project, client):
    put_run(project)
    assert client.get(f"{BASE}/run9/trials.csv").status_code == 404


def test_the_search_of_a_finished_run_is_that_of_its_record(trained):
    found = run_trials(trained, "latest", principal=ADA)
    assert found.done
    assert found.metric == "log_loss"
    assert {each.trainer for each in found.trials} == {"naive", "linear"}
    assert all(len(each.scores) == 2 for each in found.trials)
    folds = trained.journal().events(kinds=(FoldFinished.kind,))
    firsts = sorted((event.data["number"], event.data["scores"]) for event in folds)
    assert firsts == [(each.number, [each.scores[0]]) for each in found.trials]
    text = console_client(trained).get("/projects/shop/runs/latest").text
    assert "Trials in order" in text
    assert f"the best is number {found.best}" in text
    changes = console_client(trained).get("/projects/shop/events?kind=changes").text
    assert '<option value="changes" selected>' in changes
    kinds = set(re.findall(r'class="kind[^"]*">([^<]+)<', changes))
    assert {"data.snapshot_accepted", "training.gate_decided"} <= kinds
    assert not {kind for kind in kinds if kind.startswith(("step.", "run.", "access."))}


def process_ended(cause):
    return ProcessEnded(name="server-1", process="server", version="1", pid=2, cause=cause, seconds=3.0)


def test_events_that_tell_of_a_failure_are_among_the_changes_and_red(project, client):
    bad = [
        StateLost(table="visits", versions=("1",)),
        ReceiverFailed(receiver="chat", message="m1", fault="no answer"),
        MessageRefused(receiver="chat", message="m1", title="critical: loss", fault="400"),
        process_ended("signal 9 (SIGKILL)"),
        process_ended("its settings changed; it did not within 10 s"),
    ]
    with project.journal().transaction(actor=Actor("service:test")) as transaction:
        for fact in (*bad, *map(process_ended, REQUESTED_ENDS)):
            transaction.emit(fact)
    text = client.get("/projects/flight-late/events?kind=changes").text
    lines = re.findall(r'class="kind ([^"]*)">([^<]+)<', text)
    assert sorted(kind for tone, kind in lines if tone == "bad") == sorted(fact.kind for fact in bad)
    assert [tone for tone, kind in lines if kind == ProcessEnded.kind].count("") == len(REQUESTED_ENDS)


def test_the_causes_of_requested_ends_are_those_of_the_supervisor():
    source = inspect.getsource(supervisor)
    assert [cause for cause in REQUESTED_ENDS if f'"{cause}"' not in source] == []


def test_a_run_that_no_job_of_this_server_does_cannot_be_cancelled_here(project, client):
    put_run(project)
    page = client.get(f"{BASE}/run9")
    assert "Cancel the run" not in page.text
    sent = client.post(f"{BASE}/run9/cancel", data={"csrf": csrf_of(page)}, headers=SAME_ORIGIN)
    assert sent.status_code == 409
    assert "end it where it was started" in sent.text


@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ({"status": "failed"}, True),
        ({"status": "lost"}, True),
        ({"status": "interrupted"}, True),
        ({"status": "done"}, False),
        ({"status": "refused"}, False),
        ({"status": "failed", "flow": "features"}, False),
        ({"status": "failed", "settings": {"history": {"visits": "30d"}}}, False),
    ],
)
def test_a_training_that_was_cut_off_can_be_resumed(project, client, values, offered):
    put_run(project, **values)
    page = client.get(f"{BASE}/run9")
    assert ("Resume the training" in page.text) == offered
    if not offered:
        sent = client.post(f"{BASE}/run9/resume", data={"csrf": csrf_of(page)}, headers=SAME_ORIGIN)
        assert sent.status_code == 409


def test_who_may_only_see_is_offered_neither_and_may_do_neither(project, client, monkeypatch):
    put_run(project, status="failed")
    monkeypatch.setattr(project, "access", lambda: GrantedAccess({(ADA.id, "runs.show"), (ADA.id, "project.overview")}))
    page = client.get(f"{BASE}/run9")
    assert page.status_code == 200
    assert "Resume the training" not in page.text
    assert "To go on" in page.text
    assert 'id="log"' not in page.text
    for name in ("resume", "cancel"):
        sent = client.post(f"{BASE}/run9/{name}", data={"csrf": csrf_of(page)}, headers=SAME_ORIGIN)
        assert sent.status_code == 403


@pytest.mark.slow
def test_a_training_is_resumed_and_another_one_cancelled_by_real_jobs(tmp_path):
    with load(make_trained(tmp_path / "shop"), via="http") as project:
        application = console_application({"shop": project})
        client, jobs = ConsoleClient(application), application.state.jobs
        put_run(project, status="interrupted", settings={"quick": True, "as_of": None, "trials": 1, "time": None})
        page = "/projects/shop/runs/run9"
        sent = client.post(f"{page}/resume", data={"csrf": csrf_of(client.get(page))}, headers=SAME_ORIGIN)
        assert sent.status_code == 303
        (job,) = jobs.list_all(project.journal())
        assert (job.operation, job.principal) == ("training.train", ADA.id)
        # The run of a job is known by its process.
        put_run(project, id="run8", process=job.process)
        page = "/projects/shop/runs/run8"
        text = client.get(page)
        assert "Cancel the run" in text.text
        sent = client.post(f"{page}/cancel", data={"csrf": csrf_of(text)}, headers=SAME_ORIGIN)
        assert sent.status_code == 303
        assert ended(jobs, project, job.id).status == "cancelled"
        sent = client.post(f"{page}/cancel", data={"csrf": csrf_of(text)}, headers=SAME_ORIGIN)
        assert sent.status_code == 409
        page = "/projects/shop/runs/run9"
        client.post(f"{page}/resume", data={"csrf": csrf_of(client.get(page))}, headers=SAME_ORIGIN)
        (resumed,) = (each for each in jobs.list_all(project.journal()) if each.id != job.id)
        done = ended(jobs, project, resumed.id)
        assert done.status == "succeeded", done.error
        assert client.get(f"/projects/shop/runs/{done.result['run']}").status_code == 200


def ended(jobs, project, identity, seconds=240):
    deadline = time.monotonic() + seconds
    while (job := jobs.find(project.journal(), identity)).status == "running":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return job
