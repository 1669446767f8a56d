"""An object store that is slow, refuses calls, or loses answers: nothing is lost, and reads go on."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from test_live_objectstore import KEY, SECRET, endpoint, folder_objects, folder_tables  # noqa: F401 - a fixture

from cumulant.core.errors import EngineUnavailableError, ProjectFileError
from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.drivers.objectstore.log import BucketLog
from cumulant.drivers.objectstore.objects import BucketObjects
from cumulant.drivers.objectstore.tables import BucketTables
from cumulant.project.file.loading import load
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.fault_proxy import FaultProxy

pytestmark = [pytest.mark.live, pytest.mark.parametrize("endpoint", ["weed"], indirect=True)]

ROWS = pl.DataFrame({"a": range(1000)})


@pytest.fixture
def proxy(endpoint):  # noqa: F811
    with FaultProxy(endpoint) as proxy:
        yield proxy


@pytest.fixture
def secrets(proxy):
    names = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    return MemorySecrets(names | {"AWS_ENDPOINT_URL": proxy.url})


@pytest.fixture
def url(request):
    return f"s3://bucket/{abs(hash(request.node.nodeid)):x}"


def tables(url, secrets):
    """Tables of a machine that has no copies yet."""
    return BucketTables(url, secrets=secrets, embedded=folder_tables, cache=Path(tempfile.mkdtemp()))


def test_a_table_whose_answers_are_lost_is_kept(url, secrets, proxy):
    proxy.lost = 0.4
    for number in range(10):
        tables(url, secrets).write(f"t/{number}", ROWS)
    assert proxy.faults > 10
    proxy.lost = 0.0
    reader = tables(url, secrets)
    assert [reader.scan(f"t/{number}").collect().height for number in range(10)] == [1000] * 10


@pytest.mark.parametrize("faults", [{"every": 3}, {"refused": 0.1}, {"refused": 0.3, "lost": 0.1}, {"delay": 0.2}])
def test_tables_and_objects_are_written_and_read(url, secrets, proxy, faults, tmp_path):
    for name, value in faults.items():
        setattr(proxy, name, value)
    (tmp_path / "report").write_text("content")
    objects = BucketObjects(url, secrets=secrets, embedded=folder_objects, cache=tmp_path / "copies")
    objects.put("report", tmp_path / "report")
    tables(url, secrets).write("t", ROWS)
    elsewhere = BucketObjects(url, secrets=secrets, embedded=folder_objects, cache=tmp_path / "others")
    with elsewhere.open("report") as path:
        assert path.read_text() == "content"
    assert tables(url, secrets).scan("t").collect().equals(ROWS)
    assert tables(url, secrets).keys() == ["t"]


def test_every_third_call_is_refused_and_many_reads_at_once_go_on(url, secrets, proxy):
    bucket = open_bucket(url, secrets)
    for number in range(30):
        bucket.create(f"a/{number}", b"content")
    proxy.every = 3
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: bucket.read(f"a/{number}"), [*range(30)] * 4)) == [b"content"] * 120
    assert proxy.faults >= 30


def test_a_turn_of_maintenance_whose_answer_is_lost_is_had(url, secrets, proxy, tmp_path):
    log = BucketLog(url, secrets=secrets, cache=tmp_path)
    proxy.faulty_path, proxy.lost = ".maintenance", 0.3
    for _ in range(5):
        with log.maintenance() as had:
            assert had


def test_a_store_that_refuses_everything_is_reported(url, secrets, proxy):
    proxy.refused = 1.0
    with pytest.raises(EngineUnavailableError, match=r"object store at .* does not answer as it should"):
        open_bucket(url, secrets).read("a")


def test_an_environment_extends_an_object(url, proxy, monkeypatch, tmp_path):
    names = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    for name, value in (names | {"AWS_ENDPOINT_URL": proxy.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    proxy.every = 3
    bucket = open_bucket(url, MemorySecrets(names | {"AWS_ENDPOINT_URL": proxy.url}))
    bucket.create("prod.yaml", b"tenant: acme\n")
    text = f"version: 1\nenvironments:\n  prod: {{extends: {url}/prod.yaml}}\n"
    (tmp_path / "cumulant.yaml").write_text(text)
    assert load(tmp_path, environment="prod").scope.tenant == "acme"
    bucket.replace("prod.yaml", b"tenant: other\n")
    assert load(tmp_path, environment="prod").scope.tenant == "other"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(ProjectFileError, match="does not allow this"):
        load(tmp_path, environment="prod")
