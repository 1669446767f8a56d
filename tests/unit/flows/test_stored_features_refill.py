"""Stored features that the online store lost are filled again, wherever the desired state is and the servers run."""

from __future__ import annotations

import pytest

from cumulant.core.progress import silent
from cumulant.core.servable import Input
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.deployment.deployment import deployment_of
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.maintenance.refill import RefilledTable, lost_tables, main, refill
from cumulant.flows.maintenance.schedule import JOBS
from cumulant.packaging.builder import build
from cumulant.ports.access import Principal
from cumulant.ports.deploy import STATE_TABLE, ServedSpec
from cumulant.project.file.loading import load
from cumulant.training.model import FittedModel, ModelCard
from cumulant.training.payloads.payload import LinearWeights

ME = Principal("tester")
FILE = """\
version: 1
model: {{name: visits}}
data: {{visits: {{path: visits.csv, key: id, event_time: {{column: at, zone: UTC}}}}}}
training: {{target: bought, predict_at: at}}
environments:
  local:
    deploy: {deploy}
    store: file://{shared}/store
    journal: sqlite://{shared}/journal.db
    online: sqlite://{shared}/{online}.db
    tracking_uri: http://127.0.0.1:9  # nothing listens there: the registry is not needed
    salt: '${{secret:SALT}}'
"""
FEATURES = """\
from cumulant.features import source
visits = source("visits")
pages = visits.by("who").mean("pages", window="2d")
"""
ROWS = "".join(f"{n},2026-01-{1 + n % 28:02} 10:00,w{n % 3},{n},{n % 2}\n" for n in range(40))
TABLE, OBJECT = "state_1", "servables/1"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that loads the project in the folder of a machine; all machines share the stores."""
    monkeypatch.setenv("SALT", "s" * 32)
    opened = []

    def make(name, deploy, online="online"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "cumulant.yaml").write_text(FILE.format(deploy=deploy, shared=tmp_path, online=online))
        (folder / "features.py").write_text(FEATURES)
        (folder / "visits.csv").write_text(f"id,at,who,pages,bought\n{ROWS}")
        opened.append(load(folder))
        return opened[-1]

    yield make
    for project in opened:
        project.close()


def serve(project, folder):
    """Add a version with stored features, which no online store has yet, to the desired state."""
    with open_run(project, "plan", principal=ME, progress=silent) as context:
        plan = resolve_task(project, snapshots_of(context, ["visits"])[0]).plan
    card = ModelCard(
        kind="linear", trainer="linear", task="binary", classes=("0", "1"), inputs=(Input("pages_2d", "number"),)
    )
    weights = LinearWeights(
        columns=(0,), fill=(0.0,), mean=(0.0,), scale=(1.0,), weight=((1.0,),), missing=((0.0,),), tables={},
        bias=(0.0,), link="sigmoid",
    )  # fmt: skip
    model = FittedModel(card, weights)
    build(model, plan, name="visits", sample={"pages_2d": [1.0]}, out=folder, lineage={}, example={})
    project.objects().put(OBJECT, folder)
    spec = ServedSpec(version="1", servable=OBJECT, arguments={STATE_TABLE: TABLE})
    deployment_of(project).ensure("visits", [spec])


@pytest.mark.parametrize(
    ("deploy", "control"), [("local://", "here"), ("hosts://", "control")], ids=["one machine", "several machines"]
)
def test_a_table_that_the_online_store_lost_is_filled_again(machine, deploy, control, tmp_path, capsys):
    serve(machine("here", deploy), tmp_path / "model")
    project = machine(control, deploy)
    assert lost_tables(project) == {TABLE: ("1",)}
    assert refill(project, principal=ME) == (RefilledTable(table=TABLE, versions=("1",), entities=3),)
    store = project.online()
    assert store.meta(TABLE)
    assert (lost_tables(project), refill(project, principal=ME)) == ({}, ())

    (job,) = [job for job in JOBS if job.name == "stored features"]
    store.drop(TABLE)
    assert "3 entities" in job.run(project)
    store.drop(TABLE)
    assert main([str(project.root)]) == 0  # the process that `cumulant up` starts beside its controller
    assert "stored features of version 1" in capsys.readouterr().out
    assert lost_tables(project) == {}


def test_a_table_of_another_online_store_is_not_filled_in_this_one(machine, tmp_path):
    serve(machine("here", "local://"), tmp_path / "model")
    assert lost_tables(machine("here", "local://")) == {TABLE: ("1",)}
    assert lost_tables(machine("here", "local://", online="other")) == {}
