"""Which driver serves which URL, and what is said when none does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from cumulant.core.errors import DataError, MissingPartError, ProjectFileError, UsageError
from cumulant.drivers.local import driver as local
from cumulant.ports.driver import Driver, Need
from cumulant.ports.files import FileInfo
from cumulant.ports.plugins import Drivers, scheme_of
from cumulant.project.driver_checks import check_drivers
from cumulant.project.file.loading import load


class Remote:
    """A client of the ports that an object store serves."""

    made: ClassVar[list[str]] = []

    def __init__(self, url: str) -> None:
        Remote.made.append(url)
        self.url = url
        self.closed = False

    def list(self, pattern: str) -> list[FileInfo]:
        return [FileInfo(f"{self.url}/part.parquet", 5, "etag")]

    def fetch(self, file: FileInfo) -> Path:
        return Path("/fetched") / file.url.rpartition("/")[2]

    def close(self) -> None:
        self.closed = True


BUILT_IN = {
    "sqlite": local.sqlite,
    "file": local.file,
    "env": local.env,
    "open": local.open,
    "inline": local.inline,
    "subprocess": local.subprocess,
    "mlflow+sqlite": Driver(clients={"registry": f"{__name__}:Remote"}),
}
DRIVERS = Drivers(
    {
        **BUILT_IN,
        "s3": Driver(
            clients={"files": f"{__name__}:Remote", "tables": f"{__name__}:Remote", "objects": f"{__name__}:Remote"},
            capabilities={"tables": frozenset({"partition_by"})},
        ),
        "redis": Driver(clients={"online": "cumulant_no_such_engine.online:Client"}, extra="redis"),
        "broken": Driver(clients={"journal": "cumulant.core.no_such_module:Client"}, extra="broken"),
    }
)


def project(folder, text: str = "", **options):
    (folder / "cumulant.yaml").write_text(f"version: 1\n{text}")
    return load(folder, drivers=options.pop("drivers", DRIVERS), **options)


def environment(**keys: str) -> str:
    return "environments:\n  local:\n" + "".join(f"    {key}: {value}\n" for key, value in keys.items())


def test_the_built_in_drivers_enter_by_the_entry_points():
    installed = Drivers.installed()
    for scheme, record in BUILT_IN.items():
        for port in record.clients:
            assert installed.driver(f"{scheme}://", port).clients[port]


def test_a_local_project_needs_nothing(tmp_path):
    found = project(tmp_path, drivers=None)
    assert found.secrets() is found.secrets()
    assert found.access() is not None
    assert found.compute() is not None
    assert found.journal().get("none", "such") is None
    assert found.tables().keys() == []
    assert found.objects().keys() == []
    assert found.online().meta("none") == {}
    (tmp_path / "a.csv").write_text("x\n1\n")
    [info] = found.files().list("*.csv")
    assert found.files().fetch(info).read_text() == "x\n1\n"
    check_drivers(found)
    found.close()


def test_clients_are_made_once_even_by_many_threads(tmp_path):
    Remote.made.clear()
    found = project(tmp_path, environment(store="s3://bucket/x"))
    clients = []
    threads = [threading.Thread(target=lambda: clients.append(found.tables())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 16
    assert len({id(client) for client in clients}) == 1
    assert Remote.made == ["s3://bucket/x/tables"]
    assert found.objects().url == "s3://bucket/x/objects"


def test_closing_closes_what_was_made(tmp_path):
    with project(tmp_path, environment(store="s3://bucket/x")) as found:
        first = found.tables()
    assert first.closed
    assert found.tables() is not first


def test_source_files_go_to_the_driver_of_their_scheme(tmp_path):
    Remote.made.clear()
    found = project(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("x\n1\n")
    files = found.files()
    assert [Path(info.url).name for info in files.list(str(tmp_path / "data"))] == ["a.csv"]
    [remote] = files.list("s3://acme/payments/2018/*.parquet")
    assert files.fetch(remote) == Path("/fetched/part.parquet")
    files.list("s3://acme/other/*.parquet")
    assert Remote.made == ["s3://acme"]
    with pytest.raises(DataError) as caught:
        files.list("gs://acme/x.parquet")
    assert 'no driver for "gs://"' in caught.value.message


@pytest.mark.parametrize(
    ("keys", "port", "said", "hint"),
    [
        ({"journal": "sqlit:///x"}, "journal", 'no driver for "sqlit://" is installed', 'did you mean "sqlite"?'),
        (
            {"journal": "postgresql://x"},
            "journal",
            'no driver for "postgresql://"',
            "journal can be broken://, sqlite://",
        ),
        (
            {"journal": "file:///x"},
            "journal",
            "cannot serve as journal; it serves files, log, objects, tables",
            "sqlite://",
        ),
        ({"journal": "/plain/path.db"}, "journal", "names no driver", "start it with a scheme: broken://, sqlite://"),
        ({"store": "redis://x"}, "tables", 'driver of "redis://" cannot serve as ', "file://"),
        ({"access": "opne://"}, "access", 'no driver for "opne://"', 'did you mean "open"?'),
    ],
)
def test_urls_that_no_driver_serves(tmp_path, keys, port, said, hint):
    found = project(tmp_path, environment(**keys))
    with pytest.raises(UsageError) as caught:
        getattr(found, port)()
    assert said in caught.value.message
    assert hint in caught.value.hint
    with pytest.raises(ProjectFileError) as caught:
        check_drivers(found)
    assert all((file, line) == ("cumulant.yaml", 4) for file, line, _ in caught.value.problems)
    assert said in caught.value.problems[0][2]


def test_a_fault_of_the_store_is_reported_once_by_its_key(tmp_path):
    found = project(tmp_path, environment(store="redis://x"))
    with pytest.raises(ProjectFileError) as caught:
        check_drivers(found)
    [(_, _, text)] = caught.value.problems
    assert 'the driver of "redis://" cannot serve as store; it serves online; store can be ' in text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"journal": "sqlite://j.db?project=x"}, 'sqlite:// has no option "project" here; write ?adopt='),
        ({"online": "sqlite://o.db?project=x"}, 'sqlite:// has no option "project" here; leave out ?project'),
        ({"store": "file://st?x=1"}, 'file:// has no option "x" here; leave out ?x'),
        ({"log": "file://logs?cache="}, 'file:// has no option "cache" here; leave out ?cache'),
        ({"compute": "subprocess://4"}, 'subprocess:// takes nothing after it, such as "4"; write subprocess:// alone'),
        ({"access": "open://all"}, 'open:// takes nothing after it, such as "all"; write open:// alone'),
        ({"secrets": "env://x"}, "secrets names a file that does not exist: "),
        ({"secrets": "env://?x=1"}, 'env:// has no option "x" here'),
        ({"tracking_uri": "mlflow+sqlite://ml.db?timeout=5"}, 'mlflow+sqlite:// has no option "timeout" here'),
        ({"traffic": "envoy://gw?port=1"}, 'envoy:// has no option "port" here'),
    ],
)
def test_what_a_driver_would_not_use_of_a_url_is_refused(tmp_path, keys, said):
    found = project(tmp_path, environment(**keys), drivers=None)
    with pytest.raises(ProjectFileError) as caught:
        check_drivers(found)
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("cumulant.yaml", 4)
    assert said in text


def test_a_folder_may_have_a_question_mark(tmp_path):
    folder = tmp_path / "is it?"
    folder.mkdir()
    found = project(folder, drivers=None)
    check_drivers(found)
    assert found.journal().head().seq == 0
    found.close()
    assert (folder / ".cumulant" / "journal.db").is_file()


def test_every_driver_problem_comes_at_once_with_its_line(tmp_path):
    found = project(
        tmp_path,
        environment(journal="a://x", online="b://x") + "data:\n  far:\n    path: gs://acme/x\n  near: {path: x.csv}\n",
    )
    with pytest.raises(ProjectFileError) as caught:
        check_drivers(found)
    assert [(line, text.split(" is ")[0]) for _, line, text in caught.value.problems] == [
        (4, 'no driver for "a://"'),
        (8, 'no driver for "gs://"'),
        (5, 'no driver for "b://"'),
    ]


def test_an_engine_that_is_not_installed_names_its_install_line(tmp_path):
    found = project(tmp_path, environment(online="redis://x"))
    check_drivers(found)  # the light record is enough for a plan
    with pytest.raises(MissingPartError) as caught:
        found.online()
    assert caught.value.subject == "cumulant_no_such_engine"
    assert caught.value.hint == 'pip install "cumulant[redis]"'


def test_a_driver_that_is_broken_is_not_called_missing(tmp_path):
    with pytest.raises(ModuleNotFoundError):
        project(tmp_path, environment(journal="broken://x")).journal()


def test_an_entry_point_that_is_no_driver(tmp_path):
    class EntryPoint:
        def load(self) -> object:
            return print

    with pytest.raises(UsageError, match="is not a Driver"):
        project(tmp_path, environment(journal="odd://"), drivers=Drivers({**BUILT_IN, "odd": EntryPoint()})).journal()


def test_what_a_driver_cannot_do_is_refused_when_planned(tmp_path):
    found = project(tmp_path, environment(store="s3://bucket/x"))
    assert found.drivers.capabilities(found.endpoints.tables, "tables") == {"partition_by"}
    assert scheme_of(found.endpoints.tables) == "s3"
    check_drivers(found, [Need("tables", "partition_by", "writing by day")])
    with pytest.raises(ProjectFileError) as caught:
        check_drivers(
            found,
            [
                Need("tables", "partition_by", "writing by day"),
                Need("tables", "encryption", "keeping data in the EU"),
                Need("tables", "hosts", "of another client", url="s3://other"),
            ],
        )
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("cumulant.yaml", 4)
    assert "cannot do what tables is needed for: keeping data in the EU" in text
    with pytest.raises(ProjectFileError) as caught:
        check_drivers(found, [Need("journal", "cluster", "many machines")])
    assert caught.value.problems[0][:2] == ("cumulant.yaml", None)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("sqlite:///x", "sqlite"),
        ("mlflow+sqlite://x", "mlflow+sqlite"),
        ("S3://b", "s3"),
        ("databricks", "databricks"),
        ("env:", "env"),
        ("/a/b", None),
        ("a/b:c", None),
        ("", None),
        ("9p://x", None),
    ],
)
def test_schemes(url, scheme):
    assert scheme_of(url) == scheme


def test_importing_the_project_room_loads_nothing_else():
    code = "import sys; before = set(sys.modules); import cumulant.project; print(sorted(m for m in set(sys.modules) - before if 'cumulant' in m))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    loaded = "['cumulant', 'cumulant.core', 'cumulant.core.version', 'cumulant.project']"
    assert done.stdout.strip() == loaded


def test_loading_a_project_imports_no_engine(tmp_path):
    (tmp_path / "cumulant.yaml").write_text("version: 1\ndata: {a: {path: x.csv}}\ntraining: {target: y}\n")
    code = (
        "import sys; from cumulant.project.file.loading import load; from cumulant.project.file.schema import json_schema;"
        "from cumulant.project.driver_checks import check_drivers; project = load(sys.argv[1]); check_drivers(project); project.file.resolved(project.endpoints); json_schema();"
        "print([m for m in ('polars', 'pandas', 'numpy', 'mlflow', 'sklearn', 'lightgbm', 'onnx', 'pyarrow', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
