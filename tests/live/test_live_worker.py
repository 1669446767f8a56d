"""Workers on machines of their own, which share PostgreSQL and an object store and no folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_live_objectstore import KEY, SECRET, endpoint  # noqa: F401 - a fixture

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
import e2e_shop
from e2e_support import kill, outcome, wait_for

from cumulant.flows.registry.lineage import record_of
from cumulant.ports.step_queue import StepTaken
from cumulant.project.file.loading import load
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs
from cumulant.training.events import TrialFinished

pytestmark = [pytest.mark.live, pytest.mark.slow]

WORKER = Path(__file__).parent / "worker_process.py"
#: seconds after which the step of a lost machine is taken over
LEASE = 3
PROJECT = e2e_shop.PROJECT.replace("  trials: 3\n", '  trials: 4\n  trainers: [lightgbm, "trainer.py:fit"]\n')
SHARED = """\
resources: {steps: {search: {region: eu}}}
environments:
  prod: {journal: "%s", store: s3://bucket/machines, compute: worker://}
"""
TRAINER = """\
def fit(X, y, seed):
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=3, min_samples_leaf=50, random_state=seed)
    return make_pipeline(SimpleImputer(strategy="median"), tree).fit(X, y)
"""


@pytest.fixture
def journal():
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    with postgres_server() as running:
        running.execute("CREATE DATABASE cumulant")
        yield running.url("cumulant", "postgres")


@pytest.fixture
def variables(endpoint, tmp_path, monkeypatch):  # noqa: F811
    """The secrets that every machine has."""
    values = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": endpoint}
    for name, value in {**values, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)


def machine(tmp_path, name, text):
    """A folder with the project file, without data and code; and the variables of the machine."""
    folder = tmp_path / name / "shop"
    folder.mkdir(parents=True)
    (folder / "cumulant.yaml").write_text(text)
    home = tmp_path / name / "home"
    home.mkdir()
    return folder, os.environ | {"CUMULANT_HOST_NAME": name, "HOME": str(home), "XDG_CACHE_HOME": str(home)}


@contextmanager
def process(words, variables):
    started = subprocess.Popen(
        [sys.executable, *words], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        kill(started)


@pytest.mark.parametrize("endpoint", ["weed"], indirect=True)
def test_a_search_of_a_lost_machine_goes_on_from_its_trials_at_another_one(journal, variables, tmp_path):
    text = PROJECT + SHARED % journal
    trainer, here = machine(tmp_path, "trainer", text)
    e2e_shop.make(trainer, project=text)
    (trainer / "trainer.py").write_text(TRAINER)
    (a, at_a), (b, at_b) = machine(tmp_path, "a", text), machine(tmp_path, "b", text)
    command = ["-m", "cumulant.cli", "train", "--env", "prod", "--project", str(trainer), "--json"]
    with load(trainer, environment="prod") as project, process(command, here) as training:
        with process([str(WORKER), str(a), "prod", str(LEASE)], at_a) as first:
            wait_for(training, lambda: len(project.objects().keys("search/")) > 1, seconds=300)
            copied = {int(key.rpartition("/")[2]) for key in project.objects().keys("search/") if "/trial/" in key}
            kill(first)
            shutil.rmtree(a.parent)
        with process([str(WORKER), str(b), "prod", str(LEASE)], at_b):
            out, err = training.communicate(timeout=400)
            assert training.returncode == 0, (out, err)
        events = list(project.journal().events(kinds=(TrialFinished.kind, StepTaken.kind)))
        taken = [event.data for event in events if event.kind == StepTaken.kind and event.data["name"] == "search"]
        assert [event["attempt"] for event in taken] == [1, 2]
        assert [str(event["worker"]).rpartition(" ")[2] for event in taken] == ["a", "b"]
        finished = [event.data["number"] for event in events if event.kind == TrialFinished.kind]
        assert all(finished.count(number) == 1 for number in copied)
        (version,) = project.registry().versions(project.name)
        assert {trial.trainer for trial in record_of(project, version).fitted.trials} >= {"trainer.py:fit"}
        result = outcome(project)
    alone = e2e_shop.make(tmp_path / "alone" / "shop", project=PROJECT)
    (alone / "trainer.py").write_text(TRAINER)
    words = ["-m", "cumulant.cli", "train", "--project", str(alone), "--json"]
    with process(words, os.environ | {"HOME": str(tmp_path / "alone")}) as training:
        out, err = training.communicate(timeout=400)
        assert training.returncode == 0, (out, err)
    with load(alone) as project:
        assert outcome(project) == result
