"""Storage classes: ages, contradictions, prices, costs, and the rules of each cloud against its documented form."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta
from obstore.store import S3Store

from cumulant.core.errors import DataError, NotFoundError
from cumulant.core.network.http_client import HttpResponse
from cumulant.data.storage.cloud_rules import BucketPlaces, rules_for
from cumulant.data.storage.cost import StoredSize, balances, class_warnings, cost_rows
from cumulant.data.storage.policy import KINDS, KindLifecycle, lifecycle_faults, lifecycle_of
from cumulant.data.storage.prices import GIB, package_prices, read_prices
from cumulant.data.storage.spec import ClassesSpec, LifecycleSpec
from cumulant.drivers.objectstore.classes import class_in, read_classes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
S3 = dict.fromkeys(KINDS, "s3")
CLASSES = ("hot", "cool", "archive")


def days(number):
    return timedelta(days=number)


def lifecycle(*, keep=None, log_keep="90d", **kinds):
    spec = LifecycleSpec(**{kind: ClassesSpec(**ages) for kind, ages in kinds.items()})
    return lifecycle_of(spec, keep=keep or {}, log_keep=days(int(log_keep[:-1])))


def faults(stores=S3, keep=None, log_keep=90, **kinds):
    ages = lifecycle(keep=keep, log_keep=f"{log_keep}d", **kinds)
    found = lifecycle_faults(ages, keep=keep or {}, log_keep=days(log_keep), stores=stores)
    return [(".".join(fault.path), fault.text) for fault in found]


def test_a_file_has_the_class_of_its_age():
    ages = lifecycle(data={"cool": "30d", "archive": "90d"}, keep={"a": days(400), "b": None})
    assert ages["data"] == KindLifecycle(days(30), days(90), days(400))
    assert [ages["data"].class_at(days(n)) for n in (0, 29, 30, 89, 90)] == ["hot", "hot", "cool", "cool", "archive"]
    assert ages["features"].class_at(days(9999)) == "hot"
    assert KindLifecycle(archive=days(5)).class_at(days(6)) == "archive"


@pytest.mark.parametrize(
    ("declared", "path", "text"),
    [
        ({"data": {"cool": "90d", "archive": "30d"}}, "lifecycle.data.archive", "no file would be cool"),
        ({"data": {"cool": "40d"}, "keep": {"a": days(40)}}, "lifecycle.data.cool", "data.a.keep (40d)"),
        ({"logs": {"archive": "90d"}}, "lifecycle.logs.archive", "serving.log.keep (90d), which deletes first"),
        ({"data": {"cool": "29d"}}, "lifecycle.data.cool", "S3 moves no object into STANDARD_IA before 30d"),
        ({"data": {"cool": "40d", "archive": "60d"}}, "lifecycle.data.archive", "write 70d or more"),
    ],
)
def test_contradictions(declared, path, text):
    ((where, said),) = faults(**declared)
    assert where == path
    assert text in said


def test_ages_that_fit():
    assert faults(data={"cool": "30d", "archive": "60d"}, keep={"a": days(61), "b": None}, logs={"cool": "89d"}) == []
    assert faults(stores=dict.fromkeys(KINDS, "gs"), data={"cool": "1d", "archive": "2d"}) == []


def test_costs_by_class():
    prices = package_prices()
    size = 2 * GIB
    stored = [
        StoredSize("data", "payments", "s3", size, (NOW - days(10)).timestamp()),
        StoredSize("data", "payments", "s3", size, (NOW - days(40)).timestamp()),
        StoredSize("data", "payments", "s3", size, (NOW - days(100)).timestamp()),
        StoredSize("data", "payments", "s3", 1000, (NOW - days(100)).timestamp()),
        StoredSize("logs", "predictions", "file", size, (NOW - days(100)).timestamp()),
        StoredSize("journal", "", "tape", size, (NOW + days(1)).timestamp()),
    ]
    ages = lifecycle(data={"cool": "30d", "archive": "90d"}, logs={"cool": "30d"})
    rows = {
        (row.kind, row.storage_class): row for row in cost_rows(stored, ages, prices, region="eu-central-1", now=NOW)
    }
    assert rows["data", "cool"].monthly == pytest.approx(2 * 0.0135)
    assert rows["data", "archive"].monthly == pytest.approx(2 * 0.005)
    assert rows["data", "archive"].hot_monthly == pytest.approx(2 * 0.0245)
    assert (rows["data", "hot"].files, rows["data", "hot"].bytes) == (2, size + 1000), "rules leave small objects hot"
    assert rows["data", "archive"].move_fees == pytest.approx((0.01 + 0.02) / 1000), "a move into each class"
    assert (rows["data", "hot"].move_fees, rows["journal", "hot"].move_fees) == (0, None)
    assert rows["logs", "hot"].monthly == 0, "a folder has no classes"
    assert rows["journal", "hot"].monthly is None, "no price of such a store"


def test_a_class_that_was_read_counts_before_the_declared_one():
    prices, old = package_prices(), (NOW - days(100)).timestamp()
    names = ("STANDARD", "GLACIER_IR", "DEEP_ARCHIVE")
    stored = [StoredSize("data", "payments", "s3", GIB, old, name) for name in names]
    ages = lifecycle(data={"cool": "30d"})
    found = {
        row.storage_class: (row.class_source, row.read_files, row.files, row.monthly)
        for row in cost_rows(stored, ages, prices, region="us-east-1", now=NOW)
    }
    assert found == {
        "hot": ("read", 1, 1, 0.023),
        "archive": ("read", 1, 1, 0.004),
        "DEEP_ARCHIVE": ("read", 1, 1, 0.023),
    }
    unpriced, hot = class_warnings(stored, ages, prices, NOW)
    assert unpriced.startswith("files in DEEP_ARCHIVE of s3: 1 of 3 files read;")
    assert unpriced.endswith("they count as hot")
    assert hot.startswith(
        "files of data that are hot in s3 though lifecycle.data moves them: 1 of 3 files read; `cumulant data lifecycle"
    )
    young = [StoredSize("data", "payments", "s3", GIB, (NOW - days(32)).timestamp(), "STANDARD")]
    assert [*class_warnings(young, ages, prices, NOW)] == [], "rules are applied within days"


def test_files_that_were_not_read_are_in_the_classes_of_those_that_were():
    """Of their kind and age: the rules are not in the bucket, whatever `lifecycle` says of the others."""
    old, new = (NOW - days(400)).timestamp(), (NOW - days(1)).timestamp()
    read = ("STANDARD", "", "", "GLACIER_IR", "", "", "STANDARD", "", "", "STANDARD")
    stored = [
        *(StoredSize("data", "a", "s3", GIB, old, name) for name in read),
        *(StoredSize("data", "b", "s3", GIB, old) for _ in range(8)),
        StoredSize("data", "b", "s3", GIB, new),
        StoredSize("logs", "predictions", "s3", GIB, old),
    ]
    ages = lifecycle(data={"archive": "90d"}, logs={"cool": "30d"})
    rows = cost_rows(stored, ages, package_prices(), region="us-east-1", now=NOW)
    found = [(row.name, row.storage_class, row.class_source, row.read_files, row.files) for row in rows]
    assert found == [
        ("a", "archive", "sampled", 1, 2),
        ("a", "hot", "sampled", 3, 8),
        ("b", "archive", "sampled", 0, 2),
        ("b", "hot", "declared", 0, 1),
        ("b", "hot", "sampled", 0, 6),
        ("predictions", "cool", "declared", 0, 1),
    ]
    assert rows[1].monthly == pytest.approx(8 * 0.023)


@pytest.mark.parametrize(
    ("scheme", "status", "headers", "expected"),
    [
        # S3 leaves the header out for STANDARD (boto3's reference of Object.storage_class)
        ("s3", 200, {"etag": '"1"'}, "STANDARD"),
        ("s3", 200, {"x-amz-storage-class": "GLACIER_IR"}, "GLACIER_IR"),
        ("az", 200, {"x-ms-access-tier": "Cool"}, "Cool"),
        ("az", 200, {}, ""),
        # Google's reference of headers of its XML API
        ("gs", 200, {"x-goog-storage-class": "NEARLINE"}, "NEARLINE"),
        ("gs", 403, {"x-goog-storage-class": "NEARLINE"}, ""),
    ],
)
def test_the_class_is_read_from_a_header(scheme, status, headers, expected):
    assert class_in(scheme, HttpResponse(status, headers, b"")) == expected


def test_a_store_that_does_not_answer_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        keys = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        store = S3Store("bucket", endpoint=endpoint, client_options={"allow_http": True}, **keys)
        names, cause = read_classes(store, "s3", ["a", "b"], seconds=1)
    assert names == ["", ""]
    assert "took longer than" in cause or "had no response" in cause


def balance(reads=0.0, keep=None, store="s3", stored=(), **ages):
    found = balances(
        lifecycle(data=ages, keep={"a": keep}),
        package_prices(),
        stores={"data": store},
        region="us-east-1",
        reads=reads,
        stored=stored,
    )
    return {item.storage_class: item for item in found}


def test_classes_that_do_not_pay():
    assert balance(cool="30d")["cool"].saves == pytest.approx(0.023 - 0.0125)
    assert balance(cool="30d")["cool"].warning is None
    assert balance(cool="30d")["cool"].break_even_reads == pytest.approx(1.05)
    short = balance(cool="30d", archive="90d", keep=days(100))
    assert short["cool"].warning is None
    assert short["archive"].days == 10
    assert short["archive"].saves == pytest.approx(0.023 / 3 - 0.004 * 3), "ten days of use, 90 billed"
    assert "stay 10d in GLACIER_IR, which bills at least 90 days" in short["archive"].warning
    assert "2 times a month from STANDARD_IA" in balance(reads=2, cool="30d")["cool"].warning
    assert balance(store="file", cool="30d") == {}


def test_moves_of_files_are_billed():
    """As for parts of 200 KiB for 90 days in GLACIER_IR: 5,243 moves of a GiB; smaller ones stay hot."""
    stored = [StoredSize("data", "a", "s3", size, 0) for size in (200 << 10, 200 << 10, 1000)]
    small = balance(archive="30d", keep=days(120), stored=stored)["archive"]
    gain = (0.023 - 0.004) * 3
    assert small.move_fee == pytest.approx(GIB / (200 << 10) * 0.02 / 1000)
    assert small.saves == pytest.approx(gain - small.move_fee)
    assert (
        "moving files of 200 KiB on average into GLACIER_IR costs 0.105 a GiB, and 90d there save 0.057"
        in small.warning
    )
    assert small.break_even_bytes == pytest.approx(200 * 1024 * small.move_fee / gain)
    large = [StoredSize("data", "a", "s3", GIB, 0)]
    assert balance(archive="30d", keep=days(120), stored=large)["archive"].warning is None
    assert "2 times a month" in balance(reads=2, archive="30d", keep=days(120), stored=large)["archive"].warning
    unknown = balance(archive="30d", keep=days(120))["archive"]
    assert (unknown.move_fee, unknown.saves) == (None, pytest.approx(gain))
    endless = balance(archive="30d", stored=stored)["archive"]
    assert (endless.warning, endless.saves) == (None, pytest.approx(0.019)), "of a month; the fee is billed once"


def test_each_figure_of_the_list_was_compared_with_a_page_or_is_not_confirmed():
    prices = package_prices()
    groups = [group for group in prices.groups if group.store != "file"]
    figures = [f"{each.store} {region} {of}" for each in groups for region in each.regions for of in CLASSES]
    for store, terms in prices.terms.items():
        for name, of in terms.items():
            own = [field for field in msgspec.structs.asdict(of) if field != "name" and getattr(of, field)]
            figures += [f"{store} {name} {field}" for field in own]
    checked = [figure for check in prices.checks for figure in check.figures]
    assert sorted(checked) == sorted(figures)
    confirmed = sum(len(check.figures) for check in prices.checks if check.page)
    assert prices.source.startswith(f"{confirmed} of {len(figures)} figures compared")


def test_price_lists(tmp_path):
    prices = package_prices()
    assert {group.store for group in prices.groups} == {"s3", "az", "gs", "file"}
    assert all(group.hot >= group.cool >= group.archive for group in prices.groups)
    assert prices.prices("s3", "nowhere").regions[0] == "us-east-1", "the first group"
    own = tmp_path / "own.toml"
    own.write_text(
        'date = "2026-12-01"\nsource = "contract"\ncurrency = "EUR"\n'
        '[[groups]]\nstore = "file"\nregions = ["local"]\nhot = 0.1\ncool = 0.1\narchive = 0.1\n'
    )
    assert read_prices(own).prices("file", "local").hot == 0.1
    with pytest.raises(NotFoundError):
        read_prices(tmp_path / "none.toml")
    for wrong in ("a = 1", "[[", own.read_text().replace("0.1", "-1"), own.read_text().replace("2026-12-01", "today")):
        own.write_text(wrong)
        with pytest.raises(DataError, match="no price list"):
            read_prices(own)
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError):
        read_prices(own)


class Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    pass


# Azure: the schema of Microsoft.Storage/storageAccounts/managementPolicies, as far as rules of ours may have it.
class Days(Strict):
    days_after_modification_greater_than: Annotated[int, Meta(ge=0)]


class BaseBlob(Strict):
    tier_to_cool: Days | msgspec.UnsetType = msgspec.UNSET
    tier_to_cold: Days | msgspec.UnsetType = msgspec.UNSET


class Actions(Strict):
    base_blob: BaseBlob


class Filters(Strict):
    blob_types: Annotated[list[Literal["blockBlob"]], Meta(min_length=1)]
    prefix_match: Annotated[list[str], Meta(min_length=1, max_length=10)]


class Definition(Strict):
    actions: Actions
    filters: Filters


class AzureRule(Strict):
    enabled: bool
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,256}$")]
    type: Literal["Lifecycle"]
    definition: Definition


class AzurePolicy(Strict):
    rules: Annotated[list[AzureRule], Meta(min_length=1, max_length=100)]


# GCS: the resource `bucket.lifecycle` of its JSON API.
class GcsAction(Strict):
    type: Literal["SetStorageClass", "AbortIncompleteMultipartUpload"]
    storage_class: Literal["NEARLINE", "COLDLINE", "ARCHIVE"] | msgspec.UnsetType = msgspec.UNSET


class GcsCondition(Strict):
    age: Annotated[int, Meta(ge=0)]
    matches_prefix: Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(min_length=1, max_length=1000)]
    matches_storage_class: list[Literal["STANDARD", "NEARLINE"]] | msgspec.UnsetType = msgspec.UNSET


class GcsRule(Strict):
    action: GcsAction
    condition: GcsCondition


class GcsRules(Strict):
    rule: Annotated[list[GcsRule], Meta(min_length=1, max_length=100)]


class GcsConfiguration(Strict):
    lifecycle: GcsRules


def rendered(cloud):
    places = BucketPlaces("bucket", {"data": ["p/data/", "p/streams/"], "logs": ["l/"]}, ["p/", "l/"])
    ages = lifecycle(data={"cool": "30d12h", "archive": "90d"}, features={"cool": "31d"})
    return rules_for(cloud, places, ages, package_prices(), name="cumulant-A_b-prod")


def test_rules_of_s3():
    """The API of an emulator takes them: tests/live/test_live_objectstore.py."""
    first, _, *uploads = rendered("s3")["Rules"]
    assert first == {
        "ID": "cumulant-a-b-prod-data-1",
        "Status": "Enabled",
        "Filter": {"And": {"Prefix": "p/data/", "ObjectSizeGreaterThan": 131071}},
        "Transitions": [{"Days": 31, "StorageClass": "STANDARD_IA"}, {"Days": 90, "StorageClass": "GLACIER_IR"}],
    }
    assert [rule["Filter"]["Prefix"] for rule in uploads] == ["p/", "l/"]
    assert not any("Expiration" in rule for rule in rendered("s3")["Rules"]), "nothing is deleted by its age"


def test_rules_of_azure_and_google_have_their_documented_form():
    (rule,) = msgspec.convert(rendered("azure"), AzurePolicy).rules
    assert rule.definition.filters.prefix_match == ["bucket/p/data/", "bucket/p/streams/"]
    assert rule.definition.actions.base_blob == BaseBlob(Days(31), Days(90))
    cool, archive, uploads = msgspec.convert(rendered("gcs"), GcsConfiguration).lifecycle.rule
    assert (cool.action.storage_class, cool.condition.age) == ("NEARLINE", 31)
    assert archive.condition.matches_storage_class == ["STANDARD", "NEARLINE"]
    assert uploads.condition.matches_prefix == ["p/", "l/"]
