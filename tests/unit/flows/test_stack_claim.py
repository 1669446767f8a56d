"""State that was copied, moved or restored: what it keeps of the original, and what becomes its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import msgspec
import pytest

from cumulant.core.errors import UsageError
from cumulant.core.traffic import Arm, Routes
from cumulant.flows.ledger.processes import is_gone, process_of
from cumulant.flows.stack import lifecycle
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state, read_desired_state
from cumulant.flows.stack.folder_claim import claim_folder, rebase_path, rebase_versions
from cumulant.flows.stack.identity import home_of, read_identity, write_identity
from cumulant.flows.stack.lock import end_left_behind, end_leftovers, own_status
from cumulant.flows.stack.status import ChildStatus, Status, read_status, write_status
from cumulant.project.file.loading import load

AT = datetime(2026, 11, 24, tzinfo=UTC)
HEAD = "version: 1\nmodel: {name: m}\n"


@pytest.fixture
def living():
    """A process that only lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def killed():
    """A process of this boot that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    noted = process_of(process.pid)
    process.kill()
    process.wait()
    return noted


@pytest.fixture
def original(tmp_path):
    return served(tmp_path / "original")


def served(folder, traffic=""):
    """A project that served: a desired state with champion and candidate, routes to both, and an identity."""
    folder.mkdir()
    environments = f"environments: {{local: {{traffic: '{traffic}'}}}}\n" if traffic else ""
    (folder / "cumulant.yaml").write_text(HEAD + environments)
    with load(folder) as project:
        (project.state / "stack").mkdir(parents=True)
        change_desired_state(project.state, "m", lambda _: desired(folder))
        arms = {name: read_desired_state(project.state, "m").arm(version, name) for name, version in ARMS.items()}
        project.gateway().apply(Routes(model="m", revision=7, weight=10.0, **arms))
        claim_folder(project)
    return folder


ARMS = {"champion": "1", "candidate": "2"}


def desired(root):
    def served(version, port):
        state = root / ".cumulant"
        line = (
            sys.executable,
            "-m",
            "cumulant.serving",
            f"{state}/serving/m/{version}",
            "--log",
            f"{state}/predictions",
            "--online",
            f"sqlite://{state}/online.db",
            "--fallback",
            f"servable={root}/old",
        )
        return ServedVersion(version=version, command=line, port=port)

    return DesiredState(
        model="m", champion="1", candidate="2", versions={"1": served("1", free()), "2": served("2", free())}
    )


def free():
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return found.getsockname()[1]


def claimed(folder):
    """The desired state, the routes and what was reported, after the state in `folder` was claimed."""
    said = []
    with load(folder) as project:
        claim_folder(project, said.append)
        return read_desired_state(project.state, "m"), project.gateway().in_force("m"), said


def written(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def paths(desired):
    return " ".join(word for one in desired.versions.values() for word in one.command)


def status(folder, *processes, supervisor=None):
    children = tuple(
        ChildStatus(
            name=f"server-{number}",
            kind="server",
            state="ready",
            process=one,
            ready=True,
            restarts=0,
            not_ready_since=None,
            since=AT,
        )
        for number, one in enumerate(processes)
    )
    return Status(
        model="m",
        environment="local",
        supervisor=supervisor or process_of(os.getpid()),
        since=AT,
        at=AT,
        url=None,
        children=children,
        home=home_of(folder / ".cumulant"),
    )


def test_a_copy_gets_paths_ports_routes_and_an_identity_of_its_own(original, tmp_path):
    before = written(original)
    copy = shutil.copytree(original, tmp_path / "copy")
    found, routes, said = claimed(copy)
    here = read_desired_state(original / ".cumulant", "m")
    assert str(original) not in paths(found)
    assert paths(found) == paths(here).replace(str(original), str(copy))
    assert {one.port for one in found.versions.values()}.isdisjoint(one.port for one in here.versions.values())
    assert (found.champion, found.candidate) == ("1", None)
    assert (routes.champion.endpoints, routes.candidate) == ((found.versions["1"].endpoint,), None)
    assert routes.revision > 7
    assert len(said) == 1
    assert f"a copy of {original}" in said[0]
    one, other = (read_identity(folder / ".cumulant") for folder in (original, copy))
    assert one.id != other.id
    assert other.home == home_of(copy / ".cumulant")
    assert written(original) == before
    assert claimed(copy)[2] == [], "once"


def test_a_moved_project_keeps_its_ports_and_its_release(original, tmp_path):
    before = read_desired_state(original / ".cumulant", "m")
    moved = shutil.move(original, tmp_path / "moved")
    found, routes, said = claimed(moved)
    assert str(original) not in paths(found)
    assert {name: one.port for name, one in found.versions.items()} == {n: s.port for n, s in before.versions.items()}
    assert (found.candidate, routes.revision, routes.weight) == ("2", 7, 10.0)
    assert f"last used in {original}" in said[0]


def test_a_moved_project_gets_another_port_where_its_own_is_taken(original, tmp_path):
    port = read_desired_state(original / ".cumulant", "m").versions["1"].port
    moved = shutil.move(original, tmp_path / "moved")
    with closing(socket.create_server(("127.0.0.1", port))):
        found, routes, _ = claimed(moved)
    assert found.versions["1"].port != port
    assert routes.champion.endpoints == (found.versions["1"].endpoint,)


def test_a_backup_that_is_restored_in_place_has_a_new_identity_and_its_paths(original, tmp_path):
    before, identity = read_desired_state(original / ".cumulant", "m"), read_identity(original / ".cumulant")
    backup = shutil.copytree(original, tmp_path / "backup")
    kept = original.rename(tmp_path / "kept")  # its inode stays in use
    shutil.copytree(backup, original)
    found, _, said = claimed(original)
    assert (paths(found), found.candidate) == (paths(before), "2")
    assert read_identity(original / ".cumulant").id != identity.id
    assert len(said) == 1
    assert kept.is_dir()


def test_a_copy_does_not_change_the_routes_of_a_gateway_that_it_shares(tmp_path):
    one = served(tmp_path / "one", f"envoy://{tmp_path}/gateway")
    copy = shutil.copytree(one, tmp_path / "copy")
    before = written(tmp_path)
    with load(copy) as project:
        for _ in range(2):
            with pytest.raises(UsageError, match=f"a copy of {one}/.cumulant, and both name one gateway") as raised:
                claim_folder(project)
        with pytest.raises(UsageError, match="both name one gateway"):
            lifecycle.up(project, principal=project.principal())
    assert "environments.local.traffic" in raised.value.hint
    assert written(tmp_path) == before
    text = (copy / "cumulant.yaml").read_text()
    (copy / "cumulant.yaml").write_text(text.replace(f"{tmp_path}/gateway", f"{copy}/gateway"))
    found, routes, said = claimed(copy)
    assert (routes, found.candidate, len(said)) == (None, None, 1)
    assert claimed(one)[1].revision == 7


def test_a_gateway_in_the_project_folder_is_copied_with_it(tmp_path):
    copy = shutil.copytree(served(tmp_path / "one", "envoy://gateway"), tmp_path / "copy")
    found, routes, _ = claimed(copy)
    assert routes.champion.endpoints == (found.versions["1"].endpoint,)
    assert claimed(tmp_path / "one")[1].revision == 7


def test_a_moved_project_keeps_its_gateway(tmp_path):
    moved = shutil.move(served(tmp_path / "one", f"envoy://{tmp_path}/gateway"), tmp_path / "moved")
    assert claimed(moved)[1].revision == 7


def test_a_state_folder_that_only_the_claim_makes_is_known_again(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(HEAD)
    messages = []
    for _ in range(2):
        with load(tmp_path) as project:
            claim_folder(project, messages.append)
            assert read_identity(project.state).home == home_of(project.state)
    assert messages == []


def test_another_path_to_the_same_folder_and_another_name_of_the_machine_change_nothing(original, tmp_path):
    before = read_desired_state(original / ".cumulant", "m")
    (tmp_path / "link").symlink_to(original)
    assert claimed(tmp_path / "link")[2] == []
    identity = read_identity(original / ".cumulant")
    renamed = msgspec.structs.replace(identity, home=msgspec.structs.replace(identity.home, host="before"))
    write_identity(original / ".cumulant", renamed)
    found, routes, said = claimed(original)
    assert (found, routes.revision) == (before, 7)
    assert "last used on before" in said[0]


def test_processes_that_a_copied_status_names_live_on(original, tmp_path, living):
    write_status(original / ".cumulant", status(original, process_of(living.pid)))
    copy = shutil.copytree(original, tmp_path / "copy")
    said = []
    with load(copy) as project:
        assert lifecycle.ps(project, principal=project.principal()) is None
        assert lifecycle.down(project, principal=project.principal(), progress=said.append) == 0
    assert read_status(copy / ".cumulant") is None
    (aside,) = (copy / ".cumulant" / "stack").glob("status.json.other-*")
    assert msgspec.json.decode(aside.read_bytes(), type=Status) == read_status(original / ".cumulant")
    assert said == ["this state is a copy: the processes of the original are left alone"]
    assert not is_gone(process_of(living.pid))
    assert own_status(original / ".cumulant").children[0].pid == living.pid
    assert end_left_behind(original / ".cumulant") == 1
    assert living.wait(timeout=60)


def named(process, name):
    """The process, as it was noted when the machine had another name."""
    return msgspec.structs.replace(process, host=f"{name}:{process.host.rpartition(':')[2]}")


@pytest.mark.parametrize("change", ["moved", "renamed"])
def test_what_a_killed_supervisor_left_ends_after_a_move_or_a_new_hostname(original, tmp_path, living, killed, change):
    left = status(original, process_of(living.pid), supervisor=killed)
    folder = original
    if change == "renamed":
        home = msgspec.structs.replace(left.home, host="before")
        left = status(original, named(process_of(living.pid), "before"), supervisor=named(killed, "before"))
        left = msgspec.structs.replace(left, home=home)
    write_status(original / ".cumulant", left)
    if change == "moved":
        folder = original.rename(tmp_path / "moved")
    with load(folder) as project:
        assert lifecycle.down(project, principal=project.principal()) == 1
    assert living.wait(timeout=60) is not None
    assert read_status(folder / ".cumulant") is None
    assert not list((folder / ".cumulant" / "stack").glob("status.json*"))


@contextmanager
def holding(state):
    """A process that is the supervisor of a state."""
    program = (
        "import sys, time; from pathlib import Path; from cumulant.flows.stack.lock import hold_lock\n"
        "with hold_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    line = [sys.executable, "-c", program, str(state)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline()
        yield holder


def test_a_local_supervisor_ends_under_a_new_name_of_the_machine(original):
    with holding(original / ".cumulant") as holder:
        write_status(original / ".cumulant", status(original, supervisor=named(process_of(holder.pid), "before")))
        with load(original) as project:
            assert lifecycle.down(project, principal=project.principal()) == 1
        assert holder.wait(timeout=60) is not None


def test_a_number_of_another_machine_is_no_process_of_this_one(original, living):
    elsewhere = msgspec.structs.replace(process_of(living.pid), host="elsewhere:1")
    assert end_leftovers(status(original, elsewhere), patience=0.1) == 0
    assert living.poll() is None


def test_a_supervisor_in_another_container_is_not_ended_by_its_number(original, living):
    with holding(original / ".cumulant") as holder:
        there = msgspec.structs.replace(process_of(holder.pid), host="container:1")
        write_status(original / ".cumulant", status(original, supervisor=there))
        with load(original) as project, pytest.raises(UsageError, match=r"runs elsewhere, as process \d+ on container"):
            lifecycle.down(project, principal=project.principal())
        assert holder.poll() is None
        holder.kill()


@pytest.mark.parametrize(
    ("word", "old", "new", "expected"),
    [
        ("/a/p/.cumulant/log", "/a/p", "/b", "/b/.cumulant/log"),
        ("sqlite:///a/p/o.db", "/a/p", "/b", "sqlite:///b/o.db"),
        ("servable=/a/p/m", "/a/p", "/b", "servable=/b/m"),
        ("/a/p", "/a/p", "/b", "/b"),
        ("/a/p2/x", "/a/p", "/b", "/a/p2/x"),
        ("/x/a/p/y", "/a/p", "/b", "/x/a/p/y"),
        ("/a/p/x", "/a/p", "/a/p/copy", "/a/p/copy/x"),
        ("/a/p/copy/x", "/a/p", "/a/p/copy", "/a/p/copy/x"),
        ("/a/p/x", "/a/p", "/a", "/a/x"),
        ("/r/p/x", "/a/p", "/b", "/b/x"),
        ("64MiB", "/a/p", "/b", "64MiB"),
    ],
)
def test_paths_of_arguments(word, old, new, expected):
    assert rebase_path(word, (old, "/r/p"), new) == expected


def test_an_interpreter_that_was_not_copied_stays_where_it_is(original):
    first = read_desired_state(original / ".cumulant", "m")
    line = (f"{original}/.venv/bin/python", *first.versions["1"].command[1:])
    changed = msgspec.structs.replace(first, versions={"1": msgspec.structs.replace(first.versions["1"], command=line)})
    found = rebase_versions(changed, (str(original),), "/elsewhere", lambda one, _: one.port)
    assert found.versions["1"].command[0] == f"{original}/.venv/bin/python"
    assert found.versions["1"].command[3].startswith("/elsewhere/")


def test_routes_to_servers_that_are_not_ours_stay(original, tmp_path):
    with load(original) as project:
        change_desired_state(project.state, "m", lambda _: DesiredState(model="m"))
        arm = Arm(name="champion", version="http://10.0.0.1", endpoints=("http://10.0.0.1",))
        project.gateway().apply(Routes(model="m", revision=8, champion=arm))
    assert claimed(shutil.copytree(original, tmp_path / "copy"))[1].champion == arm
