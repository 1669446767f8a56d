"""The project's code as a content-named object."""

import errno
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec
import pytest

from cumulant.core.errors import IntegrityError, StorageError, UsageError
from cumulant.core.system.temporary_folders import in_use
from cumulant.flows.ledger import code_bundle
from cumulant.flows.ledger.code_bundle import open_code, store_code
from cumulant.project.file.loading import load

PROJECT = """\
version: 1
extends: ../shared/base.yaml
model: {name: returns}
data:
  orders: {path: data.csv, prepare: "prepare.py:clean", contract: orders.odcs.yaml}
training: {target: returned, trainers: [lightgbm, "own/trainer.py:fit"]}
"""
FILES = {
    "shared/base.yaml": "version: 1\n",
    "shop/cumulant.yaml": PROJECT,
    "shop/features.py": "import helpers.text\n",
    "shop/helpers/__init__.py": "",
    "shop/helpers/text.py": "from helpers import numbers_\n",
    "shop/helpers/numbers_.py": "",
    "shop/prepare.py": "def clean(row): return row\n",
    "shop/own/trainer.py": "import json\n",
    "shop/orders.odcs.yaml": "kind: DataContract\n",
}
OTHERS = {
    "shop/unused.py": "",
    "shop/data.csv": "returned\n1\n",
    "shop/.cumulant/secrets": "PASSWORD=x",
    ".env": "KEY=x",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in (FILES | OTHERS).items():
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "here" / "shop"


def files_of(folder: Path):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def stored_in(project, key):
    """The folder of an object of the project."""
    with project.objects().open(key) as stored:
        return stored


def test_a_bundle_holds_the_code_that_the_project_names_and_imports_and_nothing_else(folder, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / "secrets").write_text("PASSWORD=y")
    with load(folder) as project:
        key = store_code(project)
        with open_code(project.objects(), key, tmp_path / "elsewhere", state=state) as root:
            pass
    assert root.name == "shop"
    stored = files_of(root.parent)
    assert {name: text for name, text in stored.items() if "/.cumulant/" not in name} == FILES
    assert (root / ".cumulant" / "secrets").read_text() == "PASSWORD=y"
    with load(root) as copy, load(folder) as project:
        assert copy.spec == project.spec
    assert (tmp_path / "elsewhere").stat().st_mode & 0o077 == 0


def test_a_bundle_is_named_by_its_content(folder):
    with load(folder) as project:
        key = store_code(project)
        assert store_code(project) == key
        (folder / "unused.py").write_text("changed = 1\n")
        (folder / "cumulant.yaml").write_text("version: 1\n")  # a worker goes by what was loaded
        assert store_code(project) == key
        (folder / "helpers" / "text.py").write_text("changed = 1\n")
        changed = store_code(project)
        assert changed != key
        assert files_of(stored_in(project, changed))["files/shop/cumulant.yaml"] == PROJECT


def test_code_that_is_too_large_is_refused_with_its_largest_file(folder, monkeypatch):
    monkeypatch.setattr(code_bundle, "MOST_BYTES", 1000)
    (folder / "helpers" / "text.py").write_text("#" * 2000)
    with load(folder) as project, pytest.raises(UsageError, match="the project's code takes") as caught:
        store_code(project)
    assert caught.value.subject == str(folder / "helpers" / "text.py")


@pytest.mark.parametrize("damage", ["changed", "added", "removed", "manifest"])
def test_a_changed_bundle_is_refused(folder, tmp_path, damage):
    with load(folder) as project:
        key = store_code(project)
        stored = stored_in(project, key)
        file = next(path for path in stored.rglob("features.py"))
        for path in (stored, *stored.rglob("*")):
            path.chmod(0o700)
        match damage:
            case "changed":
                file.write_text("raise SystemExit\n")
            case "added":
                (file.parent / "sitecustomize.py").write_text("raise SystemExit\n")
            case "removed":
                file.unlink()
            case _:
                (stored / "bundle.json").write_text("{}")
        with (
            pytest.raises(IntegrityError, match="is damaged"),
            open_code(project.objects(), key, tmp_path / "elsewhere", state=tmp_path),
        ):
            pass
    assert not list((tmp_path / "elsewhere").rglob("*.py"))


def test_the_last_bundles_and_those_in_use_stay_and_the_state_does_not_go_with_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(code_bundle, "COPIES", 2)
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    (state / "journal.sqlite").touch()

    def fetch(number, used_ago):
        (folder / "features.py").write_text(f"import helpers.text\nn = {number}\n")
        with load(folder) as project, open_code(project.objects(), store_code(project), elsewhere, state=state) as root:
            assert (root / ".cumulant" / "journal.sqlite").exists()
        bundle = root.parents[1]
        used = time.time() - used_ago
        os.utime(bundle, (used, used))
        return bundle

    (elsewhere / ".new-killed").mkdir(parents=True)
    os.utime(elsewhere / ".new-killed", (0, 0))
    first, second = fetch(1, 4000), fetch(2, 3000)
    with in_use(first):
        third, fourth = fetch(3, 2000), fetch(4, 1000)
        assert set(elsewhere.iterdir()) == {first, third, fourth}, "the second one was removed"
    assert not second.exists()
    fetch(1, 4000)  # used again, and so the newest while it is open
    assert set(elsewhere.iterdir()) == {first, fourth}
    assert [path.name for path in state.iterdir()] == ["journal.sqlite"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_a_folder_behind_a_link_is_no_part_of_a_bundle(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "sitecustomize.py").write_text("raise SystemExit\n")
    with load(folder) as project:
        key = store_code(project)
        place = next(stored_in(project, key).rglob("features.py")).parent
        place.chmod(0o700)
        (place / "numpy").symlink_to(tmp_path / "outside", target_is_directory=True)
        with (
            pytest.raises(IntegrityError, match="is damaged"),
            open_code(project.objects(), key, tmp_path / "elsewhere", state=tmp_path),
        ):
            pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_code_that_changes_after_it_was_looked_at_is_refused(folder, tmp_path, monkeypatch):
    """Whoever shares the store changes it at the worst moment: when its copy begins."""
    with load(folder) as project:
        key = store_code(project)
        stored = stored_in(project, key)
        copy = shutil.copytree

        def change_and_copy(*arguments, **options):
            for path in (stored, *stored.rglob("*")):
                path.chmod(0o700)
            next(path for path in stored.rglob("features.py")).write_text("raise SystemExit\n")
            return copy(*arguments, **options)

        monkeypatch.setattr(shutil, "copytree", change_and_copy)
        with (
            pytest.raises(IntegrityError, match="is damaged"),
            open_code(project.objects(), key, tmp_path / "elsewhere", state=tmp_path),
        ):
            pass


def test_a_disk_that_is_full_while_code_is_fetched_is_named(folder, tmp_path, monkeypatch):
    def full(source, target, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    elsewhere = tmp_path / "elsewhere"
    with load(folder) as project:
        key = store_code(project)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfile", full)
            with (
                pytest.raises(
                    StorageError, match=f"elsewhere cannot be written: .*{os.strerror(errno.ENOSPC)}"
                ) as caught,
                open_code(project.objects(), key, elsewhere, state=tmp_path),
            ):
                pass
        assert caught.value.message.count(os.strerror(errno.ENOSPC)) == 1
        assert list(elsewhere.iterdir()) == []
        with open_code(project.objects(), key, elsewhere, state=tmp_path) as root:
            assert (root / "features.py").exists()


@pytest.mark.parametrize("key", ["code/..", "code/", "code/../../etc", "..", "features/" + "0" * 64])
def test_a_key_that_names_no_code_is_refused(folder, tmp_path, key):
    with (
        load(folder) as project,
        pytest.raises(IntegrityError, match="is damaged"),
        open_code(project.objects(), key, tmp_path / "elsewhere", state=tmp_path),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("place", ["../../outside", "/tmp", "shop/../../outside"])
def test_a_bundle_whose_project_is_elsewhere_is_refused(folder, tmp_path, place):
    (tmp_path / "outside").mkdir()
    with load(folder) as project:
        stored = tmp_path / "code"
        (stored / "files").mkdir(parents=True)
        manifest = code_bundle._Manifest(place, {})
        (stored / "bundle.json").write_bytes(msgspec.json.encode(manifest))
        key = code_bundle._key(manifest)
        project.objects().put(key, stored)
        with (
            pytest.raises(IntegrityError, match="is damaged"),
            open_code(project.objects(), key, tmp_path / "elsewhere", state=tmp_path),
        ):
            pass
    assert list((tmp_path / "outside").iterdir()) == []
