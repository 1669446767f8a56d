"""Lifecycle rules of the clouds for the keys of one project: JSON as their own tools take it.

Rules move files between classes that are read within milliseconds, and remove uploads that were cut off. None deletes
by age: whether a snapshot, model or log needs a file is not known by its age. `cumulant tick` and `data clean` delete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from cumulant.data.storage.policy import KindLifecycle, LifecycleKind, StorageClass
from cumulant.data.storage.prices import PriceList

Cloud = Literal["s3", "azure", "gcs"]
#: the URL scheme of each cloud
SCHEMES: Mapping[Cloud, str] = {"s3": "s3", "azure": "az", "gcs": "gs"}
#: days after which an upload that was cut off is removed; longer than any that still runs
_UPLOAD_DAYS = 7
_AZURE_ACTIONS: Mapping[StorageClass, str] = {"cool": "tierToCool", "archive": "tierToCold"}
#: what the rules of an Azure account are called: it has one policy, whose rules name their containers
AZURE_POLICY = "management-policy"
_UNSAFE = re.compile(r"[^a-z0-9]+")


class BucketPlaces(NamedTuple):
    """Where files of one project are in a bucket; prefixes end with `/`.

    `kinds`: of the files of each kind; `roots`: of everything that the project writes, for uploads that were cut off.
    """

    bucket: str
    kinds: Mapping[LifecycleKind, list[str]]
    roots: list[str]


def rules_for(
    cloud: Cloud,
    places: BucketPlaces,
    lifecycle: Mapping[LifecycleKind, KindLifecycle],
    prices: PriceList,
    *,
    name: str,
) -> dict[str, Any]:
    """The configuration of one bucket. `name`: the beginning of the rules' names, of the project and environment."""
    render = {"s3": _s3, "azure": _azure, "gcs": _gcs}[cloud]
    return render(places, lifecycle, prices, _UNSAFE.sub("-", name.lower()).strip("-"))


def configurations(
    cloud: Cloud,
    places: Iterable[BucketPlaces],
    lifecycle: Mapping[LifecycleKind, KindLifecycle],
    prices: PriceList,
    *,
    name: str,
) -> dict[str, dict[str, Any]]:
    """What the tools of the cloud take, each of which replaces what was there: by bucket, or for an Azure account."""
    ordered = sorted(places, key=lambda each: each.bucket)
    by_bucket = {each.bucket: rules_for(cloud, each, lifecycle, prices, name=name) for each in ordered}
    if cloud != "azure":
        return by_bucket
    return {AZURE_POLICY: {"rules": [rule for each in by_bucket.values() for rule in each["rules"]]}}


def _moving(
    places: BucketPlaces, lifecycle: Mapping[LifecycleKind, KindLifecycle]
) -> Iterator[tuple[LifecycleKind, Sequence[str], dict[StorageClass, int]]]:
    """Kinds whose files move, their prefixes, and the ages in whole days, rounded up: clouds know no others."""
    for kind, prefixes in places.kinds.items():
        days = {name: -(-int(age.total_seconds()) // 86_400) for name, age in lifecycle[kind].moves.items()}
        if days:
            yield kind, prefixes, days


def _s3(
    places: BucketPlaces, lifecycle: Mapping[LifecycleKind, KindLifecycle], prices: PriceList, name: str
) -> dict[str, Any]:
    rules: list[dict[str, Any]] = []
    for kind, prefixes, ages in _moving(places, lifecycle):
        terms = {moved: prices.terms_of("s3", moved) for moved in ages}
        transitions = [{"Days": days, "StorageClass": terms[moved].name} for moved, days in ages.items()]
        # A smaller object would be billed as one of the least size.
        least = max(each.minimum_bytes for each in terms.values())
        for number, prefix in enumerate(prefixes, 1):
            scope = {"And": {"Prefix": prefix, "ObjectSizeGreaterThan": least - 1}} if least else {"Prefix": prefix}
            identity = f"{name}-{kind}-{number}"
            rules.append({"ID": identity, "Status": "Enabled", "Filter": scope, "Transitions": transitions})
    for number, prefix in enumerate(places.roots, 1):
        rules.append(
            {
                "ID": f"{name}-uploads-{number}",
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _UPLOAD_DAYS},
            }
        )
    return {"Rules": rules}


def _azure(
    places: BucketPlaces, lifecycle: Mapping[LifecycleKind, KindLifecycle], prices: PriceList, name: str
) -> dict[str, Any]:
    del prices  # Azure names the actions, not the classes; it removes uploads that were cut off by itself
    rules = [
        {
            "enabled": True,
            "name": f"{name}-{kind}",
            "type": "Lifecycle",
            "definition": {
                "filters": {
                    "blobTypes": ["blockBlob"],
                    "prefixMatch": [f"{places.bucket}/{prefix}" for prefix in prefixes],
                },
                "actions": {
                    "baseBlob": {
                        _AZURE_ACTIONS[moved]: {"daysAfterModificationGreaterThan": days}
                        for moved, days in ages.items()
                    }
                },
            },
        }
        for kind, prefixes, ages in _moving(places, lifecycle)
    ]
    return {"rules": rules}


def _gcs(
    places: BucketPlaces, lifecycle: Mapping[LifecycleKind, KindLifecycle], prices: PriceList, name: str
) -> dict[str, Any]:
    del name  # rules of GCS have none
    rules: list[dict[str, Any]] = []
    for _, prefixes, ages in _moving(places, lifecycle):
        before: list[str] = ["STANDARD"]
        for moved, days in ages.items():
            reached = prices.terms_of("gs", moved).name
            condition = {"age": days, "matchesPrefix": list(prefixes), "matchesStorageClass": list(before)}
            rules.append({"action": {"type": "SetStorageClass", "storageClass": reached}, "condition": condition})
            before.append(reached)
    uploads = {"age": _UPLOAD_DAYS, "matchesPrefix": list(places.roots)}
    rules.append({"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": uploads})
    return {"lifecycle": {"rule": rules}}
