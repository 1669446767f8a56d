"""The steps of all commands at a worker, and the ports that each of them uses."""

import sys
from contextlib import contextmanager
from pathlib import Path

import e2e_shop
import polars as pl
import pytest
from e2e_support import check_whole, kill, start

from cumulant.core.progress import silent
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import Context, open_run
from cumulant.flows.monitoring.reference import served_reference
from cumulant.flows.project.planning import plan
from cumulant.flows.review.review_reference import reference_of
from cumulant.flows.serving.serve import materialize
from cumulant.flows.training.train import train
from cumulant.ports.plugins import Drivers
from cumulant.ports.step_queue import StepTaken
from cumulant.project.file.loading import load
from cumulant.project.project import Project

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "flows"))
from step_sites import ELSEWHERE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="workers need symbolic links")]

PROJECT = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 2\n  final_fit: all\n")


def all_steps(project: Project) -> None:
    """What runs every step of the package once."""
    principal = project.principal()
    plan(project, principal=principal)
    train(project, principal=principal)
    version = project.registry().resolve(f"{project.name}@champion")
    with served_reference(project, principal=principal) as served:
        assert served.path.stat().st_size
    with open_run(project, "test", principal=principal, progress=silent) as context:
        reference, notes = reference_of(context, version)
        assert reference is not None, notes
        snapshots, _ = snapshots_of(context)
        assert materialize(context, resolve_task(project, snapshots).plan, snapshots, as_of=None)[1]


@contextmanager
def worker(folder):
    process = start(folder, "worker")
    try:
        yield
    finally:
        kill(process)


def test_each_step_runs_at_a_worker(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    text = PROJECT.replace("path: data/", f"path: {folder}/data/") + "environments: {local: {compute: 'worker://'}}\n"
    e2e_shop.make(folder, rows=1500, project=text)
    found = Drivers.capabilities
    # The worker is on this machine, so that it reaches the files that workers elsewhere would not.
    monkeypatch.setattr(Drivers, "capabilities", lambda self, url, port: found(self, url, port) | {"hosts"})
    with worker(folder), load(folder) as project:
        all_steps(project)
        names = [str(event.data["name"]) for event in project.journal().events(kinds=(StepTaken.kind,))]
        assert {"data {name}" if name.startswith("data ") else name for name in names} == ELSEWHERE
        check_whole(project)


def test_a_step_uses_no_port_that_it_does_not_declare(tmp_path, monkeypatch):
    """A worker elsewhere may have another registry and another online store."""
    folder = e2e_shop.make(tmp_path / "shop", rows=1500, project=PROJECT)
    step, seen = Context.step, set()

    def guarded(self, name, inputs, call, *, function=None, uses=(), **options):
        def alone():
            with pytest.MonkeyPatch.context() as patch:
                for port in {"registry", "online"} - set(uses):
                    patch.setattr(Project, port, lambda _, port=port: pytest.fail(f"{name} uses the {port}"))
                seen.add(name)
                return call()

        return step(self, name, inputs, call if function is None else alone, function=function, uses=uses, **options)

    monkeypatch.setattr(Context, "step", guarded)
    with load(folder) as project:
        all_steps(project)
        more = e2e_shop.orders(400, seed=2).with_columns(pl.col("order") + 10_000)
        more.write_parquet(folder / "data" / "orders" / "c.parquet")
        later = train(project, principal=project.principal())  # there is a champion now
        assert later.champion_uri
        assert seen == ELSEWHERE - {"data {name}"}
