"""A key is repaired only where servers of the model read the state that is repaired."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cumulant.core.errors import RefusedError
from cumulant.flows.deployment.host_report import HostReport, write_report
from cumulant.flows.ledger.processes import process_of
from cumulant.flows.serving.servable_copies import served_folder
from cumulant.flows.serving.serve import USES
from cumulant.flows.serving.services import note_use
from cumulant.flows.serving.stored_keys import check_served
from cumulant.ports.deploy import STATE_TABLE, ServerState
from cumulant.ports.registry import ModelVersion
from cumulant.project.file.loading import load
from cumulant.project.project import Project

SAID = "a server reads the state state_before, which was made from earlier data"


def version(number: str, name: str = "m") -> ModelVersion:
    tags = {"cumulant.servable": f"servables/{number}"}
    return ModelVersion(
        name=name, version=number, uri=f"models:/{name}/{number}", run_id=None, created=datetime.now(UTC), tags=tags
    )


def project_at(folder: Path, environment: str = "") -> Project:
    (folder / "cumulant.yaml").write_text(f"version: 1\nmodel: {{name: m}}\n{environment}", encoding="utf-8")
    return load(folder)


def serve_from(project: Project, served: ModelVersion, table: str) -> None:
    """What a server of this machine notes that reads the copy of this version and this table."""
    note_use(project.state / USES, os.getpid(), folder=str(served_folder(project, served)), table=table)


def test_a_server_of_another_state_of_the_model_stands_in_the_way(tmp_path):
    with project_at(tmp_path) as project:
        check_served(project, version("1"), "state_now")
        serve_from(project, version("1"), "state_now")
        serve_from(project, version("2"), "state_other")
        check_served(project, version("1"), "state_now")
        serve_from(project, version("1"), "state_before")
        with pytest.raises(RefusedError, match=SAID):
            check_served(project, version("1"), "state_now")
        shutil.rmtree(project.state / USES)
        check_served(project, version("1"), "state_now")


def test_a_server_of_another_machine_stands_in_the_way(tmp_path):
    with project_at(tmp_path, "environments: {local: {deploy: 'hosts://'}}\n") as project:
        server = ServerState(
            version="1",
            endpoint="http://10.0.0.5:8080",
            ready=True,
            host="other",
            arguments={STATE_TABLE: "state_before"},
        )
        report = HostReport(host="other", roles=("servers",), supervisor=process_of(os.getpid()), servers=(server,))
        write_report(project.journal(), report)
        check_served(project, version("2"), "state_now")
        check_served(project, version("1", name="another"), "state_now")
        check_served(project, version("1"), "state_before")
        with pytest.raises(RefusedError, match=SAID):
            check_served(project, version("1"), "state_now")
