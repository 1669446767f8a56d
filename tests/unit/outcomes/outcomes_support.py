"""Prediction logs and labels for the tests of the outcomes room."""

import json
import time
from datetime import UTC, datetime, timedelta

from cumulant.core.plan import Field
from cumulant.outcomes.join.joining import Outcomes
from cumulant.outcomes.labels import cohorts
from cumulant.outcomes.labels.batches import LabelBatches
from cumulant.outcomes.labels.ingest import ingest_file
from cumulant.outcomes.labels.label_counts import report_of
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.outcomes.logs import OutcomeLogs
from cumulant.ports.log import UNDATED, PartInfo
from cumulant.serving.prediction_log.entry import LogEntry
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.storage.part_writer import LogParts
from cumulant.testing.log import folder_log

NOW = datetime.now(UTC).replace(microsecond=0)
SALT = b"pepper"
KEY = (Field("card", "str", personal=True), Field("number", "int"))
SCHEMA = LabelSchema(
    model="m", task="binary", classes=(False, True), key=KEY, time=Field("at", "time"), offset_us=-3_600_000_000
)


class Clock:
    def __init__(self, now=NOW):
        self.time = now

    def now(self):
        return self.time


def micros(when):
    return int(when.timestamp()) * 1_000_000


def put(folder, *rows):
    """Write rows of the log as one file: dicts with `id` and what else differs."""

    def failed(error, count):
        raise error

    parts = LogParts(
        folder, PersonalValueMask(SALT, dict.fromkeys(("m", "n"), KEY[:1])), file_size=1 << 26, failed=failed
    )
    for place, row in enumerate(rows):
        at = row.get("at", NOW - timedelta(hours=1))
        request = [{"card": row.get("card", "c1"), "number": row.get("number", 1), "at": at.isoformat()}]
        answer = {"prediction": row.get("p", 0.25) >= 0.5, "probability": row.get("p", 0.25)}
        full = not row.get("empty")
        entry = LogEntry(
            id=row["id"],
            time_us=row.get("time", micros(NOW)),
            latency_us=9,
            model=row.get("model", "m"),
            version=row.get("version", "1"),
            sequence=place + 1,
            event_times=[micros(at) - 3_600_000_000],
            arm=row.get("arm", ""),
            served_arm=row.get("served_arm", ""),
            shadow=row.get("shadow", False),
            rows=json.dumps(request * full).encode(),
            answers=json.dumps([answer] * full).encode(),
        )
        parts.add(entry, row.get("worker", f"w{time.monotonic_ns()}"), "")
    parts.close()


def logs(folder):
    """The logs of outcomes below a folder."""
    return OutcomeLogs(*(folder_log(folder / name) for name in ("labels", "joined", "inbox")))


def post(folder, name, *rows):
    """Put labels into the inbox, as a server does."""
    with logs(folder).inbox.append(PartInfo(UNDATED, name, 1, 1, "jsonl")) as stream:
        stream.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def batch_names(folder):
    return LabelBatches(logs(folder).labels).names


def tell(folder, *rows, name=None, schema=SCHEMA, **more):
    path = folder.parent / (name or f"labels-{time.monotonic_ns()}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ingest_file(logs(folder), path, schema, salt=SALT, **{"clock": Clock(), **more})


def opened(tmp_path, **more):
    return Outcomes(
        logs(tmp_path / "outcomes"), folder_log(tmp_path / "log"), key=KEY, clock=more.pop("clock", Clock()), **more
    )


def report(outcomes, now, *, by="day", since=None, until=None):
    """The report of counts that are not stored."""
    return report_of(cohorts.count(outcomes, now)[0], by=by, since=since, until=until)
