"""Checkpoints in a bucket with object lock, of journals in SQLite and in PostgreSQL."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET

import pytest
from test_live_objectstore import binary, moto_server

from cumulant.core.errors import IntegrityError
from cumulant.core.events import Actor, Fact
from cumulant.flows.governance.checkpoints import verify_checkpoints, write_checkpoint
from cumulant.flows.ledger.actions import verb
from cumulant.ports.access import Principal
from cumulant.project.file.loading import load
from cumulant.testing.postgres import INSTALL, postgres_server, server_programs
from cumulant.testing.servers.seaweedfs import KEY, SECRET, seaweed_server

pytestmark = pytest.mark.live

ADA = Principal("user:ada", via="cli")
BUCKET = "locked"
#: set for each object: with a default of the bucket, this server wants a header of the SDKs beside the checksum, which
#: the service itself does not require (tests/unit/drivers/test_drivers_checksum.py)
LOCK = b"""<Retention xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Mode>COMPLIANCE</Mode><RetainUntilDate>2099-01-01T00:00:00Z</RetainUntilDate></Retention>"""


#: the server looks whether a request is signed, not how
SIGNED = {
    "authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
}


class Happened(Fact, frozen=True, kw_only=True):
    kind = "test.happened"


@verb("model.alias", of="uri")
def point(project, uri, *, principal):
    with project.journal().transaction(actor=Actor(principal.id)) as transaction:
        transaction.put("alias", uri, {"version": 1})
        return transaction.emit(Happened())


def call(method, url, data=None, headers=None):
    request = urllib.request.Request(url, method=method, data=data, headers={**SIGNED, **(headers or {})})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """An S3 server with a bucket that keeps every version and can lock them."""
    with moto_server(tmp_path_factory.mktemp("moto")) as url:
        call("PUT", f"{url}/{BUCKET}", b"", headers={"x-amz-bucket-object-lock-enabled": "true"})
        yield url


@pytest.fixture
def project_file(endpoint, tmp_path, monkeypatch):
    """Writes the file of a project that signs into a folder of the bucket, and has another key of the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CHECKSUM_ALGORITHM": "SHA256",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)

    def write(folder, more=""):
        folder.mkdir(exist_ok=True)
        (folder / "cumulant.yaml").write_text(
            f"version: 1\nmodel: {{name: late}}\nenvironments:\n  local:\n    audit: s3://{BUCKET}/{tmp_path.name}\n{more}"
        )
        return folder

    return write


def versions(endpoint, prefix):
    return versions_of(call("GET", f"{endpoint}/{BUCKET}?versions&prefix={prefix}"))


def versions_of(listing):
    space = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    found = ET.fromstring(listing).iter(f"{space}Version")
    return [(entry.findtext(f"{space}Key"), entry.findtext(f"{space}VersionId")) for entry in found]


def test_a_forger_cannot_change_the_checkpoints_of_a_locked_bucket(endpoint, project_file, tmp_path):
    folder = project_file(tmp_path / "project")
    with load(folder) as project:
        for number in range(5):
            point(project, f"late-{number}", principal=ADA)
        assert write_checkpoint(project, principal=ADA).size == 10
        project.journal().close()
        shutil.copytree(folder, tmp_path / "restored")
        point(project, "late-5", principal=ADA)
        assert write_checkpoint(project, principal=ADA).size == 13
        assert verify_checkpoints(project, principal=ADA).breaks == []
    stored = versions(endpoint, tmp_path.name)
    assert len(stored) == 2 * 3, "a checkpoint, its manifest and the record that publishes both"
    for key, version in stored:
        call(
            "PUT", f"{endpoint}/{BUCKET}/{key}?retention&versionId={version}", LOCK, {"content-type": "application/xml"}
        )
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            call("DELETE", f"{endpoint}/{BUCKET}/{key}?versionId={version}")
        assert b"AccessDenied" in refused.value.read()
    with load(tmp_path / "restored") as forged:
        for _ in range(4):
            point(forged, "other", principal=ADA)
        with pytest.raises(IntegrityError, match="no checkpoint is signed"):
            write_checkpoint(forged, principal=ADA)
        assert verify_checkpoints(forged, principal=ADA).breaks != []


DEFAULT_RETENTION = b"""<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days>
</DefaultRetention></Rule></ObjectLockConfiguration>"""


def test_checkpoints_in_a_bucket_with_a_default_retention(project_file, tmp_path, monkeypatch):
    """The bucket locks whatever is written to it: nobody sets anything for an object, and the server's own
    administrator, as whom this test deletes, removes no version.
    """
    binary("weed")
    (tmp_path / "weed").mkdir()
    with seaweed_server(tmp_path / "weed") as server:
        for name, value in {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": server.url,
        }.items():
            monkeypatch.setenv(name, value)
        place = f"{server.url}/{BUCKET}"
        plainly("PUT", place, b"", {"x-amz-bucket-object-lock-enabled": "true"})
        plainly("PUT", f"{place}?object-lock", DEFAULT_RETENTION)
        with load(project_file(tmp_path / "project")) as project:
            for number in range(3):
                point(project, f"late-{number}", principal=ADA)
                assert write_checkpoint(project, principal=ADA).new
            stored = versions_of(plainly("GET", f"{place}?versions&prefix={tmp_path.name}"))
            assert len(stored) == 3 * 3
            for key, version in stored:
                assert b"COMPLIANCE" in plainly("GET", f"{place}/{key}?retention&versionId={version}")
                with pytest.raises(urllib.error.HTTPError, match="403"):
                    plainly("DELETE", f"{place}/{key}?versionId={version}")
            assert verify_checkpoints(project, principal=ADA).breaks == []
            for key, _ in stored:  # hides them, and keeps every version
                plainly("DELETE", f"{place}/{key}")
            with pytest.raises(IntegrityError, match="there is no checkpoint"):
                verify_checkpoints(project, principal=ADA)
            listing = plainly("GET", f"{place}?versions&prefix={tmp_path.name}")
            assert set(stored) <= set(versions_of(listing))


def plainly(method, url, data=None, headers=None):
    """As a caller whom the server takes for its administrator."""
    request = urllib.request.Request(url, method=method, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def database():
    """The URL of an empty database."""
    if server_programs() is None:
        pytest.skip(f"no PostgreSQL server is installed: {INSTALL}")
    with postgres_server() as running:
        running.execute("CREATE DATABASE audited")
        yield running.url("audited")


def test_a_journal_in_postgresql(project_file, tmp_path, database):
    folder = project_file(tmp_path / "project", more=f"    journal: '{database}'\n")
    with load(folder) as project:
        decided = point(project, "late", principal=ADA).cause
        allowed, happened = project.journal().events()
        assert (allowed.kind, allowed.id, happened.rows is not None) == ("access.allowed", decided, True)
        assert write_checkpoint(project, principal=ADA).size == 2
        point(project, "late", principal=ADA)
        assert write_checkpoint(project, principal=ADA).size == 5
        assert not write_checkpoint(project, principal=ADA).new
        assert verify_checkpoints(project, principal=ADA).breaks == []
