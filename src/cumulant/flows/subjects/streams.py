"""Streams with personal columns, and the jobs of another engine that read them. A stream declares no subject, so that
nobody can say which of its rows are of one: an erasure names what has such rows, and until when.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cumulant.core.units import show_duration
from cumulant.flows.features.jobs.job_record import job_records
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, kept_receipt

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
    places += [_where(record) for record in _reading(context.project)]
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
    if running:
        parts.append(
            "results show no personal values. To drop the state at once: `cumulant features stop-job`, delete its"
            " savepoint and the topic of its results, and when the topics that it reads have lost the rows, `cumulant"
            " features start-job --from beginning`"
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
    reading = [record for record in records if not record.reads or streams.keys() & {*record.reads}]
    return [record for record in reading if not record.stopped or record.place is not None]


def _where(record: FeatureJobRecord) -> str:
    if record.stopped and record.place is not None:
        return f"{record.name}: {record.place.path}"
    return f"{record.name}: state and checkpoints, of anybody"


def _running(record: FeatureJobRecord) -> str:
    if record.span is None:
        until = "for as long as it runs, since a window or lookup has no end"
    else:
        until = f"until its watermark is {show_duration(timedelta(seconds=record.span * _CLEANUP))} after they count"
    return f"the job {record.name} has rows in its windows {until}, and keys of rows for as long as it runs"


def _stopped(record: FeatureJobRecord) -> str:
    assert record.place is not None
    return f"{record.place.path} has state of {record.name}, which was stopped, until you delete it"
