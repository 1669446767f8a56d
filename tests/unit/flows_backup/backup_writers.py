"""Processes that write to a project while it is backed up; each appends to a file what was accepted."""

import sys
import time
from datetime import timedelta
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "outcomes"))

from outcomes_support import SALT, SCHEMA

from cumulant.core.events import Actor, Fact
from cumulant.flows.outcomes.outcome_logs import logs_of
from cumulant.outcomes.labels.ingest import ingest_inbox
from cumulant.ports.log import UNDATED, PartInfo
from cumulant.project.file.loading import load
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.serving.prediction_log.storage.retention import upkeep
from cumulant.testing.log import append_lines, folder_log


class Noted(Fact, frozen=True, kw_only=True):
    kind = "test.noted"
    number: int


def events(project, number):
    with project.journal().transaction(actor=Actor("user:ada")) as transaction:
        transaction.put("note", f"{number:06d}", {"number": number}, expect=None)
        transaction.emit(Noted(number=number))


class Rows:
    """One life of a log process: a file a row, which may be merged."""

    def __init__(self, log):
        self.parts = LogParts(log, PersonalValueMask(SALT, {}), file_size=1 << 26, failed=print)

    def put(self, name):
        self.parts.add(entry(name), "w", "")
        self.parts.close()

    def put_durable(self, name):
        self.parts.add_durable(entry(name), "w", "")
        self.parts.commit()


def entry(name):
    now, answers = time.time_ns() // 1000, b'[{"prediction":1}]'
    return LogEntry(id=name, time_us=now, latency_us=9, model="m", version="1", rows=b'[{"x":1}]', answers=answers)


@cache
def life(project):
    return Rows(project.state / "predictions")


def rows(project, number):
    life(project).put(f"r{number}")


def labels(project, number):
    part = PartInfo(UNDATED, f"post-{number:06d}", 1, 1, "jsonl")
    append_lines(project.log("inbox"), part, [f'{{"id": "r{number}", "label": true}}'])


def moves(project, number):
    """What takes files away under a reader."""
    ingest_inbox(logs_of(project), SCHEMA, salt=SALT)
    upkeep(folder_log(project.state / "predictions"), keep=timedelta(days=90), file_size=1 << 20, file_age=0.0)


if __name__ == "__main__":
    root, role = Path(sys.argv[1]), sys.argv[2]
    with load(root) as project, (root / f"{role}.accepted").open("a", buffering=1) as accepted:
        for number in range(100_000):
            globals()[role](project, number)
            accepted.write(f"{number}\n")
            time.sleep(0.01)
