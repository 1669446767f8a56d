"""The embedded drivers where it is about files: layout, damage, permissions, crashes, the subprocess."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import polars as pl
import pytest

from cumulant.core.errors import (
    DataError,
    RefusedError,
    RetryableError,
    StepFailedError,
    StorageError,
    UsageError,
)
from cumulant.drivers.local.compute import InlineCompute, SubprocessCompute
from cumulant.drivers.local.files import LocalFiles
from cumulant.drivers.local.folders import FolderStore
from cumulant.drivers.local.location import locate
from cumulant.drivers.local.manifest import TableManifest
from cumulant.drivers.local.objects import FileObjects
from cumulant.drivers.local.online import SqliteOnline
from cumulant.drivers.local.secrets import EnvSecrets
from cumulant.drivers.local.tables import FileTables
from cumulant.ports.compute import Resources, StepCall
from cumulant.ports.driver import Driver

# Entry points --------------------------------------------------------------------------------------------------

ENTRIES = sorted(entry_points(group="cumulant.drivers"), key=lambda entry: entry.name)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_record_is_light_and_names_clients_that_exist(entry):
    code = (
        "import sys; from importlib.metadata import entry_points;"
        f"record = entry_points(group='cumulant.drivers')[{entry.name!r}].load();"
        "heavy = {'polars', 'obstore', 'mlflow', 'sqlite3', 'pandas', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    record = entry.load()
    assert isinstance(record, Driver)
    assert set(record.capabilities) <= set(record.clients)
    for client in record.clients.values():
        assert Path(*client.partition(":")[0].split(".")).name in client


def test_the_embedded_schemes_are_there():
    assert {"sqlite", "file", "env", "open", "inline", "subprocess", "s3", "gs", "az"} <= {
        entry.name for entry in ENTRIES
    }


@pytest.mark.parametrize(
    ("url", "path", "options"),
    [
        ("sqlite:///a/b.db", "/a/b.db", {}),
        ("sqlite:////a/b.db", "/a/b.db", {}),
        ("sqlite://a/b.db?project=x&region=y", "a/b.db", {"project": "x", "region": "y"}),
        ("file:///a b/50%?", "/a b/50%?", {}),
        ("file://", ".", {}),
        ("file:a/b", "a/b", {}),
        ("/a/b", "/a/b", {}),
        ("C:/a", "C:/a", {}),
    ],
)
def test_locations(url, path, options):
    found = locate(url)
    assert (os.path.normpath(found.path), found.options) == (path, options)


# Tables --------------------------------------------------------------------------------------------------------

FRAME = pl.DataFrame({"n": range(100), "key": [number % 3 for number in range(100)]})


def test_other_engines_read_the_folder_as_it_stands(tmp_path):
    import duckdb

    tables = FileTables(f"file://{tmp_path}")
    tables.write("a/b", FRAME)
    assert duckdb.sql(f"select count(*), sum(n) from '{tmp_path}/a/b.parquet/*.parquet'").fetchall() == [(100, 4950)]
    tables.write("by", FRAME, partition_by=["key"])
    assert sorted(path.name for path in (tmp_path / "by.parquet").iterdir()) == [
        "_table.json",
        "key=0",
        "key=1",
        "key=2",
    ]
    assert pl.read_parquet_schema(tmp_path / "a/b.parquet/part-00000.parquet") == FRAME.schema


def test_frames_one_by_one_are_not_held_all_at_once(tmp_path):
    import weakref

    alive = []

    def frames():
        for _ in range(40):
            frame = pl.DataFrame({"n": range(100_000)})
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(reference() is not None for reference in alive) <= 15

    tables = FileTables(f"file://{tmp_path}")
    assert tables.write("big", frames()).rows == 4_000_000
    assert len(list((tmp_path / "big.parquet").glob("part-*"))) == 14
    assert tables.scan("big").select(pl.col("n").sum()).collect().item() == 40 * sum(range(100_000))


@pytest.mark.parametrize("damage", ["missing", "truncated", "manifest"])
def test_a_damaged_table(tmp_path, damage):
    tables = FileTables(f"file://{tmp_path}")
    tables.write("a", FRAME)
    part = tmp_path / "a.parquet" / ("_table.json" if damage == "manifest" else "part-00000.parquet")
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:20])
    with pytest.raises(StorageError, match="table a is damaged"):
        tables.scan("a")


def test_errors_of_the_frames_are_not_ours(tmp_path):
    def broken():
        yield FRAME
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        FileTables(f"file://{tmp_path}").write("a", broken())
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        FileTables(f"file://{tmp_path}").write("a", FRAME.lazy().select("nope"))
    assert FileTables(f"file://{tmp_path}").keys() == []


CRASH = """
import sys, time, polars as pl
from cumulant.drivers.local.tables import FileTables

def frames():
    while True:
        yield pl.DataFrame({"n": range(600_000)})
        print("one", flush=True)

FileTables(f"file://{sys.argv[1]}").write("a", frames())
"""


def test_a_killed_writer_leaves_only_what_the_next_one_removes(tmp_path):
    with subprocess.Popen([sys.executable, "-c", CRASH, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        for _ in range(3):
            writer.stdout.readline()
        tables = FileTables(f"file://{tmp_path}")
        (aside,) = (tmp_path / ".writing").iterdir()
        os.utime(aside, (0, 0))
        tables.write("while/it/lives", FRAME)
        assert aside.exists()
        assert list((aside / "content").iterdir())
        writer.kill()
    assert tables.keys() == ["while/it/lives"]
    assert tables.find("a") is None
    os.utime(aside, (0, 0))  # as if it had happened a while ago
    tables.write("a", FRAME)
    assert list((tmp_path / ".writing").iterdir()) == []
    assert tables.scan("a").collect().equals(FRAME)


def test_a_fresh_folder_of_another_writer_is_left_alone(tmp_path):
    shelf = FolderStore(tmp_path, suffix=".x", manifest="m", kind=TableManifest, holds="thing")
    fresh = tmp_path / ".writing" / "someone"
    fresh.mkdir(parents=True)
    with shelf.writing("a") as folder:
        (folder / "m").write_text("x")
    assert fresh.exists()


# Objects -------------------------------------------------------------------------------------------------------


def test_stored_files_are_read_only(tmp_path):
    source = tmp_path / "a.txt"
    source.write_text("x")
    objects = FileObjects(f"file://{tmp_path}/objects")
    objects.put("a", source)
    with objects.open("a") as path:
        assert path.stat().st_mode & 0o222 == 0
        assert path.is_relative_to(tmp_path / "objects"), "the stored file itself, no copy"
    objects.delete("a")
    assert objects.keys() == []


# Files ---------------------------------------------------------------------------------------------------------


def test_marks_and_hidden_files_of_a_folder_are_left_out(tmp_path):
    for name in ("a.csv", "_SUCCESS", ".a.csv.crc", "_temporary/b.csv", ".hidden/c.csv", "key=1/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = LocalFiles("file://").list(str(tmp_path))
    assert [Path(info.url).relative_to(tmp_path).as_posix() for info in found] == ["a.csv", "key=1/d.csv"]


def test_file_urls_and_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "a b.csv").write_text("x")
    (absolute,) = LocalFiles("file://").list(f"file://{tmp_path}/a b.csv")
    assert absolute.url == f"{tmp_path}/a b.csv"
    monkeypatch.chdir(tmp_path)
    assert LocalFiles("file://").list("*.csv") == LocalFiles(f"file://{tmp_path}").list("a b.csv") == [absolute]
    assert LocalFiles("file://").fetch(absolute).read_text() == "x"


def test_a_link_to_nowhere(tmp_path):
    (tmp_path / "a.csv").symlink_to(tmp_path / "nowhere")
    for pattern in (str(tmp_path), f"{tmp_path}/*.csv"):
        with pytest.raises(DataError, match=r"a\.csv"):
            LocalFiles("file://").list(pattern)


def test_the_stamp_tells_a_file_that_was_replaced_by_one_of_the_same_size_and_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one")
    before = path.stat()
    (first,) = LocalFiles("file://").list(str(path))
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").replace(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (second,) = LocalFiles("file://").list(str(path))
    assert first.stamp != second.stamp


def test_the_stamp_tells_a_file_that_was_edited_in_place_with_the_same_size_and_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("one")
    before = path.stat()
    (first,) = LocalFiles("file://").list(str(path))
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_ino == before.st_ino
    (second,) = LocalFiles("file://").list(str(path))
    assert first.stamp != second.stamp


# Online --------------------------------------------------------------------------------------------------------

SWAP = """
import sys
from cumulant.drivers.local.online import SqliteOnline

def rows():
    for number in range(10**9):
        yield b"%d" % number, b"new"
        if number == 20_000:
            print("one", flush=True)

SqliteOnline(f"sqlite://{sys.argv[1]}/online.db").swap("cards", rows())
"""


def test_a_killed_swap_changes_nothing_and_the_next_one_removes_it(tmp_path):
    online = SqliteOnline(f"sqlite://{tmp_path}/online.db")
    online.put("cards", [(b"1", b"old")])
    with subprocess.Popen([sys.executable, "-c", SWAP, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        assert online.get("cards", [b"1", b"2"]) == [b"old", None]
        writer.kill()
    assert online.get("cards", [b"1", b"2"]) == [b"old", None]
    online.swap("cards", [(b"1", b"newer")])
    assert online.get("cards", [b"1"]) == [b"newer"]
    with online._database.read() as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_schema WHERE name LIKE 'rows%' AND type = 'table'"
        ).fetchall()
    assert len(names) == 1


def test_a_server_sees_a_table_that_another_process_swapped(tmp_path):
    server, writer = (SqliteOnline(f"sqlite://{tmp_path}/online.db") for _ in range(2))
    assert server.get("cards", [b"1"]) == [None]
    for blob in (b"one", b"two", b"three"):
        writer.swap("cards", [(b"1", blob)])
        assert server.get("cards", [b"1"]) == [blob]
        writer.put("cards", [(b"2", blob)])
        assert server.get("cards", [b"2", b"1"]) == [blob, blob]


# Secrets -------------------------------------------------------------------------------------------------------


def test_the_order_in_which_secrets_are_looked_for(tmp_path):
    path = tmp_path / "secrets"
    path.write_text("TOKEN=file\n")
    path.chmod(0o600)
    for environ, found in (
        ({"CUMULANT_SECRET_TOKEN": "ours", "TOKEN": "plain"}, "ours"),
        ({"TOKEN": "plain"}, "plain"),
        ({}, "file"),
    ):
        assert EnvSecrets(f"env://{path}", environ=environ).get("TOKEN") == found


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_secrets_file_that_others_can_read(tmp_path, mode):
    path = tmp_path / "secrets"
    path.write_text("TOKEN=x\n")
    path.chmod(mode)
    with pytest.raises(RefusedError, match="read by others") as caught:
        EnvSecrets(f"env://{path}", environ={}).get("TOKEN")
    assert caught.value.hint == f"chmod 600 {path}"
    assert EnvSecrets(f"env://{path}", environ={"TOKEN": "y"}).get("TOKEN") == "y"


@pytest.mark.parametrize("name", ["", "a-b", "1a", "A B", "../x"])
def test_names_that_no_secret_has(name):
    with pytest.raises(UsageError):
        EnvSecrets(environ={}).get(name)


# Compute -------------------------------------------------------------------------------------------------------


def import_statistics():
    import statistics

    return {"mean": statistics.mean([1, 3])}


def report_from_threads(progress):
    def report(number):
        for _ in range(4):
            progress(str(number) * 20_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, range(4)))
    return {}


def read_stdin():
    return {"read": sys.stdin.read()}


def wait(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)
    return {}


def end(code):
    os._exit(code)


def test_a_step_finds_nothing_on_standard_input():
    assert SubprocessCompute().run(StepCall(f"{__name__}:read_stdin", {})) == {"read": ""}


def test_what_a_step_prints_does_not_reach_standard_output():
    code = (
        "from cumulant.drivers.local.compute import SubprocessCompute; from cumulant.ports.compute import StepCall;"
        "print(SubprocessCompute().run(StepCall('cumulant.testing.conformance.compute:add', {'first': 1, 'second': 2})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "{'sum': 3, 'pair': [1, 2]}\n"
    assert "a step may print" in done.stderr


def test_a_step_does_not_import_files_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("raise RuntimeError('a file of the project')")
    monkeypatch.chdir(tmp_path)
    assert SubprocessCompute().run(StepCall(f"{__name__}:import_statistics", {})) == {"mean": 2}


def test_long_reports_of_several_threads_are_not_mixed(tmp_path):
    reports = []
    SubprocessCompute().run(
        StepCall(f"{__name__}:report_from_threads", {}), progress=lambda text, share=None: reports.append(text)
    )
    assert sorted(reports) == sorted(str(number) * 20_000 for number in range(4) for _ in range(4))


def reads_of_this_process():
    return int(Path("/proc/self/io").read_text().split("syscr:")[1].split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="counts system calls")
def test_long_reports_are_read_in_blocks(tmp_path):
    before = reads_of_this_process()
    SubprocessCompute().run(StepCall(f"{__name__}:report_from_threads", {}))  # 320,000 bytes
    assert reads_of_this_process() - before < 5000


def test_a_step_that_ends_its_process():
    with pytest.raises(StepFailedError, match="exit status 3"):
        SubprocessCompute().run(StepCall(f"{__name__}:end", {"code": 3}))


PARENT = """
import sys
from cumulant.drivers.local.compute import SubprocessCompute
from cumulant.ports.compute import StepCall

sys.path.insert(0, sys.argv[1])
SubprocessCompute().run(StepCall("test_drivers_local:wait", {"path": sys.argv[2]}))
"""


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_step_ends_with_its_parent_process(tmp_path, how):
    command = [sys.executable, "-c", PARENT, str(Path(__file__).parent), str(tmp_path / "pid")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as parent:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        child = int((tmp_path / "pid").read_text())
        assert is_alive(child)
        parent.send_signal(how)
        parent.wait(60)
        until(lambda: not is_alive(child))


def test_a_killed_step_can_be_tried_again(tmp_path):
    import threading

    def kill():
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RetryableError, match="SIGKILL"):
        SubprocessCompute().run(StepCall(f"{__name__}:wait", {"path": str(tmp_path / "pid")}))
    killer.join()


@pytest.mark.parametrize("compute", [InlineCompute(), SubprocessCompute()], ids=["inline", "subprocess"])
@pytest.mark.parametrize("resources", [Resources(gpu=1), Resources(region="eu-1")])
def test_resources_that_this_machine_does_not_offer(compute, resources):
    with pytest.raises(UsageError):
        compute.run(StepCall(f"{__name__}:read_stdin", {}, resources))
