"""A running server takes what changes in the project file and the policies."""

import os
import time

import httpx
import pytest
from api_server import PROJECT, serving

from cumulant.ports.access import PolicySource
from cumulant.project.file.loading import load
from cumulant.server.file_changes import FileWatch, follow_files
from cumulant.server.job_process import accepted_project
from cumulant.server.jobs import decode_request, encode_request, job_request

pytest.importorskip("cedarpy", reason='pip install "cumulant[cedar]"')

ACCESS = """access: {{bindings: [{{role: {role}, users: ["user:ada"]}}]}}
environments: {{local: {{access: "cedar://", {rest}}}}}
"""


def shown_policies(project):
    access = project.access()
    assert isinstance(access, PolicySource)
    return access.policies()


def write(folder, role, rest="region: eu"):
    (folder / "cumulant.yaml").write_text(PROJECT + ACCESS.format(role=role, rest=rest))


@pytest.fixture
def shop(tmp_path):
    write(tmp_path, "viewer")
    with load(tmp_path, via="http") as project:
        yield project


def test_roles_of_a_changed_file_hold_without_a_restart(shop):
    said = []
    with (
        follow_files([shop], said.append, seconds=0.05),
        serving({"churn": shop}) as url,
        httpx.Client(base_url=f"{url}/v1/projects/churn", timeout=60) as http,
    ):
        assert http.get("/runs").status_code == 200
        assert http.post("/silences", json={"span": "1h", "reason": "x"}).status_code == 403
        write(shop.root, "operator")
        deadline = time.monotonic() + 60
        while (answered := http.post("/silences", json={"span": "1h", "reason": "x"})).status_code == 403:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answered.status_code == 200
    assert said == ["churn: its files have changed, and were read again"]


def test_a_file_with_faults_and_one_that_needs_a_restart_are_reported_once(shop):
    watch, file = FileWatch(shop), shop.root / "cumulant.yaml"
    assert watch.refresh() == ""
    file.write_text(file.read_text() + "unknown: 1\n")
    assert "are not taken" in watch.refresh()
    assert watch.refresh() == ""
    write(shop.root, "viewer", "region: us, journal: 'sqlite:///tmp/none.db'")
    assert "a running process does not take" in watch.refresh()
    file.unlink()
    assert "are not taken" in watch.refresh()
    write(shop.root, "admin")
    assert watch.refresh().endswith("were read again")
    assert [binding.role for binding in shop.policies.bindings] == ["admin"]


def test_policies_of_a_folder_are_read_again(tmp_path):
    folder = tmp_path / "policies"
    folder.mkdir()
    policy = folder / "own.cedar"
    policy.write_text('permit(principal, action == Action::"runs.show", resource);\n')
    (tmp_path / "cumulant.yaml").write_text(PROJECT + f'environments: {{local: {{access: "cedar://{folder}"}}}}\n')
    with load(tmp_path, via="http") as project:
        watch = FileWatch(project)
        before = shown_policies(project)
        policy.write_text('permit(principal, action == Action::"alerts.show", resource);\n')
        assert watch.refresh().endswith("were read again")
        assert "alerts.show" in shown_policies(project)
        assert shown_policies(project) != before


def test_a_change_while_the_files_are_read_is_taken_next_time(shop, monkeypatch):
    """Otherwise a role that is taken away in that moment would stay until the next change."""

    def read_and_change(*arguments, **options):
        fresh = load(*arguments, **options)
        monkeypatch.setattr("cumulant.server.file_changes.load", load)
        write(shop.root, "viewer")
        return fresh

    watch = FileWatch(shop)
    write(shop.root, "operator")
    monkeypatch.setattr("cumulant.server.file_changes.load", read_and_change)
    assert watch.refresh().endswith("were read again")
    assert [binding.role for binding in shop.policies.bindings] == ["operator"]
    assert watch.refresh().endswith("were read again")
    assert [binding.role for binding in shop.policies.bindings] == ["viewer"]
    assert watch.refresh() == ""


def test_a_file_that_takes_the_place_of_another_one_is_read(shop):
    """Of the same size and time, as `cp -p` and `mv` leave it."""
    watch, file = FileWatch(shop), shop.root / "cumulant.yaml"
    other = shop.root / "other.yaml"
    other.write_text(file.read_text().replace("viewer", "admin "))
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    assert other.stat().st_size == file.stat().st_size
    other.replace(file)
    assert watch.refresh().endswith("were read again")
    assert [binding.role for binding in shop.policies.bindings] == ["admin"]


def test_a_job_runs_by_what_the_server_has_taken(shop):
    """Not by a change that the server has refused, nor by a file that is half written."""
    write(shop.root, "operator")
    watch = FileWatch(shop)
    write(shop.root, "admin", "region: us, journal: 'sqlite:///tmp/none.db'")
    assert "a running process does not take" in watch.refresh()
    content = encode_request(job_request(shop, shop.principal(), "maintenance.tick", "project.tick", {}))
    (shop.root / "cumulant.yaml").write_text("half: {")
    with accepted_project(decode_request(content)) as project:
        assert (project.file.spec, project.file.environment) == (shop.file.spec, shop.file.environment)
        assert (project.endpoints, project.scope, project.root) == (shop.endpoints, shop.scope, shop.root)
        assert project.file.layers == shop.file.layers
