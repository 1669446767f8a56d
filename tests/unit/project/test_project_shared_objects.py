"""Project files and environments that extend an object of a store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import pytest

from cumulant.core.errors import CredentialsError, EngineUnavailableError, ProjectFileError
from cumulant.drivers.local import driver as local
from cumulant.flows.ledger.code_bundle import store_code
from cumulant.ports.driver import Driver
from cumulant.ports.files import FileInfo
from cumulant.ports.plugins import Drivers
from cumulant.project.file.loading import load
from cumulant.project.file.shared_objects import join_url

BASE = "tenant: acme\nregion: eu\nextends: ../regions/eu.yaml\n"
REGION = "residency: [eu]\ntraining: {trials: 7}\n"


class Bucket:
    """Objects by URL, copied to a folder; `fault` is raised by every call."""

    objects: ClassVar[dict[str, str]] = {}
    fault: ClassVar[Exception | None] = None
    folder: ClassVar[Path]

    def __init__(self, url: str) -> None:
        self._url = url

    def list(self, pattern: str) -> list[FileInfo]:
        if Bucket.fault is not None:
            raise Bucket.fault
        assert pattern.startswith(self._url)
        return [FileInfo(url, 1, "stamp") for url in self.objects if url.startswith(pattern)]

    def fetch(self, file: FileInfo) -> Path:
        path = self.folder / hashlib.sha256(file.url.encode()).hexdigest()
        path.write_text(self.objects[file.url])
        return path


DRIVERS = Drivers(
    {
        "sqlite": local.sqlite,
        "file": local.file,
        "env": local.env,
        "open": local.open,
        "inline": local.inline,
        "s3": Driver(clients={"files": f"{__name__}:Bucket"}),
        "mlflow+sqlite": Driver(clients={"registry": f"{__name__}:Bucket"}),
        "envoy": Driver(clients={"traffic": f"{__name__}:Bucket"}),
    }
)


@pytest.fixture(autouse=True)
def bucket(tmp_path):
    Bucket.folder = tmp_path / "copies"
    Bucket.folder.mkdir()
    Bucket.fault = None
    Bucket.objects = {"s3://acme/platform/prod.yaml": BASE, "s3://acme/regions/eu.yaml": REGION}


def shop(folder, extends="s3://acme/platform/prod.yaml"):
    (folder / "shop").mkdir(exist_ok=True)
    (folder / "shop" / "cumulant.yaml").write_text(
        f"version: 1\ntraining: {{target: y}}\nenvironments:\n  prod:\n    extends: {extends}\n"
    )
    return load(folder / "shop", environment="prod", drivers=DRIVERS)


def test_values_come_with_the_url_the_digest_and_the_line(tmp_path):
    found = shop(tmp_path)
    assert (found.scope.tenant, found.file.environment.residency, found.spec.training.trials) == ("acme", ["eu"], 7)
    digests = [hashlib.sha256(text.encode()).hexdigest()[:12] for text in (BASE, REGION)]
    origins = {row.path: str(row.origin) for row in found.file.resolved(found.endpoints)}
    place = f"s3://acme/platform/prod.yaml (sha256 {digests[0]})"
    assert origins["environment.tenant"] == f"environment prod ({place}:1)"
    assert origins["environment.residency"].startswith(
        f"environment prod (s3://acme/regions/eu.yaml (sha256 {digests[1]})"
    )
    assert len(found.file.paths) == 3


def test_a_mistake_in_an_object_is_named_with_its_line(tmp_path):
    Bucket.objects["s3://acme/regions/eu.yaml"] = "residency: [eu]\ntenat: acme\n"
    with pytest.raises(ProjectFileError) as caught:
        shop(tmp_path)
    [(file, line, text)] = caught.value.problems
    assert (file.partition(" ")[0], line) == ("s3://acme/regions/eu.yaml", 2)
    assert "tenat" in text


@pytest.mark.parametrize(
    ("extends", "said"),
    [
        ("s3://acme/none.yaml", "there is no such object"),
        ("s3://acme/platform", "there is no such object"),
        ("s3://acme/*.yaml", "the URL of one object"),
        ("s4://acme/x.yaml", "files can be file://, s3://"),
        ("s3://acme/platform/../platform/prod.yaml", "the URL of one object"),
        ("s3://acme/./platform/prod.yaml", "the URL of one object"),
        ("S3://acme/platform/prod.yaml", "the URL of one object"),
        ("s3://key:word@acme/platform/prod.yaml", "has no user and no password"),
    ],
)
def test_what_cannot_be_fetched_is_named_where_it_is_extended(tmp_path, extends, said):
    with pytest.raises(ProjectFileError) as caught:
        shop(tmp_path, extends)
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("cumulant.yaml", 5)
    assert said in text
    assert "key:word" not in text


def test_copies_of_objects_are_no_code_of_the_project(tmp_path):
    found = shop(tmp_path)
    (tmp_path / "shop" / "features.py").write_text("features = []\n")
    key = store_code(found)
    with found.objects().open(key) as stored:
        assert [path.relative_to(stored).as_posix() for path in stored.rglob("*.yaml")] == ["files/shop/cumulant.yaml"]


def test_a_store_that_refuses_or_does_not_answer(tmp_path):
    Bucket.fault = CredentialsError("the object store does not allow this", hint="check the credentials")
    with pytest.raises(ProjectFileError, match="does not allow this; check the credentials"):
        shop(tmp_path)
    Bucket.fault = EngineUnavailableError("the object store does not answer")
    with pytest.raises(EngineUnavailableError) as caught:
        shop(tmp_path)
    assert caught.value.subject == "s3://acme/platform/prod.yaml"


def test_a_circle_of_objects(tmp_path):
    Bucket.objects["s3://acme/regions/eu.yaml"] = "extends: ../platform/prod.yaml\n"
    with pytest.raises(ProjectFileError, match="a circle"):
        shop(tmp_path)


def test_relative_names_stay_in_the_bucket():
    assert join_url("s3://acme/a/b.yaml", "c.yaml") == "s3://acme/a/c.yaml"
    assert join_url("s3://acme/a/b.yaml", "../../../c.yaml") == "s3://acme/c.yaml"
    assert join_url("s3://acme/b.yaml", "x/c.yaml") == "s3://acme/x/c.yaml"
