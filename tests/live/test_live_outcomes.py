"""Labels on machines that share a journal and an object store and no folder."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from test_live_objectstore import KEY, SECRET, endpoint, secrets, url

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "serving"))
sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_support
from kill_support import start as start_server
from kill_support import stop
from serving_models import servable

from cumulant.flows.outcomes import labels
from cumulant.flows.outcomes.outcome_logs import logs_of
from cumulant.outcomes.labels.ingest import count_waiting
from cumulant.project.file.loading import load

# one store: what another one does differently is that of the conformance tests
pytestmark = [pytest.mark.live, pytest.mark.parametrize("endpoint", ["weed"], indirect=True)]
__all__ = ["endpoint", "secrets", "url"]  # fixtures
NOW = datetime.now(UTC).replace(microsecond=0)
KNOWN = (NOW - timedelta(hours=1)).isoformat()


@pytest.fixture
def machines(url, endpoint, monkeypatch, tmp_path):
    """Two project folders with nothing in common but the journal's database and the bucket."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        journal = f"sqlite://{tmp_path / 'journal.db'}"
        (folder / "cumulant.yaml").write_text(
            f"version: 1\nmodel: {{name: late}}\nenvironments: {{local: {{journal: '{journal}', log: {url}/log}}}}\n"
        )
    return folders


def start(folder, *words):
    """A command on the machine of that folder, which has copies of its own."""
    os.environ["HOME"] = str(folder)  # restored with the fixture
    return e2e_support.start(folder, *words)


@contextmanager
def opened(folder):
    """The project on the machine of that folder."""
    os.environ["HOME"] = str(folder)
    with load(folder) as project:
        yield project


def ingest(folder, *files):
    with opened(folder) as project:
        return labels.ingest_labels(project, files, principal=project.principal())


def import_rows(folder, count):
    path = folder / "old.csv"
    at = (NOW - timedelta(hours=2)).isoformat()
    path.write_text("id,at,p,said\n" + "".join(f"r{number},{at},0.{number % 9},false\n" for number in range(count)))
    names = {"id": "id", "time": "at", "score": "p", "prediction": "said"}
    with opened(folder) as project:
        labels.import_predictions(project, path, names, principal=project.principal())


def label_file(folder, name, numbers):
    rows = "".join(f"r{number},{number % 2},{KNOWN}\n" for number in numbers)
    (folder / name).write_text("id,label,known_time\n" + rows)
    return str(folder / name)


def test_labels_of_one_machine_are_read_on_another_and_joined_once(machines):
    a, b = machines
    import_rows(a, 40)
    file = label_file(a, "back.csv", range(10))
    assert ingest(a, file).labelled == 10
    shutil.copy(file, b / "same.csv")
    again = ingest(b, str(b / "same.csv"))
    assert (again.sources[0].again, again.labelled) == (True, 0)
    with opened(b) as project:
        told = labels.report_labels(project, principal=project.principal())
        assert (told.rows, told.predictions, told.labelled) == (10, 40, 10)
        assert len(labels.list_labels(project, principal=project.principal())[0]) == 10
    with opened(a) as project:
        _, cursor = labels.outcomes_of(project).labelled()
    shutil.rmtree(a)  # the machine is lost
    assert ingest(b, label_file(b, "more.csv", range(8, 14))).labelled == 4
    with opened(b) as project:
        outcomes = labels.outcomes_of(project)
        assert sorted(outcomes.labelled(cursor)[0]["id"]) == ["r10", "r11", "r12", "r13"]
        assert len(outcomes.labelled()[0]) == 14
        kinds = [event.kind for event in project.journal().events()]
    assert (kinds.count("labels.ingested"), kinds.count("labels.joined")) == (2, 2)


def test_what_is_killed_on_one_machine_is_finished_on_another(machines):
    import_rows(machines[0], 60)
    for folder in machines:
        for number in range(4):
            label_file(folder, f"{number}.csv", range(number * 15, number * 15 + 15))
    choice = random.Random(7)
    for turn in range(4):
        folder = machines[turn % 2]
        process = start(folder, "labels", "ingest", str(folder / "*.csv"))
        time.sleep(choice.uniform(1.0, 3.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    both = [start(folder, "labels", "ingest", str(folder / "[0-9].csv")) for folder in machines]
    for process in both:
        process.communicate(timeout=90)
    assert [process.returncode for process in both] == [0, 0]
    with opened(machines[1]) as project:
        outcomes = labels.outcomes_of(project)
        assert outcomes.label_facts().height == 60
        rows, _ = outcomes.labelled()
        assert sorted(rows["id"]) == sorted(f"r{number}" for number in range(60))


def test_of_two_machines_that_ingest_the_same_file_at_once_one_does(machines):
    import_rows(machines[0], 30)
    processes = []
    for folder in machines:
        label_file(folder, "x.csv", range(30))
        processes.append(start(folder, "labels", "ingest", str(folder / "x.csv")))
    answers = [json.loads(process.communicate(timeout=90)[0]) for process in processes]
    assert sorted(answer["sources"][0]["again"] for answer in answers) == [False, True]
    assert sum(answer["labelled"] for answer in answers) == 30
    with opened(machines[0]) as project:
        assert labels.outcomes_of(project).label_facts().height == 30


def test_a_confirmed_post_outlives_its_machine(machines, tmp_path):
    a, b = machines
    import_rows(b, 5)
    with opened(a) as project:
        inbox = project.log_url("inbox")
    model = servable(tmp_path / "model")
    process, ready = start_server(model, a / "spool", "--labels", inbox, stderr=subprocess.DEVNULL)
    try:
        for number in range(3):
            body = {"labels": [{"id": f"r{number}", "label": True, "known_time": KNOWN}], "batch": f"b{number}"}
            request = urllib.request.Request(f"{ready['url']}/v1/labels", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert json.loads(answer.read()) == {"accepted": 1, "duplicates": 0}
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.loads(answer.read()) == {"accepted": 0, "duplicates": 1}
        process.send_signal(signal.SIGKILL)
    finally:
        stop(process)
    shutil.rmtree(a)
    taken = ingest(b)
    assert (taken.posted, taken.labelled) == (3, 3)
    with opened(b) as project:
        assert labels.report_labels(project, principal=project.principal()).labelled == 3
        assert count_waiting(logs_of(project)) == 0
