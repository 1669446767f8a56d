"""Files that are replaced in one step, locks, and JSON files, under full disks, kills and other processes."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from cumulant.core.errors import LeaseHeldError, StorageError
from cumulant.core.system import atomic_files
from cumulant.core.system.atomic_files import (
    atomic_draft,
    read_checked,
    replace_file,
    storage_errors,
    write_checked,
)
from cumulant.core.system.json_files import read_json
from cumulant.core.system.locks import lock_file, try_lock
from cumulant.core.system.shown_paths import without_folder
from cumulant.core.system.temporary_folders import in_use, remove_abandoned

BUSY = LeaseHeldError("another process has it")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("private", [False, True])
def test_a_file_is_replaced_with_the_mode_of_its_kind(tmp_path, private):
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    path.chmod(0o644)
    before = os.umask(0o022)
    try:
        replace_file(path, b"new", private=private)
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == (0o600 if private else 0o644)
    assert names(tmp_path) == ["state.json"]


def test_a_draft_of_a_killed_thread_gives_way(tmp_path):
    path = tmp_path / "state.json"
    draft = tmp_path / f".state.json.{threading.get_native_id()}"
    draft.write_bytes(b"half")
    draft.chmod(0o644)
    replace_file(path, b"new", private=True)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["state.json"]


def test_threads_do_not_take_each_others_drafts(tmp_path):
    path, faults = tmp_path / "state.json", []

    def write(number: int) -> None:
        try:
            for _ in range(200):
                replace_file(path, b"%d" % number * 1000, durable=False)
        except OSError as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(set(path.read_bytes())) == 1
    assert names(tmp_path) == ["state.json"]


def test_on_a_full_disk_the_old_content_stays_and_no_draft_is_left(tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="cannot be written: File too large") as refusal, storage_errors(path):
            replace_file(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert refusal.value.subject == str(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state.json"]


def test_where_the_disk_takes_nothing_more_the_old_content_stays(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(StorageError, match="No space left on device") as refusal,
        storage_errors(path, hint="free some"),
    ):
        replace_file(path, b"new")
    assert refusal.value.hint == "free some"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state.json"]


def test_what_is_durable_is_synced_with_its_name(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(atomic_files, "sync", synced.append)
    replace_file(tmp_path / "a", b"a", durable=False)
    assert synced == []
    replace_file(tmp_path / "a", b"a")
    assert synced == [tmp_path / f".a.{threading.get_native_id()}", tmp_path]


def test_a_block_that_fails_leaves_no_draft(tmp_path):
    def write() -> None:
        with atomic_draft(tmp_path / "a") as draft:
            draft.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert names(tmp_path) == []


_WRITER = """
import sys
from pathlib import Path
from cumulant.core.system.atomic_files import replace_file
path = Path(sys.argv[1])
sys.stdout.write("ready\\n")
sys.stdout.flush()
while True:
    for letter in b"ab":
        replace_file(path, bytes([letter]) * 200_000, durable=False)
"""


@pytest.mark.parametrize("microseconds", [0, 300, 1700])
def test_a_killed_writer_leaves_one_content_or_the_other(tmp_path, microseconds):
    path = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        while not path.exists():
            pass
        threading.Event().wait(microseconds / 1e6)
        writer.kill()
    content = path.read_bytes()
    assert len(content) == 200_000
    assert len(set(content)) == 1


def test_a_checked_file_that_was_altered_is_none(tmp_path):
    path = tmp_path / "made" / "cache"
    assert read_checked(path) is None
    write_checked(path, b"content")
    assert read_checked(path) == b"content"
    stored = path.read_bytes()
    for damaged in (b"", stored[:-1], stored[:20], stored + b"x", bytes([stored[0] ^ 1]) + stored[1:]):
        path.write_bytes(damaged)
        assert read_checked(path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"name": "\xff"}', b'{"name": 1}', b"[" * 100_000, b"null"])
def test_a_damaged_json_file_is_none(tmp_path, content):
    class Named(msgspec.Struct):
        name: str

    path = tmp_path / "state.json"
    assert read_json(path, Named) is None
    path.write_bytes(b'{"name": "a"}')
    assert read_json(path, Named) == Named("a")
    path.write_bytes(content)
    assert read_json(path, Named) is None


_HOLDER = """
import sys, time
from pathlib import Path
from cumulant.core.errors import LeaseHeldError
from cumulant.core.system.locks import lock_file
with lock_file(Path(sys.argv[1]), LeaseHeldError("busy")):
    sys.stdout.write("locked\\n")
    sys.stdout.flush()
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(LeaseHeldError) as refusal, lock_file(path, BUSY, wait=0.1):
            raise AssertionError
        assert refusal.value is BUSY
        holder.kill()
    with lock_file(path, BUSY):
        pass
    assert path.exists()


def test_a_lock_that_is_waited_for_is_taken_once_it_is_free(tmp_path):
    path, entered = tmp_path / "lock", threading.Event()

    def take() -> None:
        with lock_file(path, BUSY, wait=60.0):
            entered.set()

    with lock_file(path, BUSY):
        thread = threading.Thread(target=take)
        thread.start()
        assert not entered.wait(0.2)
    thread.join()
    assert entered.is_set()


@pytest.mark.parametrize(("private", "mode"), [(False, 0o644), (True, 0o600)])
def test_the_mode_of_a_lock(tmp_path, private, mode):
    before = os.umask(0o022)
    try:
        with lock_file(tmp_path / "lock", BUSY, private=private):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == mode
    finally:
        os.umask(before)


def test_a_folder_in_use_is_not_removed(tmp_path):
    used, free, link = tmp_path / "used", tmp_path / "free", tmp_path / "link"
    for folder in (used, free, tmp_path / "elsewhere"):
        folder.mkdir()
        (folder / "file").touch()
    link.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "plain").touch()
    with in_use(used):
        handle = os.open(used, os.O_RDONLY)
        assert not try_lock(handle)
        os.close(handle)
        remove_abandoned(tmp_path.iterdir(), after=60.0)
        assert free.exists()
        remove_abandoned([used, free, link, tmp_path / "plain", tmp_path / "missing"], after=0.0)
        assert used.exists()
    assert not free.exists()
    assert (tmp_path / "elsewhere" / "file").exists()
    assert (tmp_path / "plain").exists()
    remove_abandoned([used], after=0.0)
    assert not used.exists()
    with contextlib.suppress(FileNotFoundError), in_use(used):
        raise AssertionError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/a/x.csv is empty", "x.csv is empty"),
        ("file:///srv/a/x, '/srv/a' and /srv/a.", "file://x, '.' and .."),
        *[(path, path) for path in ("/srv/ab/x", "/srv/a.b/x", "/srv/a-b", "/mnt/srv/a/x", "s3://srv/a/x")],
    ],
)
def test_paths_are_shown_from_a_folder_and_those_of_others_as_they_are(text, shown):
    assert without_folder(text, Path("/srv/a")) == shown
    assert without_folder(text, Path("/")) == text
