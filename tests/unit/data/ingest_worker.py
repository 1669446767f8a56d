"""A process that ingests the files of a project, and is killed when it makes something durable for the n-th time.

python ingest_worker.py PROJECT TABLES PREVIOUS N
"""

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cumulant.data.ingestion import ingest
from cumulant.data.snapshot import Snapshot
from cumulant.data.spec import SourceSpec
from cumulant.drivers.local.files import LocalFiles
from cumulant.drivers.local.tables import FileTables
from cumulant.project.data_section import source_policy


def main(root: str, tables: str, previous: str, left: int) -> None:
    sync = os.fsync

    def counted(handle: int) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = counted
    ingest(
        "trips",
        source_policy(SourceSpec(path="in", key="id")),
        root=Path(root),
        files=LocalFiles(f"file://{root}"),
        tables=FileTables(f"file://{tables}"),
        previous=msgspec.json.decode(Path(previous).read_bytes(), type=Snapshot),
        now=datetime(2024, 1, 11, tzinfo=UTC),
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
