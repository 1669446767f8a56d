"""Who may read a project's state, whatever the umask says: real folders, real modes."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from cumulant.cli.project.doctor import private
from cumulant.project.file.loading import load
from cumulant.project.private import open_to_others

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
HEAD = "version: 1\nmodel: {name: late}\n"


@pytest.fixture
def open_umask():
    """New files and folders are open to everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def project(folder, text=HEAD):
    (folder / "cumulant.yaml").write_text(text)
    return load(folder)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def exposed(folder):
    """What others may read, seen from outside of the folder."""
    return [folder] if mode(folder) & 0o077 else []


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_new_state_is_its_owners_only(tmp_path, umask):
    with project(tmp_path) as found:
        before = os.umask(umask)
        try:
            found.salt()
            found.journal().head()
            found.online().meta("none")
        finally:
            os.umask(before)
        state = tmp_path / ".cumulant"
        assert mode(state) == 0o700
        if umask != 0o777:
            files = [path for path in state.iterdir() if path.is_file()]
            assert {path.name for path in files} >= {"salt", "journal.db", "online.db"}
            assert {mode(path) for path in files} == {0o600}


@pytest.mark.usefixtures("open_umask")
def test_the_state_of_an_environment_is_behind_the_same_folder(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(HEAD + "environments: {prod: {}}\n")
    with load(tmp_path, environment="prod") as found:
        found.journal().head()
        assert found.state == tmp_path / ".cumulant" / "environments" / "prod"
    assert exposed(tmp_path / ".cumulant") == []


@pytest.mark.usefixtures("open_umask")
def test_state_of_before_is_tightened_when_it_is_opened(tmp_path):
    state, elsewhere = tmp_path / ".cumulant", tmp_path / "elsewhere.parquet"
    (state / "tables" / "a").mkdir(parents=True)
    elsewhere.write_text("of others")
    names = ("journal.db", "journal.db-wal", "tables/a/part.parquet")
    for name in names:
        (state / name).touch()
    (state / "tables" / "a" / "linked.parquet").symlink_to(elsewhere)
    (state / "tables" / "a" / "named.parquet").hardlink_to(elsewhere)
    (state / "tables" / "a" / "fixed.parquet").touch(0o444)
    assert exposed(state) == [state]
    with project(tmp_path) as found:
        assert found.state == state
    assert [mode(path) for path in (state, state / "tables", state / "tables" / "a")] == [0o700] * 3
    assert [mode(state / name) for name in names] == [0o600] * 3
    assert mode(state / "tables" / "a" / "fixed.parquet") == 0o400
    assert mode(elsewhere) == 0o666, "a file that has other names is not ours alone"


def test_a_closed_folder_stays_closed(tmp_path):
    state = tmp_path / ".cumulant"
    state.mkdir()
    state.chmod(0o555)
    with project(tmp_path) as found:
        assert mode(found.state) == 0o500


@pytest.mark.usefixtures("open_umask")
def test_what_others_can_read_is_reported(tmp_path):
    journal = tmp_path / "shared.db"
    journal.touch()
    text = HEAD + f"environments: {{local: {{journal: 'sqlite://{journal}'}}}}\n"
    with project(tmp_path, text) as found:
        assert found.state.exists()
        assert open_to_others(found.root, found.endpoints, found.drivers) == [journal]
        Path(tmp_path / ".cumulant").chmod(0o750)
        assert open_to_others(found.root, found.endpoints, found.drivers) == [tmp_path / ".cumulant", journal]


@pytest.mark.usefixtures("open_umask")
def test_a_folder_behind_a_symbolic_link_keeps_its_modes_and_is_reported(tmp_path):
    shared = tmp_path / "shared"
    (shared / "others").mkdir(parents=True)
    (shared / "others" / "data.csv").touch()
    (tmp_path / "project").mkdir()
    state = tmp_path / "project" / ".cumulant"
    state.symlink_to(shared, target_is_directory=True)
    with project(tmp_path / "project") as found:
        assert found.state == state
        assert [mode(path) for path in (shared, shared / "others")] == [0o777] * 2
        assert mode(shared / "others" / "data.csv") == 0o666
        assert open_to_others(found.root, found.endpoints, found.drivers) == [state]


@pytest.mark.parametrize(("umask", "expected"), [(0o002, 0o644), (0o077, 0o600)])
def test_a_database_elsewhere_has_the_mode_that_the_umask_says(tmp_path, umask, expected):
    places = f"journal: 'sqlite://{tmp_path}/shared/journal.db', online: 'sqlite://{tmp_path}/shared/online.db'"
    with project(tmp_path, HEAD + f"environments: {{local: {{{places}}}}}\n") as found:
        before = os.umask(umask)
        try:
            found.journal().head()
            found.online().meta("none")
        finally:
            os.umask(before)
    assert {mode(tmp_path / "shared" / name) for name in ("journal.db", "online.db")} == {expected}


def test_doctor_warns_of_a_database_elsewhere_that_is_open_beyond_its_group(tmp_path):
    journal, behind = tmp_path / "shared.db", tmp_path / "behind"
    journal.touch()
    behind.mkdir(mode=0o700)
    (tmp_path / ".cumulant").symlink_to(behind, target_is_directory=True)
    text = HEAD + f"environments: {{local: {{journal: 'sqlite://{journal}'}}}}\n"
    with project(tmp_path, text) as found:
        journal.chmod(0o660)
        assert private(found).state == "ok"
        journal.chmod(0o664)
        behind.chmod(0o750)
        warning = private(found)
    assert warning.state == "warn"
    assert warning.fix == f"chmod go-rwx {tmp_path / '.cumulant'} && chmod o-rwx {journal}"
