"""The records of the object stores. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

_HERE = "cumulant.drivers.objectstore"

bucket = Driver(
    clients={
        "tables": f"{_HERE}.tables:BucketTables",
        "objects": f"{_HERE}.objects:BucketObjects",
        "files": f"{_HERE}.files:BucketFiles",
        "log": f"{_HERE}.log:BucketLog",
        "artifacts": f"{_HERE}.bucket:open_bucket",
    },
    capabilities={
        "tables": frozenset({"partition_by", "processes", "hosts"}),
        "objects": frozenset({"processes", "hosts"}),
        "files": frozenset({"glob", "hosts"}),
        "log": frozenset({"hosts"}),
        "artifacts": frozenset({"hosts"}),
    },
    options={port: frozenset({"cache", "region"}) for port in ("tables", "objects", "log")}
    | {"files": frozenset(), "artifacts": frozenset({"region"})},
    extra="objects",
    embeds={"tables": "file", "objects": "file"},
)
