"""The servers' commands by the present settings, and what a desired state says while servers are replaced."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.traffic import Arm, Routes
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state, read_desired_state
from cumulant.flows.stack.folder_claim import rebase_versions
from cumulant.flows.stack.health import is_replaced
from cumulant.flows.stack.lifecycle import up
from cumulant.flows.stack.served_versions import with_newest_features
from cumulant.flows.stack.server_commands import describe_changes, refresh_commands
from cumulant.flows.stack.status import read_status
from cumulant.project.file.loading import load
from cumulant.testing.traffic import MemoryTraffic

NOW = datetime(2026, 11, 27, tzinfo=UTC)
OLD = (
    "/old/bin/python",
    "-m",
    "cumulant.serving",
    "/models/1",
    "--queue",
    "5ms",
    "--log-keep",
    "7d",
    "--online",
    "sqlite:///elsewhere/o.db",
    "--state-table",
    "state_1",
    "--behind-gateway",
)


def served(version="1", **more):
    return ServedVersion(version=version, command=OLD, port=20_001, **more)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\nserving: {queue: 70ms, drain: 3s}\n")
    with load(tmp_path) as found:
        change_desired_state(
            found.state,
            "m",
            lambda desired: msgspec.structs.replace(
                desired, champion="1", versions={"1": served(generation=2)}, retiring=(served(generation=1),)
            ),
        )
        yield found


def test_every_version_gets_the_settings_and_the_interpreter_of_today(project):
    said = []
    desired = refresh_commands(project, said.append)
    one = desired.versions["1"]
    line = " ".join(one.command)
    assert one.command[:4] == (sys.executable, "-m", "cumulant.serving", "/models/1")
    assert "--queue 70ms" in line
    assert "--drain 3s" in line
    assert "--log-keep 90d" in line
    assert "--online sqlite:///elsewhere/o.db --state-table state_1" in line, "where the table was filled"
    assert "--http" not in one.command
    assert (one.port, one.name, desired.retiring) == (20_001, "server-1", ())
    assert "version 1: queue: 5ms -> 70ms" in said
    assert f"version 1: the interpreter: /old/bin/python -> {sys.executable}" in said
    again = []
    assert refresh_commands(project, again.append).versions == desired.versions
    assert again == []
    assert read_desired_state(project.state, "m").versions == desired.versions


def test_a_file_of_tokens_is_named_from_the_project_folder(project):
    file = project.root / "cumulant.yaml"
    file.write_text(file.read_text().replace("serving: {", "serving: {token_file: secrets/tokens, "))
    said = []
    with load(project.root) as changed:
        line = refresh_commands(changed, said.append).versions["1"].command
    path = str(project.root / "secrets" / "tokens")
    assert line[line.index("--token-file") + 1] == path
    assert f"version 1: token-file: not set -> {path}" in said


def test_up_refuses_a_file_of_tokens_that_no_server_takes_before_it_starts_anything(project):
    file = project.root / "cumulant.yaml"
    file.write_text(file.read_text().replace("serving: {", "serving: {http: '127.0.0.1:0', token_file: tokens, "))
    with load(project.root) as changed, pytest.raises(UsageError, match="tokens cannot be read"):
        up(changed, principal=changed.principal())
    assert read_status(project.state) is None


@pytest.mark.parametrize(
    ("online", "why"), [("sqlite:///elsewhere/o.db", "`online` names another store now"), (None, "models/1")]
)
def test_stored_features_that_cannot_be_had_stay_and_that_is_told(project, online, why):
    """Another store has not what was posted; and a servable that is gone does not say what it reads."""
    line = tuple(
        project.endpoints.online if word == "sqlite:///elsewhere/o.db" and not online else word for word in OLD
    )
    one, said = msgspec.structs.replace(served(), command=line), []
    assert with_newest_features(project, one, principal=project.principal(), report=said.append) is one
    assert said[0].startswith("version 1: its stored features stay as they were: ")
    assert why in said[0]


def test_changes_in_words():
    line = ("python", "-m", "cumulant.serving", "/m")
    assert describe_changes(
        (*line, "--cache", "auto", "--cache", "valkey://a"), (*line, "--cache", "off", "--access-log")
    ) == [
        "access-log: not set -> on",
        "cache: auto, valkey://a -> off",
    ]
    assert describe_changes(line, line) == []


def test_old_and_new_run_side_by_side_until_the_old_one_is_let_go():
    desired = DesiredState(model="m", champion="1", versions={"1": served(generation=1)}, retiring=(served(),))
    assert [one.name for one in desired.running(NOW)] == ["server-1.1", "server-1"]
    assert [one.name for one in desired.current(NOW)] == ["server-1.1"]
    moved = rebase_versions(desired, ("/a",), "/b", lambda one, taken: one.port)
    assert moved.retiring == ()


def test_a_server_is_replaced_when_requests_of_its_version_go_elsewhere():
    traffic = MemoryTraffic()
    assert not is_replaced(traffic, "m", "1", "http://127.0.0.1:1")
    arm = Arm(name="champion", version="1", endpoints=("http://127.0.0.1:2",))
    traffic.apply(Routes(model="m", revision=1, champion=arm))
    assert is_replaced(traffic, "m", "1", "http://127.0.0.1:1")
    assert not is_replaced(traffic, "m", "1", "http://127.0.0.1:2")
    assert not is_replaced(traffic, "m", "2", "http://127.0.0.1:1"), "no requests at all: it is drained, not replaced"
