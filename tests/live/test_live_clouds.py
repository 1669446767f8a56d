"""The object store driver on Azure Blob Storage (Azurite) and on Google's XML API (see gcs.py)."""

import base64
import email.utils
import hashlib
import hmac
import json
import os
import urllib.error
import urllib.request

import obstore
import polars as pl
import pytest
from gcs import gcs_over
from test_live_objectstore import binary, folder_objects, folder_tables, started, weed_server

from cumulant.core.errors import EngineUnavailableError, NotFoundError, StorageError
from cumulant.drivers.objectstore.bucket import open_bucket
from cumulant.drivers.objectstore.files import BucketFiles
from cumulant.drivers.objectstore.objects import BucketObjects
from cumulant.drivers.objectstore.tables import BucketTables
from cumulant.testing.conformance.files import FilesConformance
from cumulant.testing.conformance.objects import ObjectsConformance
from cumulant.testing.conformance.tables import TablesConformance
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.programs import paired_ports

pytestmark = pytest.mark.live

ACCOUNT = "an0account"
KEY = base64.b64encode(b"a key of the tests").decode()


def azurite():
    (port,) = paired_ports(1)
    command = [
        binary("azurite-blob"),
        "--silent",
        "--inMemoryPersistence",
        "--disableTelemetry",
        "--skipApiVersionCheck",
    ]
    command += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return command, f"http://127.0.0.1:{port}/{ACCOUNT}"


def make_container(endpoint):
    """Whether there is a container `bucket` now; nothing below our own face makes one."""
    now = email.utils.formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/bucket\nrestype:container"
    text = "PUT" + "\n" * 12 + f"x-ms-date:{now}\nx-ms-version:2021-12-02\n{resource}"
    signed = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": now, "x-ms-version": "2021-12-02", "Authorization": f"SharedKey {ACCOUNT}:{signed}"}
    request = urllib.request.Request(f"{endpoint}/bucket?restype=container", method="PUT", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status == 201
    except urllib.error.HTTPError as error:
        pytest.fail(f"no container: {error.code} {error.read()[:500]}")  # type: ignore[str-bytes-safe]
    except OSError:
        return False


def azure_settings(endpoint, key=KEY):
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": key,
        "AZURE_STORAGE_ENDPOINT": endpoint,
    }


def google_settings(endpoint):
    account = {
        "gcs_base_url": endpoint,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account), "GOOGLE_BASE_URL": endpoint}


@pytest.fixture(scope="module", params=["az", "gs"])
def cloud(request, tmp_path_factory):
    """The scheme and the settings of a store with an empty `bucket`."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "az":
        command, endpoint = azurite()
        environment = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
        with started(command, folder, lambda: make_container(endpoint), env=environment):
            yield "az", azure_settings(endpoint)
    else:
        with weed_server(folder) as s3, gcs_over(s3) as endpoint:
            yield "gs", google_settings(endpoint)


@pytest.fixture
def secrets(cloud):
    return MemorySecrets(cloud[1])


@pytest.fixture
def url(request, cloud):
    """A folder of the bucket that is this test's own."""
    return f"{cloud[0]}://bucket/{abs(hash(request.node.nodeid)):x}"


class TestBucketTablesInClouds(TablesConformance):
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


class TestBucketObjectsInClouds(ObjectsConformance):
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


class TestBucketFilesInClouds(FilesConformance):
    @pytest.fixture
    def files(self, cloud, secrets, tmp_path):
        return BucketFiles(f"{cloud[0]}://bucket", secrets=secrets, cache=tmp_path / "cache")

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


def test_storage_classes_are_read_where_the_store_says_them(cloud, url, secrets):
    bucket = open_bucket(url, secrets)
    obstore.put(bucket.store, "plain", b"x")
    obstore.put(bucket.store, "cool", b"x", attributes={"Storage-Class": "Cool"})
    # SeaweedFS behind gs:// has no classes, and its settings no key to sign with
    expected = ["Hot", "Cool", ""] if cloud[0] == "az" else ["", "", ""]
    assert bucket.classes(["plain", "cool", "missing"]).names == expected


@pytest.mark.parametrize("cloud", ["az"], indirect=True)
def test_a_wrong_key_of_azure(cloud, url, tmp_path):
    wrong = base64.b64encode(b"another key").decode()
    values = azure_settings(cloud[1]["AZURE_STORAGE_ENDPOINT"], key=wrong)
    tables = BucketTables(url, secrets=MemorySecrets(values), cache=tmp_path, embedded=folder_tables)
    with pytest.raises(StorageError, match="does not allow") as caught:
        tables.find("a")
    assert wrong not in str(caught.value.as_dict())


@pytest.mark.parametrize(("scheme", "settings"), [("az", azure_settings), ("gs", google_settings)])
def test_nobody_answers(scheme, settings, tmp_path):
    (port,) = paired_ports(1)
    values = settings(f"http://127.0.0.1:{port}")
    tables = BucketTables(f"{scheme}://bucket/x", secrets=MemorySecrets(values), cache=tmp_path, embedded=folder_tables)
    with pytest.raises(EngineUnavailableError):
        tables.find("a")


def test_no_such_bucket(cloud, tmp_path):
    """SeaweedFS names it when it is read, and would make it; Azure refuses when it is written."""
    tables = BucketTables(
        f"{cloud[0]}://nowhere/x", secrets=MemorySecrets(cloud[1]), cache=tmp_path, embedded=folder_tables
    )
    with pytest.raises(NotFoundError, match="no such bucket or container") as caught:
        tables.find("a") if cloud[0] == "gs" else tables.write("a", pl.DataFrame({"a": [1]}))
    assert f"{cloud[0]}://nowhere" in str(caught.value.as_dict())
