"""The key by which the servers of a stack know its gateway."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
from test_stack_programs import STACK, served

from cumulant.core.errors import StorageError
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion
from cumulant.flows.stack.gateway_key import CALLER_KEY, key_path, new_key, remove_keys, shared_key, write_key
from cumulant.flows.stack.stack_processes import build_stack, wanted_processes
from cumulant.project.file.loading import load

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_it_is_for_its_owner_alone_and_new_each_time(tmp_path):
    before = os.umask(0)
    try:
        write_key(tmp_path, new_key())
    finally:
        os.umask(before)
    path = key_path(tmp_path)
    first = path.read_bytes()
    assert (len(first), path.stat().st_mode & 0o777) == (32, 0o600)
    write_key(tmp_path, new_key())
    assert path.read_bytes() != first
    assert [one.name for one in path.parent.iterdir()] == ["gateway.key"]


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.chmod(0o644), lambda path: path.write_bytes(b"")]
)
def test_a_lost_or_open_file_is_written_again(tmp_path, damage):
    key = new_key()
    write_key(tmp_path, key)
    damage(key_path(tmp_path))
    write_key(tmp_path, key)
    assert (key_path(tmp_path).read_bytes(), key_path(tmp_path).stat().st_mode & 0o777) == (key, 0o600)
    remove_keys(tmp_path)
    remove_keys(tmp_path)
    assert not key_path(tmp_path).exists()


def test_where_it_cannot_be_written_that_is_said(tmp_path):
    (tmp_path / "stack").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        write_key(tmp_path, new_key())


def test_servers_behind_the_gateway_are_told_its_path_and_never_the_key():
    one = served("1")
    behind = ServedVersion(version="2", command=(*one.command, "--behind-gateway"), port=20_002)
    both = DesiredState(model="m", champion="1", candidate="2", versions={"1": one, "2": behind})
    found = wanted_processes(STACK, both, NOW)
    assert "--gateway-key-file" not in found["server-1"].command
    assert found["server-2"].command[-2:] == ("--gateway-key-file", str(key_path(STACK.state)))


def test_machines_with_one_secret_salt_hash_callers_keys_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("SALT", "s" * 40)
    stacks = []
    for machine in "ab":
        folder = tmp_path / machine
        folder.mkdir()
        (folder / "cumulant.yaml").write_text(
            "version: 1\nmodel: {name: m}\nenvironments: {local: {salt: '${secret:SALT}'}}\n"
        )
        with load(folder) as project:
            stacks.append(build_stack(project, "127.0.0.1:0"))
            path = key_path(project.state, CALLER_KEY)
        at = stacks[-1].gateway.index("--key-file")
        assert stacks[-1].gateway[at + 1] == str(path)
        assert "s" * 40 not in str(stacks[-1].gateway)
        write_key(project.state, stacks[-1].caller_key, CALLER_KEY)
        assert path.stat().st_mode & 0o777 == 0o600
    assert stacks[0].caller_key == stacks[1].caller_key
    assert len({b"s" * 40, stacks[0].caller_key, shared_key(b"s" * 40)}) == 3


def test_a_salt_in_a_file_is_the_key_of_callers_itself(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\nmodel: {name: m}\n")
    with load(tmp_path) as project:
        stack = build_stack(project, "127.0.0.1:0")
        assert stack.gateway[stack.gateway.index("--key-file") + 1] == project.salt_source.path()
    assert stack.caller_key is None
