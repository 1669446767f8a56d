"""The flows of labels: ingested from files and servers, joined with the prediction log, and shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import DataError, NotFoundError, UsageError
from cumulant.core.events import Actor, Fact
from cumulant.core.plan import Field
from cumulant.flows.ledger.actions import verb
from cumulant.flows.outcomes.label_schema import model_description, schema_of
from cumulant.flows.outcomes.outcome_logs import LABELS_LEASE, exclusive, logs_of
from cumulant.outcomes.labels.label_rows import LabelSchema

if TYPE_CHECKING:
    from cumulant.outcomes.importing import ImportReport
    from cumulant.outcomes.join.joining import JoinResult, Outcomes
    from cumulant.outcomes.labelled_log import LabelledLog
    from cumulant.outcomes.labels.batches import IngestedFile
    from cumulant.outcomes.labels.label_counts import Report
    from cumulant.outcomes.labels.label_fact import LabelFact
    from cumulant.ports.access import Principal
    from cumulant.ports.files import FileInfo
    from cumulant.project.project import Project

_LOOK_SECONDS = 2.0
#: the name of labels posted to servers
_POSTED = "posted"
#: of servers elsewhere whose predictions are imported, where none is declared
_CLOCK_SKEW = timedelta(minutes=5)


class IntakeSource(msgspec.Struct, frozen=True, kw_only=True):
    """The intake of one file. `error`: why nothing of it was ingested."""

    name: str
    rows: int = 0
    problems: dict[str, int] = {}
    again: bool = False
    error: str = ""


class Intake(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one intake: files, labels posted to servers, and predictions that now have a label."""

    sources: tuple[IntakeSource, ...]
    posted: int
    labelled: int
    pairs: int
    graded: int

    @property
    def useless(self) -> bool:
        """Whether files were read for the first time, and no row of any can be used."""
        read = [source for source in self.sources if source.name != _POSTED]
        return bool(read) and all(
            source.error or (not source.again and sum(source.problems.values()) >= source.rows) for source in read
        )


class PredictionLabels(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a request: its prediction, its label, and every posted label."""

    id: str
    row: int
    model: str
    version: str
    arm: str
    shadow: bool
    score: float | None
    outputs: object
    label: object
    label_known_time: datetime | None
    provenance: str


def outcomes_of(project: Project, schema: LabelSchema | None = None) -> Outcomes:
    """The join of the project's predictions and labels."""
    from cumulant.outcomes.join.joining import Outcomes

    return Outcomes(logs_of(project), project.log(), key=lambda: (schema or schema_of(project)).key)


@verb("labels.ingest")
def ingest_labels(
    project: Project, patterns: Sequence[str], *, principal: Principal, names: Mapping[str, str] | None = None
) -> Intake:
    """Ingest files of labels (default: the project's own) and posted labels; then join.

    Of several files one that cannot be read stops nothing: its `Source` has the reason.

    Raises:
        UsageError: no file is named, by the caller or the project file.
        DataError: nothing is there, or the only file cannot be read.
        StorageError, LeaseHeldError: as `outcomes.ingest_file`.
    """
    schema = schema_of(project)
    files = [file for pattern in _patterns(project, patterns) for file in _files(project, pattern)]
    sources = [_ingest(project, file, schema, names or {}, principal, alone=len(files) == 1) for file in files]
    return join_intake(project, schema, sources, principal)


@verb("labels.ingest")
def join_labels(project: Project, *, principal: Principal, schema: LabelSchema | None = None) -> Intake:
    """Ingest labels posted to servers, and join labels and predictions.

    Raises:
        StorageError, LeaseHeldError: as `ingest_labels`.
    """
    return join_intake(project, schema or schema_of(project), (), principal)


@verb("labels.ingest")
def watch_labels(
    project: Project,
    folder: str,
    *,
    principal: Principal,
    report: Callable[[Intake], None],
    names: Mapping[str, str] | None = None,
    ended: Callable[[], bool] = lambda: False,
    pause: float = _LOOK_SECONDS,
) -> None:
    """Ingest files that come into a folder, once they are complete, and posted labels, until `ended`.

    Raises:
        UsageError: there is no such folder.
        StorageError, LeaseHeldError: as `ingest_labels`.
    """
    from cumulant.outcomes.labels.label_files import kind_of

    if not Path(folder).is_dir():
        raise UsageError(
            "there is no such folder", subject=folder, hint="make it, or name the one that files come into"
        )
    schema, seen, done = schema_of(project), dict[str, str](), dict[str, str]()
    while not ended():
        files = [file for file in project.files().list(folder) if kind_of(Path(file.url))]
        ripe = [file for file in files if seen.get(file.url) == file.stamp != done.get(file.url)]
        sources = [_ingest(project, file, schema, names or {}, principal, alone=False) for file in ripe]
        done |= {file.url: file.stamp for file in ripe}
        seen = {file.url: file.stamp for file in files}
        intake = join_intake(project, schema, sources, principal)
        if intake.sources or intake.posted or intake.labelled:
            report(intake)
        time.sleep(pause)


@verb("labels.show")
def report_labels(
    project: Project, *, principal: Principal, by: str = "day", since: date | None = None, until: date | None = None
) -> Report:
    """How much is labelled. Raises UsageError, StorageError."""
    from cumulant.outcomes.labels.stored_counts import stored_report

    if by not in ("day", "week"):
        raise UsageError(f'"{by}" is no period', subject=by, hint="write day or week")
    return stored_report(
        logs_of(project),
        project.log(),
        datetime.now(UTC),
        key=lambda: schema_of(project).key,
        by="day" if by == "day" else "week",
        since=since,
        until=until,
    )


@verb("labels.show", personal=True)
def list_labels(
    project: Project,
    *,
    principal: Principal,
    state: str | None = None,
    limit: int = 20,
    until: datetime | None = None,
) -> tuple[list[LabelFact], int]:
    """The labels, the newest first, and how many there are in all; with `until`, of those received by then.

    Raises StorageError.
    """
    from cumulant.outcomes.labels.label_facts import newest_labels

    named = _labelled_log(project).named
    return newest_labels(logs_of(project), datetime.now(UTC), state=state, limit=limit, until=until, named=named)


def _labelled_log(project: Project) -> LabelledLog:
    """For reading alone: the model's key is read where a label names its prediction by it."""
    from cumulant.outcomes.labelled_log import LabelledLog

    return LabelledLog(logs_of(project), project.log(), key=lambda: schema_of(project).key)


@verb("labels.show", personal=True)
def show_labels(
    project: Project, request: str, *, principal: Principal
) -> tuple[list[PredictionLabels], list[LabelFact]]:
    """The rows of one request with their labels, and the labels posted by its id.

    Raises:
        NotFoundError: no prediction and no label has that id.
        StorageError: a file cannot be read.
    """
    from cumulant.outcomes.labels.label_facts import newest_labels

    matched, named = _labelled_log(project).of(request)
    rows = [_labelled(row) for row in matched.to_dicts()]
    labels, _ = newest_labels(logs_of(project), datetime.now(UTC), request=request, limit=None, named=named)
    if not rows and not labels:
        raise NotFoundError(
            f'no prediction and no label has the id "{request}"',
            subject=request,
            hint="`cumulant predictions list` and `cumulant labels list` show the newest ones",
        )
    return rows, labels


@verb("predictions.import")
def import_predictions(
    project: Project,
    path: Path,
    names: Mapping[str, str],
    *,
    principal: Principal,
    model: str | None = None,
    version: str = "imported",
) -> ImportReport:
    """Bring predictions that were logged elsewhere into the project's log, once.

    Raises:
        UsageError, DataError, StorageError: as `outcomes.import_predictions`.
    """
    from cumulant.outcomes.importing import Defaults, import_predictions

    defaults = Defaults(model=model or project.name, version=version)
    fields, key = _request(project)
    with exclusive(project, LABELS_LEASE):
        imported = import_predictions(
            project.log(),
            path,
            names,
            defaults,
            fields=fields,
            salt=project.salt(),
            key=key,
            until=datetime.now(UTC) + _skew(project),
        )
    if not imported.again:
        from cumulant.outcomes.events import PredictionsImported

        fact = PredictionsImported(
            source=path.name, content=imported.content, rows=imported.rows, refused=imported.refused
        )
        emit_facts(project, principal, [fact])
    return imported


def _skew(project: Project) -> timedelta:
    """How far the clock of another server may be ahead of this one."""
    return _CLOCK_SKEW if project.policies.clock_skew is None else project.policies.clock_skew


def _request(project: Project) -> tuple[dict[str, Field], tuple[str, ...]]:
    """What may come with a request of the project's model, and the key of its rows; nothing where there is none."""
    described = model_description(project)
    if described is None:
        return {}, ()
    source = described.plan.sources[described.plan.entity]
    return {field.name: field for field in (*source.fields, *described.plan.request)}, source.key


def _patterns(project: Project, patterns: Sequence[str]) -> Sequence[str]:
    if patterns:
        return [pattern if "://" in pattern else str(Path(pattern).absolute()) for pattern in patterns]
    declared = project.policies.monitoring.labels
    if declared is not None:
        return [declared]
    from cumulant.outcomes.labels.ingest import count_waiting

    if count_waiting(logs_of(project)):
        return []
    raise UsageError(
        "no labels are named", hint="name a file, or declare `monitoring: {labels: PATH}` in cumulant.yaml"
    )


def _files(project: Project, pattern: str) -> Iterator[FileInfo]:
    from cumulant.outcomes.labels.label_files import kind_of

    files = project.files().list(pattern)
    if not files:
        raise DataError(f"no file matches {pattern}", subject=pattern, hint="check the path, and quote a glob")
    known = [file for file in files if kind_of(Path(file.url))]
    yield from known if len(files) > 1 else files


def _ingest(
    project: Project,
    file: FileInfo,
    schema: LabelSchema,
    names: Mapping[str, str],
    principal: Principal,
    *,
    alone: bool,
) -> IntakeSource:
    name = Path(file.url).name
    try:
        from cumulant.outcomes.labels.ingest import ingest_file

        path = project.files().fetch(file)
        taken = ingest_file(logs_of(project), path, schema, names=names, salt=project.salt())
    except DataError as error:
        if alone:
            raise
        return IntakeSource(name=name, error=error.full_text.replace(file.url.removeprefix("file://"), name))
    content = taken.file
    if not taken.again:
        emit_facts(project, principal, [ingest_event(name, content)])
    return IntakeSource(name=name, rows=content.rows, problems=content.problems, again=taken.again)


def join_intake(project: Project, schema: LabelSchema, sources: Sequence[IntakeSource], principal: Principal) -> Intake:
    """As `join_labels`, for a flow that has checked access; `sources` were ingested before."""
    posted, progress = _ingest_and_join(project, schema)
    facts: list[Fact] = [ingest_event(_POSTED, content) for content in posted]
    if progress.labelled or progress.pairs or progress.graded:
        from cumulant.outcomes.events import PredictionsLabelled

        facts.append(PredictionsLabelled(labelled=progress.labelled, pairs=progress.pairs, graded=progress.graded))
    emit_facts(project, principal, facts)
    results = (
        *sources,
        *(IntakeSource(name=_POSTED, rows=content.rows, problems=content.problems) for content in posted),
    )
    rows = sum(content.rows for content in posted)
    return Intake(
        sources=results, posted=rows, labelled=progress.labelled, pairs=progress.pairs, graded=progress.graded
    )


def _ingest_and_join(project: Project, schema: LabelSchema) -> tuple[Sequence[IngestedFile], JoinResult]:
    """Ingest posts and join what is new; without a lease where nothing is."""
    from cumulant.outcomes.join.joining import JoinResult
    from cumulant.outcomes.labels.ingest import count_waiting, ingest_inbox

    outcomes = outcomes_of(project, schema)
    if not count_waiting(outcomes.logs) and not outcomes.has_news():
        return (), JoinResult(labelled=0, pairs=0, graded=0)
    with exclusive(project, LABELS_LEASE):
        posted = ingest_inbox(outcomes.logs, schema, salt=project.salt())
        return posted, outcomes.advance()


def ingest_event(name: str, content: IngestedFile) -> Fact:
    from cumulant.outcomes.events import LabelsIngested

    return LabelsIngested(source=name, content=content.content, rows=content.rows, problems=content.problems)


def emit_facts(project: Project, principal: Principal, facts: Sequence[Fact]) -> None:
    if facts:
        with project.journal().transaction(actor=Actor(principal.id)) as transaction:
            for fact in facts:
                transaction.emit(fact)


def _labelled(row: dict[str, object]) -> PredictionLabels:
    for name in ("outputs", "label"):
        text = row[name]
        row[name] = None if text is None else msgspec.json.decode(str(text))
    return msgspec.convert({name: row[name] for name in PredictionLabels.__struct_fields__}, PredictionLabels)
