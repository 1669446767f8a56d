"""Commit, environment, principal and salt."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cumulant.core.errors import StorageError
from cumulant.project.identity import code_of, principal, python_environment
from cumulant.project.keys.salt import salt_file


def git(folder: Path, *arguments: str) -> None:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.com",
    }
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, env={**os.environ, **identity, **alone}
    )


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    assert code_of(tmp_path).commit is None
    model = tmp_path / "model"
    model.mkdir()
    (model / "cumulant.yaml").write_text("version: 1\n")
    git(tmp_path, "init", "-q")
    assert code_of(model).commit is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    found = code_of(model)
    assert re.fullmatch("[0-9a-f]{40,64}", found.commit)
    assert not found.dirty
    (tmp_path / "elsewhere.txt").write_text("x")
    assert not code_of(model).dirty
    (model / "features.py").write_text("x = 1\n")
    assert code_of(model).dirty
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "second")
    assert code_of(model).commit != found.commit
    (model / "features.py").write_text("x = 2\n")
    assert code_of(model) == code_of(model)
    assert code_of(model).dirty


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_of(tmp_path).commit is None


def test_the_python_environment_names_what_is_installed():
    found = python_environment()
    assert found.python == ".".join(str(part) for part in sys.version_info[:3])
    assert {"cumulant", "msgspec", "ruamel-yaml"} <= set(found.packages)
    assert all(re.match(r"\d", version) for version in found.packages.values())
    assert found.identity == python_environment().identity


@pytest.mark.parametrize(
    ("said", "name"), [("ada", "user:ada"), ("service:ci", "service:ci"), (" user:ada ", "user:ada")]
)
def test_a_principal_may_be_named(said, name):
    assert principal({"CUMULANT_USER": said}, tenant="acme", via="cli").id == name


@pytest.mark.skipif(sys.platform == "win32", reason="accounts have numbers on POSIX")
def test_the_account_is_no_matter_of_variables(monkeypatch):
    import pwd

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "eve")
    acting = principal({"CUMULANT_USER": "eve"}, tenant="acme", via="cli")
    assert acting.claims == {"os_user": pwd.getpwuid(os.getuid()).pw_name}


def test_the_principal_is_the_user_of_the_machine():
    assert re.fullmatch(r"user:\S+", principal({}, tenant="acme", via="cli").id)
    assert principal({"CUMULANT_USER": " "}, tenant="acme", via="cli") == principal({}, tenant="acme", via="cli")


def test_a_user_without_a_name_has_a_number(monkeypatch):
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    import pwd

    def nobody(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    assert principal({}, tenant="acme", via="cli").id == f"user:{os.getuid()}"


def test_the_salt_is_made_once_and_for_its_owner_only(tmp_path):
    folder = tmp_path / ".cumulant"
    first = salt_file(folder)
    assert len(first) == 32
    assert salt_file(folder) == first
    assert stat.S_IMODE((folder / "salt").stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == ["salt"]
    assert salt_file(tmp_path / "another") != first


def test_a_damaged_salt_is_not_replaced(tmp_path):
    (tmp_path / "salt").write_bytes(b"short")
    with pytest.raises(StorageError, match="damaged"):
        salt_file(tmp_path)
    assert (tmp_path / "salt").read_bytes() == b"short"


def test_a_place_that_cannot_hold_the_salt(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="salt cannot be read or made"):
        salt_file(tmp_path / "file")


def _salt(folder: Path) -> bytes:
    return salt_file(folder)


def test_processes_that_start_together_share_one_salt(tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        salts = pool.map(_salt, [tmp_path / "state"] * 8)
    assert len(set(salts)) == 1
