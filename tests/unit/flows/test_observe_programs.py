"""Prometheus beside a stack: what is written for it, and what happens where it is not installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from ruamel.yaml import YAML

from cumulant.core.errors import EngineUnavailableError, MissingPartError
from cumulant.flows.backup.backup_files import select_files
from cumulant.flows.identities.api_address import note_address
from cumulant.flows.identities.tokens import list_tokens, lookup_token
from cumulant.flows.ledger.processes import this_process
from cumulant.flows.observe.programs import FOLDER, ObservingPrograms, find_programs, observing_processes
from cumulant.flows.observe.scrape_targets import ScrapeTargets
from cumulant.flows.observe.scrape_token import RENEWED, RETRIED, TokenRenewal, renew_scrape_token, renewal_interval
from cumulant.flows.stack import lifecycle
from cumulant.flows.stack.desired_state import DesiredState
from cumulant.flows.stack.identity import Home
from cumulant.flows.stack.reconcile import PresentProcess, plan_actions, stop_order
from cumulant.flows.stack.stack_processes import Stack, wanted_processes
from cumulant.flows.stack.status import ChildStatus, Status
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

NOW = datetime(2026, 11, 24, tzinfo=UTC)
BOTH = ObservingPrograms("/bin/prometheus", "/bin/alertmanager")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("CUMULANT_TOKEN", raising=False)
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: late}\ndata: {clicks: {stream: clicks}}\nserving: {slo: {}}\n"
    )
    with load(tmp_path) as found:
        yield found


def status(*children):
    return Status(
        model="late",
        environment="local",
        supervisor=this_process(),
        since=NOW,
        at=NOW,
        url=None,
        children=children,
        home=Home(host="h", folder="f", inode=1, device=None),
    )


def find(project, secret):
    return lookup_token(project.journal(), secret, datetime.now(UTC))


def refuse(*_, **__):
    raise EngineUnavailableError("it is away")


def child(name, kind, url):
    return ChildStatus(
        name=name, kind=kind, url=url, state="ready", ready=True, restarts=0, not_ready_since=None, since=NOW
    )


def test_what_is_not_installed_is_said_before_anything_starts(project, monkeypatch):
    monkeypatch.setattr(lifecycle, "find_programs", lambda: find_programs(lambda name: None))
    with pytest.raises(MissingPartError, match="Prometheus") as caught:
        lifecycle.up(project, principal=project.principal(), observe=True)
    assert "apt-get install prometheus" in caught.value.full_text
    assert find_programs({"prometheus": "/p"}.get) == ObservingPrograms("/p", None)
    assert find_programs({"prometheus": "/p", "prometheus-alertmanager": "/a"}.get) == ObservingPrograms("/p", "/a")


def test_prometheus_takes_its_configuration(project, monkeypatch):
    monkeypatch.setenv("CUMULANT_TOKEN", "s" * 32)
    processes = observing_processes(project, BOTH)
    assert [process.name for process in processes] == ["prometheus", "alertmanager"]
    folder = project.state / FOLDER
    assert (folder / "token").read_text() == "s" * 32
    assert (folder / "token").stat().st_mode & 0o077 == 0
    document = YAML(typ="safe").load((folder / "prometheus.yml").read_text())
    assert [job.get("authorization") for job in document["scrape_configs"]] == [
        {"credentials_file": "token"},
        None,
        None,
        {"credentials_file": "api_token"},
    ]
    assert [job.get("metric_relabel_configs") for job in document["scrape_configs"]] == [
        None,
        None,
        None,
        [{"source_labels": ["__name__"], "regex": "cumulant_api_.*", "action": "keep"}],
    ], "series of the project are those of the controller alone"
    assert document["rule_files"] == ["ingest.rules.yml", "slo.rules.yml"]
    secret = (folder / "api_token").read_text()
    assert (folder / "api_token").stat().st_mode & 0o077 == 0
    assert find(project, secret).scope == ("stack.show",)
    [peer] = document["alerting"]["alertmanagers"]
    assert f"http://{peer['static_configs'][0]['targets'][0]}" == processes[1].url
    (folder / "alertmanager.yml").write_text("route: {receiver: mine}\nreceivers: [{name: mine}]\n")
    observing_processes(project, BOTH)
    assert find(project, secret) is None, "a start renews the token and revokes the one before"
    assert find(project, (folder / "api_token").read_text()).name == "prometheus"
    assert "mine" in (folder / "alertmanager.yml").read_text(), "a user's file stays"
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "config", "prometheus.yml"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_neither_what_prometheus_stores_nor_the_token_is_in_a_backup(project, monkeypatch):
    monkeypatch.setenv("CUMULANT_TOKEN", "s" * 32)
    observing_processes(project, BOTH)
    selected = select_files(project)
    paths = [*selected.in_force, *selected.databases, *selected.folders, *selected.project]
    assert not [path for path in paths if FOLDER in Path(path).parts[-2:]]


def test_a_taken_port_is_left_to_who_has_it(project):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", 9090))
            taken.listen()
        except OSError:
            pass  # something else has it, which is as good
        [process] = observing_processes(project, ObservingPrograms("/p", None))
    assert process.url != "http://127.0.0.1:9090"


def test_targets_follow_the_processes(project):
    observing_processes(project, BOTH)
    targets = ScrapeTargets(project)
    file = project.state / FOLDER / "servers.json"
    assert file.read_bytes() == b"[]"
    targets(status(child("server-1", "server", "http://127.0.0.1:7001"), child("prometheus", "observer", "http://x:1")))
    [group] = msgspec.json.decode(file.read_bytes())
    assert group["targets"] == ["127.0.0.1:7001"]
    assert group["labels"] == {"project": "late", "environment": "local", "process": "server-1"}
    before = file.stat().st_mtime_ns, file.stat().st_ino
    targets(status(child("server-1", "server", "http://127.0.0.1:7001")))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before, "what stays is not written again"
    (project.state / "stack").mkdir(exist_ok=True)
    (project.state / "stack" / "controller.json").write_text('{"url":"http://127.0.0.1:7002","pid":1}')
    targets(status())
    assert msgspec.json.decode(file.read_bytes()) == []
    [group] = msgspec.json.decode((project.state / FOLDER / "controller.json").read_bytes())
    assert group["targets"] == ["127.0.0.1:7002"]


def test_the_api_is_a_target_while_it_serves_and_there_is_a_token(project, monkeypatch, capsys):
    observing_processes(project, BOTH)
    targets, file = ScrapeTargets(project), project.state / FOLDER / "api.json"

    def scraped(*children):
        targets(status(*children))
        return [group["targets"] for group in msgspec.json.decode(file.read_bytes())]

    console = child("console", "console", "http://127.0.0.1:7003")
    assert (scraped(), scraped(console)) == ([], [["127.0.0.1:7003"]])
    note_address(project, "http://127.0.0.1:7004")
    assert scraped() == [["127.0.0.1:7004"]], "that of `cumulant api`"
    now, path = [0.0], project.state / FOLDER / "api_token"
    renewal, before = TokenRenewal(project, path, steady=lambda: now[0]), path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr("cumulant.flows.observe.scrape_token.replace_file", refuse)
        now[0] = RENEWED
        renewal()
        renewal.close()
    for at, same in ((RENEWED + RETRIED - 1, True), (RENEWED + RETRIED, False)):
        now[0] = at
        renewal()
        renewal.close()
        assert (path.read_text() == before) is same, "one that failed is tried again soon"
    assert (find(project, before), find(project, path.read_text()).name) == (None, "prometheus")
    for name, renewed in (("replace_file", False), ("revoke_token", True)):
        with monkeypatch.context() as patch:
            patch.setattr(f"cumulant.flows.observe.scrape_token.{name}", refuse)
            assert renew_scrape_token(project, path) is renewed, name
        assert find(project, path.read_text()).name == "prometheus"
    assert len(list_tokens(project, principal=project.principal())) == 2, (
        "the one that could not be revoked, and no more"
    )
    monkeypatch.setattr(project, "access", GrantedAccess)
    observing_processes(project, BOTH)
    targets = ScrapeTargets(project)
    assert scraped(console) == [["127.0.0.1:7004"]], "the token of before is good for weeks"
    path.unlink()
    observing_processes(project, BOTH)
    assert scraped(console) == []
    assert "may not do identities.token_create" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recheck_tokens", "days"), [("", 3.5), ("recheck_tokens: 1d,", 0.5), ("recheck_tokens: 60d,", 7)]
)
def test_the_token_is_renewed_before_the_policy_of_a_provider_refuses_it(project, recheck_tokens, days):
    path, now = project.root / "api_token", [0.0]
    assert renewal_interval(project) == RENEWED
    section = f"sign_in: {{{recheck_tokens} issuer: 'https://id.example', client_id: c, url: 'https://c.example'}}"
    (project.root / "cumulant.yaml").write_text(
        f"version: 1\nmodel: {{name: late}}\nenvironments: {{local: {{{section}}}}}\n"
    )
    with load(project.root) as declared:
        assert renewal_interval(declared) == days * 86_400
        assert renew_scrape_token(declared, path)
        before = path.read_text()
        os.utime(path, (time.time() - 86_400 * days,) * 2)
        renewal = TokenRenewal(declared, path, steady=lambda: now[0])
        renewal()
        renewal.close()
        assert path.read_text() != before, "the start of the stack kept it, and it is old"


def test_observers_are_supervised_and_end_last(project):
    observers = tuple(observing_processes(project, BOTH))
    stack = Stack(
        state=project.state,
        uses=project.state,
        model="late",
        environment="local",
        gateway=("g",),
        controller=("c",),
        further=observers,
    )
    wanted = wanted_processes(stack, DesiredState(model="late"), NOW)
    assert list(wanted) == ["gateway", "controller", "prometheus", "alertmanager"]
    ended = {name: PresentProcess(command=one.command, alive=name != "prometheus") for name, one in wanted.items()}
    assert plan_actions(wanted, ended, 1.0) == [("start", "prometheus")]
    assert stop_order({name: one.kind for name, one in wanted.items()})[-1] == ["prometheus", "alertmanager"]
