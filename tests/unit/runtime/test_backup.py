"""A backup that is taken while others write, and what is restored from it."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from backup_writers import Noted, Rows

from cumulant.core.errors import IntegrityError, StorageError, UsageError
from cumulant.core.events import Actor
from cumulant.outcomes.store import batches, parts, read_table
from cumulant.project import load
from cumulant.runtime.backup.databases import copy_database
from cumulant.runtime.backup.restoring import restore
from cumulant.runtime.backup.writing import back_up
from cumulant.runtime.events import verify
from cumulant.runtime.stack.identity import read_identity
from cumulant.serving.log import scan
from cumulant.serving.log.recovery import recover
from cumulant.serving.log.upkeep import upkeep

HERE = Path(__file__).parent
SPEC = "version: 1\nmodel: {name: m}\ndata:\n  a: {path: data/*.csv}\n"
ROLES = ("events", "rows", "labels", "moves")


@pytest.fixture
def root(tmp_path):
    return made(tmp_path / "original")


def made(folder):
    (folder / "data").mkdir(parents=True)
    (folder / "cumulant.yaml").write_text(SPEC)
    (folder / "features.py").write_text("x = 1\n")
    (folder / "data" / "a.csv").write_text("x,y\n1,2\n")
    (folder / "note.txt").write_text("nothing that a project needs")
    with load(folder) as project:
        project.salt()
        model = folder / "model.txt"
        model.write_bytes(os.urandom(100_000))
        project.objects().put("servables/one", model)
        for place, content in {
            "secrets/token": "hidden-1",
            "gateway/secret": "hidden-2",
            "stack/token": "hidden-3",
        }.items():
            (project.state / place).parent.mkdir(exist_ok=True)
            (project.state / place).write_text(content)
        noted(project, 0)
    return folder


def noted(project, number):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.emit(Noted(number=number))


def backup(root, target, **more):
    with load(root) as project:
        return back_up(project, target, principal=project.principal(), log_seconds=0.0, **more)


@contextmanager
def writers(root):
    line = [sys.executable, str(HERE / "backup_writers.py"), str(root)]
    running = [subprocess.Popen([*line, role]) for role in ROLES]
    try:
        yield
        assert all(one.poll() is None for one in running)
    finally:
        for one in running:
            one.kill()
            one.wait()


def accepted(root, least=0):
    """How many of each role were accepted; waits for `least`."""
    until = time.monotonic() + 60
    while True:
        found = dict.fromkeys(ROLES, 0)
        found |= {path.stem: len(path.read_text().split()) for path in root.glob("*.accepted")}
        if min(found[role] for role in ROLES[:3]) >= least and found["moves"]:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.02)


def labelled(folder):
    """Ids of labels, taken in or still posted."""
    state = folder / ".cumulant" / "outcomes"
    posted = [json.loads(line)["id"] for path in state.glob("inbox/*.jsonl") for line in path.read_text().splitlines()]
    facts = [path for batch in batches(state) for path in parts(state, batch)]
    return {*posted, *(name for path in facts for name in read_table(path, ["id"])["id"].to_pylist())}


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_that_was_accepted_before_the_start_is_restored(root, tmp_path):
    with writers(root):
        for number in range(2):
            before = accepted(root, 5 * (number + 1))
            done = backup(root, tmp_path / f"{number}.tar")
            folder = tmp_path / f"restored-{number}"
            restore(done.archive, folder)
            with load(folder) as project:
                journal = project.journal()
                assert list(verify(journal, known=done.manifest.head_hash)) == []
                numbers = [event.data["number"] for event in journal.events(kinds=("test.noted",))]
                assert set(numbers) >= set(range(before["events"]))
                assert len(journal.rows("note")) == len(numbers) - 1, "rows and events are of one moment"
            logged = scan(folder / ".cumulant" / "predictions").to_table(columns=["id"])["id"].to_pylist()
            assert len(logged) == len(set(logged)), "a merged file and its parts are not counted twice"
            assert set(logged) >= {f"r{one}" for one in range(before["rows"])}
            assert labelled(folder) >= {f"r{one}" for one in range(before["labels"])}


def test_parts_that_are_merged_while_they_are_read_are_in_it_once(root, tmp_path):
    log = root / ".cumulant" / "predictions"
    rows = Rows(log)
    for number in range(6):
        rows.put(f"r{number}")
    merged = []

    def merge(event, arguments):
        if event == "open" and str(arguments[0]).endswith(".parquet") and not merged:
            merged.append(1)
            upkeep(log, keep=None, file_size=1 << 20, file_age=0.0)

    assert forked(lambda: sys.addaudithook(merge), lambda: backup(root, tmp_path / "b.tar")) == 0
    restore(tmp_path / "b.tar", tmp_path / "restored")
    ids = scan(tmp_path / "restored" / ".cumulant" / "predictions").to_table(columns=["id"])["id"].to_pylist()
    assert sorted(ids) == [f"r{number}" for number in range(6)]
    assert len(list(log.glob("date=*/*.parquet"))) == 1, "they were merged meanwhile"


@pytest.mark.parametrize("published", [False, True])
def test_rows_in_a_journal_of_the_log_are_in_it_and_recovered_once(root, tmp_path, published):
    log = root / ".cumulant" / "predictions"
    rows = Rows(log)
    for number in range(3):
        rows.put_durable(f"r{number}")
    (journal,) = log.glob("date=*/.*.journal")
    content = journal.read_bytes()
    if published:
        rows.parts.close()
        journal.write_bytes(content)  # read before its part was published
    else:
        with journal.open("ab") as stream:
            stream.write(content[: len(content) // 3 - 1])  # a record that is being written
    backup(root, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "restored")
    restored = tmp_path / "restored" / ".cumulant" / "predictions"
    recover(restored)
    ids = scan(restored).to_table(columns=["id"])["id"].to_pylist()
    assert sorted(ids) == ["r0", "r1", "r2"]
    assert list(restored.glob("date=*/.*")) == []


def test_files_modes_times_and_what_is_left_out(root, tmp_path):
    done = backup(root, tmp_path)
    assert done.archive.parent == tmp_path
    assert done.archive.stat().st_mode & 0o777 == 0o600
    content = done.archive.read_bytes()
    assert not any(secret in content for secret in (b"hidden-1", b"hidden-2", b"hidden-3"))
    folder = tmp_path / "elsewhere" / "restored"
    told = restore(done.archive, folder)
    with load(root) as one, load(folder) as other:
        assert one.salt() == other.salt()
        assert one.objects().find("servables/one") == other.objects().find("servables/one")
    names = {"cumulant.yaml", "features.py", "data/a.csv"}
    assert {path.name for path in folder.iterdir()} == {"cumulant.yaml", "features.py", "data", ".cumulant"}
    for name in names:
        assert (folder / name).read_bytes() == (root / name).read_bytes()
        assert (folder / name).stat().st_mtime_ns == (root / name).stat().st_mtime_ns
    for one in done.manifest.files:
        assert (folder / one.path).stat().st_mode & 0o777 == 0o600, one.path
        assert all(
            parent.stat().st_mode & 0o777 == 0o700 for parent in [*(folder / one.path).parents][: -len(folder.parents)]
        )
    assert told.manifest.left_out == ()
    without = backup(root, tmp_path / "b.tar.gz", sources=False)
    assert without.manifest.left_out == ("files of source a; their snapshots are in it",)
    restore(without.archive, tmp_path / "c")
    assert not (tmp_path / "c" / "data").exists()


def test_a_restored_project_has_an_identity_of_its_own_and_says_so(root, tmp_path):
    from cumulant.runtime.stack.claim import claim

    with load(root) as project:
        claim(project)
    done = backup(root, tmp_path / "b.tar")
    before = files(root)
    told = restore(done.archive, tmp_path / "restored")
    one, other = (read_identity(folder / ".cumulant") for folder in (root, tmp_path / "restored"))
    assert one.id != other.id
    assert f"a copy of {root / '.cumulant'}" in told.notes[0]
    with load(tmp_path / "restored") as project:
        (event,) = project.journal().events(kinds=("backup.restored",))
        assert event.data["head_hash"] == done.manifest.head_hash
    assert files(root) == before


def test_nothing_is_restored_over_anything(root, tmp_path):
    done = backup(root, tmp_path / "b.tar")
    before = files(root)
    with pytest.raises(UsageError, match="not an empty folder") as caught:
        restore(done.archive, root)
    assert "new folder" in caught.value.hint
    assert files(root) == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for target in (tmp_path / "link", root / "cumulant.yaml"):
        with pytest.raises(UsageError, match="not an empty folder"):
            restore(done.archive, target)
    (tmp_path / "empty").mkdir()
    restore(done.archive, tmp_path / "empty")
    assert (tmp_path / "empty" / "cumulant.yaml").exists()
    with pytest.raises(UsageError, match="never replaces"):
        backup(root, done.archive)
    for target in (tmp_path / "not-mounted", tmp_path / "not-mounted" / "b.tar"):
        with pytest.raises(UsageError, match="no folder"):
            backup(root, target)
    with pytest.raises(UsageError, match="lies in the state"):
        backup(root, root / ".cumulant" / "b.tar")


def repacked(archive, target, change):
    """The archive with its members changed: `change(name, content)` gives pairs of TarInfo or name, and content."""
    with tarfile.open(archive) as before, tarfile.open(target, "w") as after:
        for member in before:
            for made, content in change(member.name, before.extractfile(member).read()):
                info = made if isinstance(made, tarfile.TarInfo) else tarfile.TarInfo(made)
                info.size = len(content)
                after.addfile(info, io.BytesIO(content))
    return target


def flipped(name, content):
    return [(name, content[:-1] + bytes([content[-1] ^ 1]) if name.endswith("features.py") else content)]


def dropped(name, content):
    return [] if name.endswith("features.py") else [(name, content)]


def doubled(name, content):
    return [(name, content)] * (2 if name.endswith("features.py") else 1)


def timeless(name, content):
    """With a time of a file that the system cannot hold."""
    if name != "manifest.json":
        return [(name, content)]
    manifest = json.loads(content)
    manifest["files"][0]["modified_ns"] = 10**30
    return [(name, json.dumps(manifest).encode())]


def added(made):
    return lambda name, content: [(name, content), *([(made, b"x")] if name.endswith("features.py") else [])]


def link(kind, name, to):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (flipped, "features.py is damaged"),
        (dropped, "features.py is missing"),
        (doubled, "features.py twice"),
        (timeless, "a time that no file can have"),
        (added("files/more.py"), "more.py, which its manifest does not list"),
        (added("files/features.py/x"), "a file and as a folder"),
        (added("files/../escaped"), "no file of a project"),
        (added("files/a/../../escaped"), "no file of a project"),
        (added("/escaped"), "no file of a project"),
        (added("files//escaped"), "no file of a project"),
        (added("files/C:/escaped"), "no file of a project"),
        (added("files/..\\escaped"), "no file of a project"),
        (added("escaped"), "no file of a project"),
        (added(link(tarfile.SYMTYPE, "files/link", "/etc")), "a link or no file"),
        (added(link(tarfile.LNKTYPE, "files/link", "files/salt")), "a link or no file"),
        (added(link(tarfile.FIFOTYPE, "files/pipe", "")), "a link or no file"),
        (added(link(tarfile.DIRTYPE, "files/folder", "")), "a link or no file"),
    ],
)
def test_a_changed_archive_is_refused_by_the_name_of_the_file(root, tmp_path, place, change, words):
    done = backup(root, tmp_path / "b.tar")
    bad = repacked(done.archive, tmp_path / "bad.tar", change)
    with pytest.raises(IntegrityError) as caught:
        restore(bad, place / "restored")
    assert words in caught.value.message
    assert list(place.iterdir()) == []
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_that_was_cut_off_is_refused(root, tmp_path, place, compressed):
    done = backup(root, tmp_path / ("b.tgz" if compressed else "b.tar"))
    content = done.archive.read_bytes()
    for length in (0, 1, 511, 513, *range(1000, len(content) - 12_000, len(content) // 12)):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(IntegrityError) as caught:
            restore(tmp_path / "cut", place / "restored")
        assert "nothing was restored" in caught.value.hint
    with pytest.raises(UsageError, match="there is no file"):
        restore(tmp_path / "none.tar", place / "restored")
    (tmp_path / "cut").write_text("a text\n" * 1000)
    with pytest.raises(IntegrityError):
        restore(tmp_path / "cut", place / "restored")
    assert list(place.iterdir()) == []


def forked(arm, work):
    """The exit status of a child that does `work`: 0, 3 for a StorageError, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            arm()
            work()
            code = 0
        except StorageError:
            code = 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killing(number):
    """The process ends with SIGKILL before the call with that number that opens or renames a file."""
    left = [number]

    def look(event, arguments):
        if event in ("open", "os.rename"):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(look)


def full_disk(limit):
    """No file can grow beyond `limit` bytes: what a full disk does to a write."""

    def arm():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return arm


@pytest.fixture
def place(tmp_path):
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def test_a_killed_backup_leaves_nothing_that_counts_as_one(root, place, tmp_path):
    ended = set()
    for number in range(1, 40, 3):
        target = place / f"{number}.tar"
        ended.add(forked(killing(number), lambda to=target: backup(root, to)))
        if target.exists():  # it ended after the renaming
            restore(target, tmp_path / f"from-{number}")
    assert -signal.SIGKILL in ended
    backup(root, place / "last.tar")
    assert [path.name for path in place.glob(".*")] == [], "drafts of killed processes are removed"
    with load(root) as project:
        assert list(verify(project.journal())) == []


def test_a_killed_restore_leaves_nothing_in_place(root, place, tmp_path):
    done = backup(root, tmp_path / "b.tar")
    ended = set()
    for number in range(1, 40, 3):
        target = place / f"restored-{number}"
        ended.add(forked(killing(number), lambda to=target: restore(done.archive, to)))
        if target.exists():
            assert {one.path for one in done.manifest.files} <= set(files(target)), "it ended after the renaming"
    assert -signal.SIGKILL in ended
    restore(done.archive, place / "last")
    assert [path.name for path in place.glob(".*")] == []


def test_a_full_disk_is_reported_and_leaves_nothing(root, place, tmp_path):
    assert forked(full_disk(120_000), lambda: backup(root, place / "b.tar")) == 3
    done = backup(root, tmp_path / "b.tar")
    assert forked(full_disk(50_000), lambda: restore(done.archive, place / "restored")) == 3
    assert list(place.iterdir()) == []


def test_what_a_killed_writer_left_in_a_database_is_undone_in_the_copy(root, place):
    path = root / ".cumulant" / "mlflow.db"

    def unfinished():
        database = sqlite3.connect(path, isolation_level=None)
        database.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA cache_size = 1; BEGIN")
        database.executemany("INSERT INTO t VALUES (zeroblob(?))", [(4000,)] * 500)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: None, unfinished) == -signal.SIGKILL
    assert path.with_name("mlflow.db-journal").exists()
    restore(backup(root, place / "b.tar").archive, place / "restored")
    with closing(sqlite3.connect(place / "restored" / ".cumulant" / "mlflow.db")) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(1,)]


def test_a_locked_database_is_reported_after_a_while_and_the_wait_can_be_interrupted(tmp_path):
    path = tmp_path / "a.db"
    line = ("import sys; from pathlib import Path; from cumulant.runtime.backup import databases as d; "
            "d._WAIT = float(sys.argv[1]); print('begun', flush=True); "
            "d.copy_database(Path(sys.argv[2]), Path(sys.argv[3]))")  # fmt: skip
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript("CREATE TABLE t (x); BEGIN EXCLUSIVE")
        for wait, interrupt, words in (("0.1", False, "a.db is busy"), ("60", True, "KeyboardInterrupt")):
            process = subprocess.Popen(
                [sys.executable, "-c", line, wait, path, tmp_path / "out.db"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdout.readline()
            if interrupt:
                process.send_signal(signal.SIGINT)
            assert words in process.communicate(timeout=30)[1]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_is_not_in_the_file_yet_is_copied_from_a_folder_that_cannot_be_written(tmp_path, monkeypatch, mode):
    closed, path = tmp_path / "closed", tmp_path / "closed" / "a.db"
    closed.mkdir()

    def writer():
        database = sqlite3.connect(path, isolation_level=None)
        database.executescript(f"PRAGMA journal_mode = {mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        if mode == "delete":
            database.executescript("PRAGMA cache_size = 1; BEGIN")
            database.executemany("INSERT INTO t VALUES (zeroblob(?))", [(4000,)] * 500)
        os.kill(os.getpid(), signal.SIGKILL)

    assert forked(lambda: None, writer) == -signal.SIGKILL
    before = files(closed)
    assert len(before) > 1
    monkeypatch.setattr(os, "access", lambda *_: False)  # root can write everywhere
    copy_database(path, tmp_path / "out.db")
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert database.execute("SELECT x FROM t").fetchall() == [(1,)]
    assert files(closed) == before
    assert {one.name for one in tmp_path.iterdir()} == {"closed", "out.db"}


def test_a_damaged_database_is_named_and_not_backed_up(root, place):
    path = root / ".cumulant" / "online.db"
    with load(root) as project:
        project.online().put("table", [(f"{n}".encode(), b"x" * 100) for n in range(2000)])
    content = bytearray(path.read_bytes())
    content[5000:9000] = os.urandom(4000)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"online\.db is damaged"):
        backup(root, place / "b.tar")
    assert list(place.iterdir()) == []


def test_a_state_folder_that_is_a_link_to_another_disk_is_in_it(root, place, tmp_path):
    other = tmp_path / "other-disk"
    (root / ".cumulant").rename(other)
    (root / ".cumulant").symlink_to(other)
    done = backup(root, place / "b.tar")
    assert done.manifest.left_out == ()
    restore(done.archive, place / "restored")
    assert not (place / "restored" / ".cumulant").is_symlink()
    with load(root) as one, load(place / "restored") as other:
        assert one.salt() == other.salt()
        assert one.objects().keys() == other.objects().keys() == ["servables/one"]
        assert len(list(other.journal().events(kinds=("test.noted",)))) == 1


def test_parts_of_the_state_on_another_disk_are_in_it_and_links_below_them_are_listed(root, place, tmp_path):
    state, disk = root / ".cumulant", tmp_path / "other-disk"
    (disk / "predictions" / "date=2026-11-01").mkdir(parents=True)
    (disk / "predictions" / "date=2026-11-01" / "L-000001-000001.parquet").write_text("x")
    (disk / "day").mkdir()
    (state / "predictions").symlink_to(disk / "predictions")
    (state / "predictions" / "date=2026-11-02").symlink_to(disk / "day")
    with closing(sqlite3.connect(disk / "mlflow.db")) as database:
        database.executescript("CREATE TABLE t (x)")
    (state / "mlflow.db").symlink_to(disk / "mlflow.db")
    (state / "profiles").symlink_to(tmp_path / "not-mounted")
    (disk / "hidden").mkdir()
    (disk / "hidden" / "token.py").write_text("hidden-4")
    shutil.rmtree(state / "secrets")
    (state / "secrets").symlink_to(disk / "hidden")
    (root / "token.py").symlink_to(disk / "hidden" / "token.py")
    done = backup(root, place / "b.tar")
    stored = {one.path for one in done.manifest.files}
    assert stored >= {".cumulant/predictions/date=2026-11-01/L-000001-000001.parquet", ".cumulant/mlflow.db"}
    assert done.manifest.left_out == (
        ".cumulant/profiles: a link that leads nowhere: is the disk mounted?",
        "token.py: a link, which is not followed",
        ".cumulant/predictions/date=2026-11-02: a link, which is not followed",
    )
    assert b"hidden-4" not in done.archive.read_bytes()


def test_a_folder_that_cannot_be_read_ends_the_backup(root, place, monkeypatch):
    day = root / ".cumulant" / "predictions" / "date=2026-11-02"
    day.mkdir(parents=True)
    scandir = os.scandir

    def failing(path="."):
        if str(path) == str(day):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)  # a bad disk
    with pytest.raises(StorageError, match="date=2026-11-02 cannot be written or read: Input/output error"):
        backup(root, place / "b.tar")
    assert list(place.iterdir()) == []


def test_a_store_elsewhere_is_listed(root, tmp_path):
    (root / "cumulant.yaml").write_text(SPEC + f"environments: {{local: {{store: 'file://{tmp_path}/elsewhere'}}}}\n")
    left_out = backup(root, tmp_path / "b.tar").manifest.left_out
    assert [one.split(" ")[0] for one in left_out] == ["tables", "objects"]


def test_what_lies_outside_of_the_folder_is_named_and_not_followed(tmp_path):
    root = made(tmp_path / "original")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.csv").write_text("x,y\n9,9\n")
    shutil.rmtree(root / "data")
    (root / "data").symlink_to(outside)
    (root / "stolen.py").symlink_to(outside / "a.csv")
    (root / ".cumulant" / "predictions").mkdir(exist_ok=True)
    (root / ".cumulant" / "predictions" / "link").symlink_to(outside)
    (root / "cumulant.yaml").write_text(
        SPEC + f"environments: {{local: {{journal: 'sqlite://{outside}/journal.db'}}}}\n"
    )
    done = backup(root, tmp_path / "b.tar")
    assert [one.split(" ")[0] for one in done.manifest.left_out[:2]] == ["journal", "files"]
    assert done.manifest.left_out[2:] == (
        "data: a link, which is not followed", "stolen.py: a link, which is not followed",
        ".cumulant/predictions/link: a link, which is not followed",
    )  # fmt: skip
    assert not any("a.csv" in one.path or "stolen" in one.path for one in done.manifest.files)


def test_a_file_whose_name_no_archive_can_hold_is_named(root, place):
    (root / "data" / "全角　空白.csv").write_text("x,y\n1,2\n")
    restore(backup(root, place / "a.tar").archive, place / "restored")
    assert (place / "restored" / "data" / "全角　空白.csv").exists()
    for name in (os.fsdecode(b"\xff.csv"), "a\\b.csv"):
        (root / "data" / name).write_text("x,y\n1,2\n")
        with pytest.raises(UsageError, match="a name that an archive cannot hold"):
            backup(root, place / "b.tar")
        (root / "data" / name).unlink()


def test_a_storage_error_says_what_to_do(root, place):
    done = backup(root, place / "b.tar")
    with pytest.raises(StorageError) as caught:
        restore(done.archive, root / "cumulant.yaml" / "restored")
    assert "name another folder" in caught.value.hint
