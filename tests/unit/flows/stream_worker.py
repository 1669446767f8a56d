"""A process that ingests the streams of a project until it is killed: `python stream_worker.py PROJECT`."""

import sys

from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.project.file.loading import load


def work(root: str) -> None:
    with load(root) as project:
        print("ready", flush=True)
        ingest_streams(project, principal=project.principal(), limits=IngestLimits(bytes=20_000, seconds=0.01))


if __name__ == "__main__":
    work(sys.argv[1])
