"""Streams with personal columns, and the jobs of another engine that read them. A stream declares no subject, so that
nobody can say which of its rows are of one: an erasure names what has such rows, and until when.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cumulant.core.units import show_duration
from cumulant.flows.features.jobs.job_record import job_records
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, kept_receipt
from cumulant.project.file.text_values import masked

if TYPE_CHECKING:
    from cumulant.flows.features.jobs.job_record import FeatureJobRecord
    from cumulant.flows.ledger.run_context import Context
    from cumulant.project.project import Project

STORE = "streams, and jobs of another engine"
#: Flink drops what no window reaches any more once half of the window more has passed
_CLEANUP = 1.5


def find_streams(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Streams with personal columns, and jobs that read them."""
    del subject
    places = [
        f"{name}: ingested rows, and messages of {topic}, of anybody"
        for name, topic in _streams(context.project).items()
    ]
    records, folder = _reading(context.project), _checkpoints(context.project)
    for record in records:
        places += [f"{record.name}: {path}, of anybody" for path in _named(record)]
        what = "" if record.stopped else "state, "
        places.append(f"{record.name}: {what}checkpoints and older savepoints below {folder}, of anybody")
    return [SubjectPlace(store=STORE, where=where, rows=0) for where in places]


def keep_streams(context: Context, subject: Subject) -> Receipt:
    streams, records = _streams(context.project), _reading(context.project)
    running = [record for record in records if not record.stopped]
    parts = [*(_running(record) for record in running), *(_stopped(record) for record in records if record.stopped)]
    if streams:
        parts.insert(
            0,
            f"streams declare no subject: rows of {', '.join(streams)} that were ingested stay, and messages of"
            f" {', '.join(sorted({*streams.values()}))} until the retention of the broker ends",
        )
    if records:
        parts.append(
            f"checkpoints of these jobs, and older savepoints of them, are below {_checkpoints(context.project)} until"
            " you delete them: Flink keeps checkpoints of jobs that were cancelled"
        )
    if running:
        parts.append(
            "results show no personal values. To drop the state at once: `cumulant features stop-job`, delete its"
            " savepoints and checkpoints and the topic of its results, and when the topics that it reads have lost the"
            " rows, `cumulant features start-job --from beginning`"
        )
    return kept_receipt(STORE, find_streams(context, subject), "; ".join(parts))


def _streams(project: Project) -> dict[str, str]:
    """Topics by source, of those with personal columns."""
    return {
        name: policy.spec.stream
        for name, policy in sorted(project.policies.sources.items())
        if policy.spec.stream is not None and policy.spec.personal
    }


def _reading(project: Project) -> list[FeatureJobRecord]:
    """Jobs with state of such streams; where it is not known what one reads, that one too."""
    streams = _streams(project)
    records = sorted(job_records(project).values(), key=lambda record: record.name)
    return [record for record in records if not record.reads or streams.keys() & {*record.reads}]


def _checkpoints(project: Project) -> str:
    """The folder that checkpoints and savepoints of jobs are written to; an earlier one is not known."""
    _, _, options = (project.endpoints.stream_engine or "").partition("?")
    named = parse_qs(options.replace("+", "%2B")).get("checkpoints")
    return masked(named[-1]) if named else "the folder `checkpoints` of the engine that they ran on"


def _named(record: FeatureJobRecord) -> list[str]:
    """Checkpoints and savepoints that the record names, the newest first."""
    paths = (None if record.place is None else record.place.path, record.resumed)
    return [*dict.fromkeys(path for path in paths if path is not None)]


def _running(record: FeatureJobRecord) -> str:
    if record.span is None:
        until = "for as long as it runs, since a window or lookup has no end"
    else:
        until = f"until its watermark is {show_duration(timedelta(seconds=record.span * _CLEANUP))} after they count"
    rows = f"the job {record.name} has rows in its windows {until}, and keys of rows for as long as it runs"
    return "; ".join([rows, *(f"{path} has earlier state of it, until you delete it" for path in _named(record))])


def _stopped(record: FeatureJobRecord) -> str:
    state = [f"{path} has state of {record.name}, which was stopped, until you delete it" for path in _named(record)]
    return "; ".join(state) or f"{record.name} was stopped, and no savepoint of its state is known"
