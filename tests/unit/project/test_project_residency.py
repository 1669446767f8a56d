"""`residency`: regions that an environment declares outside of it are refused, and what is not known is named."""

from __future__ import annotations

from contextlib import nullcontext
from threading import Event

import pytest

from cumulant.core.errors import ProjectFileError, UsageError
from cumulant.flows.worker.run_worker import run_worker
from cumulant.ports.step_queue import WorkerOffer
from cumulant.project.file.loading import load
from cumulant.project.residency import unchecked_places


def project(folder, **keys):
    lines = "".join(f"    {key}: {value}\n" for key, value in keys.items())
    (folder / "cumulant.yaml").write_text(f"version: 1\nenvironments:\n  prod:\n{lines}")
    return load(folder, environment="prod")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"region": "us-east-1", "residency": "[eu]"}, (4, 'region "us-east-1" is outside of residency (eu)')),
        ({"residency": "[eu, ch]"}, (4, 'region "local" is outside of residency (eu, ch)')),
        ({"region": "europe", "residency": "[eu]"}, (4, 'region "europe" is outside')),
        (
            {"region": "eu", "store": "s3://acme/x?region=us-east-1", "residency": "[eu]"},
            (5, 'store is in region "us-east-1", outside'),
        ),
        (
            {"region": "eu", "residency": "[eu]", "log": "s3://acme/x?cache=0&region=ap-south-1"},
            (6, 'log is in region "ap-south-1", outside'),
        ),
        (
            {"region": "eu", "residency": "[eu]", "log": "s3://acme/x?region=eu&region=us"},
            (6, 'log is in region "us", outside'),
        ),
    ],
)
def test_a_region_outside_is_refused_before_anything_is_opened(tmp_path, keys, problem):
    with pytest.raises(ProjectFileError) as caught:
        project(tmp_path, **keys)
    [(file, line, text)] = caught.value.problems
    assert (file, line) == ("cumulant.yaml", problem[0])
    assert problem[1] in text


def test_a_step_for_a_region_outside_is_refused(tmp_path):
    steps = "{steps: {search: {region: us-east-1}, package: {region: eu-west-1}}}"
    with pytest.raises(ProjectFileError) as caught:
        project(tmp_path, region="eu", residency="[eu]", resources=steps)
    assert list(caught.value.problems) == [
        ("cumulant.yaml", 6, 'step search is for region "us-east-1", outside of residency (eu)')
    ]
    project(tmp_path, region="eu", resources=steps)


def test_a_worker_in_a_region_outside_is_refused(tmp_path):
    found = project(tmp_path, region="eu", residency="[eu]")
    for region, fits in (("eu-west-1", True), ("us", False), ("", False)):
        with nullcontext() if fits else pytest.raises(UsageError, match="outside of residency"):
            offer = WorkerOffer(cpu=1, memory=1, region=region)
            run_worker(found, principal=found.principal(), offer=offer, stop=Event(), once=True)


@pytest.mark.parametrize("region", ["eu", "eu-central-1", "ch"])
def test_regions_inside(tmp_path, region):
    found = project(tmp_path, region=region, residency="[eu, ch]", store=f"s3://acme/x?region={region}")
    assert found.endpoints.tables == f"s3://acme/x/tables?region={region}"
    assert unchecked_places(found.file.environment) == []


def test_what_is_not_checked_is_named_without_passwords(tmp_path):
    found = project(
        tmp_path,
        region="eu",
        residency="[eu]",
        journal="postgresql://me:secret@db/x",
        store="s3://acme/x?region=eu&region=",
        log="file://logs",
        online="valkey://cache:6379/0",
    )
    places = unchecked_places(found.file.environment)
    assert [place.split()[0] for place in places] == ["store", "journal", "online"]
    assert "secret" not in str(places)


@pytest.mark.parametrize("key", ["store", "log"])
@pytest.mark.parametrize("scheme", ["gs", "az", "GS"])
@pytest.mark.parametrize("residency", [{}, {"residency": "[eu]"}])
def test_a_region_that_no_client_uses_is_refused(tmp_path, key, scheme, residency):
    with pytest.raises(ProjectFileError) as caught:
        project(tmp_path, region="eu", **{key: f"{scheme}://acme/x?region=eu"}, **residency)
    [(_, line, text)] = caught.value.problems
    assert (line, text) == (5, f"{key}: {scheme.lower()}:// has no option region: its client uses none; leave it out")


def test_a_bucket_without_a_region_is_named_where_it_matters(tmp_path):
    found = project(tmp_path, region="eu", residency="[eu]", store="gs://acme/x", log="az://acme/x?cache=0")
    assert [place.split()[0] for place in unchecked_places(found.file.environment)] == ["store", "log"]


def test_without_residency_nothing_is_refused(tmp_path):
    found = project(tmp_path, region="us-east-1", store="s3://acme/x?region=eu-central-1")
    assert unchecked_places(found.file.environment) == []


def test_the_region_of_a_url_is_that_of_the_client(tmp_path):
    tables = pytest.importorskip("cumulant.drivers.objectstore.tables", reason='pip install "cumulant[objects]"')
    copies = pytest.importorskip("cumulant.drivers.objectstore.copies")
    store = tables.BucketTables("s3://acme/x?region=eu-central-1&cache=0", embedded=lambda folder: None)
    assert store._publisher._bucket.store.config["region"] == "eu-central-1"
    assert copies.parse_store_url("s3://acme/x?region=eu&cache=1KiB") == ("s3://acme/x", 1024, "eu")
    with pytest.raises(UsageError, match="only the URL of s3:// has the option region"):
        copies.parse_store_url("gs://acme/x?region=eu")
    with pytest.raises(UsageError, match='no option "regoin"'):
        copies.parse_store_url("s3://acme/x?regoin=eu")
