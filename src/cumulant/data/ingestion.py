"""Ingestion: a source's files as a snapshot. New files are read, all rows checked, refused ones quarantined."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec

from cumulant.core.errors import DataError
from cumulant.core.ids import digest
from cumulant.core.plan import Field
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import memory_limit
from cumulant.data.checks.batch_checks import check_shares
from cumulant.data.checks.batch_freshness import check_freshness, newest_event
from cumulant.data.checks.batch_rows import Sizes, add_sizes, check_row_counts
from cumulant.data.checks.batches import Batch, NewFile, batches_by_file, batches_to_check
from cumulant.data.checks.distribution import check_distributions
from cumulant.data.checks.file_checks import (
    GoneFiles,
    copy_warnings,
    empty_path_warnings,
    find_gone_files,
    list_warnings,
    padding_warnings,
    skipped_warnings,
    unreadable_check,
)
from cumulant.data.checks.late_refusals import refuse_dangling, refuse_repeats
from cumulant.data.checks.quarantine import example_of, write_quarantine
from cumulant.data.checks.verdict import (
    SourceBreachError,
    as_contract_breach,
    evaluate_row_rules,
    evaluate_table_rules,
    find_breaches,
    hint_for,
)
from cumulant.data.corrections.arrivals import Arrival, find_arrivals, is_in_order
from cumulant.data.corrections.versions import Versions, refuse_undecidable, versions_of
from cumulant.data.erased_subjects import ErasedSubjects, without_erased
from cumulant.data.files.inputs import SourceInput, file_inputs, frame_input
from cumulant.data.files.listing import FileListing, list_files
from cumulant.data.files.unreadable_files import shorten_list
from cumulant.data.parts.file_differences import difference_warnings
from cumulant.data.parts.packs import blocks_of, load_part, profiles_of
from cumulant.data.parts.part import PartContext, PartFacts, is_grown
from cumulant.data.parts.part_store import compact_parts, load_parts, read_as_text
from cumulant.data.parts.spill import MemoryBudget
from cumulant.data.policy import SourcePolicy
from cumulant.data.prepare import load
from cumulant.data.profile import Profile, merge
from cumulant.data.rules.row_checks import AbsentColumnError, refuse_unknown_columns
from cumulant.data.rules.severity import select_failing
from cumulant.data.schema import fields_of, find_changes, text_columns
from cumulant.data.shift import measure_shifts
from cumulant.data.snapshot import (
    READING,
    BatchCheck,
    CheckResult,
    SchemaChange,
    Shift,
    Snapshot,
    SourceFile,
    UnreadableFile,
    pack_name,
)
from cumulant.data.streams.batches import batch_inputs
from cumulant.ports.files import Files
from cumulant.ports.tables import TableStore


def ingest(
    name: str,
    policy: SourcePolicy,
    *,
    root: Path,
    files: Files,
    tables: TableStore,
    previous: Snapshot | None,
    now: datetime,
    others: Mapping[str, Snapshot] | None = None,
    frame: object | None = None,
    used: Collection[str] | None = None,
    progress: Progress = silent,
    force: bool = False,
    listing: FileListing | None = None,
    budget: MemoryBudget | None = None,
    erased: ErasedSubjects | None = None,
) -> Snapshot:
    """The snapshot of source `name` as it is now. Only new or changed files are read; `force` compares contents.

    `previous`: the last accepted snapshot; `others`: those that `references` may name; `frame` replaces the files;
    `listing`: the files, or batches of a stream (None: files are listed); `used`: the columns whose loss matters, by
    use in a mapping (None: all); `budget`: of memory (None: half of the machine's); `erased`: subjects whose rows are
    dropped.

    Raises:
        SourceBreachError: more rows refused than declared, a rule on the whole broken, or a refused schema change. Its
            `snapshot` is complete.
        ContractBreachError: a declared column is gone that the previous snapshot had.
        DataError: a source that cannot be read as declared.
        DefinitionError: a rule or `prepare` that cannot be used.
        UserCodeError: `prepare` raised.
    """
    root, spec = root.absolute(), policy.spec
    prepare = without_erased(load(spec.prepare, root, quiet=bool(spec.personal)) if spec.prepare else None, erased)
    budget = MemoryBudget(memory_limit(None)) if budget is None else budget
    context = PartContext(name, policy, tables, prepare, budget)
    if frame is not None:
        listing = None
    elif listing is None:
        listing = list_files(spec, source=name, root=root, files=files)
    known = None if force else previous
    if listing is None:
        inputs = [frame_input(frame, spec, name)]
    elif spec.stream is not None:
        inputs = batch_inputs(listing, spec, tables)
    else:
        inputs = file_inputs(listing, spec, root, files, known)
    try:
        run = _read_and_check(context, inputs, previous, others or {}, now, progress, force=force)
    except AbsentColumnError as error:
        raise as_contract_breach(error, previous) from error
    if listing is not None:
        run = replace(run, warnings=skipped_warnings(listing, root))
        if previous is not None and spec.stream is None:
            gone = find_gone_files(previous, run.inputs, run.parts, spec, root=root, unreadable=run.unreadable)
            run = replace(run, gone=gone)
    snapshot = _build_snapshot(run, used)
    progress(f"{name}: {snapshot.rows_passed:,} of {snapshot.rows_in:,} rows passed", 1.0)
    if snapshot.breaches:
        hint = hint_for(snapshot, lambda check: example_of(check, snapshot, context))
        breaches = "; ".join(shorten_list(snapshot.breaches))
        raise SourceBreachError(f"source {name}: {breaches}", snapshot=snapshot, hint=hint)
    return snapshot


def _read_and_check(  # noqa: PLR0917
    context: PartContext,
    inputs: Sequence[SourceInput],
    previous: Snapshot | None,
    others: Mapping[str, Snapshot],
    now: datetime,
    progress: Progress,
    *,
    force: bool,
) -> _IngestRun:
    """The parts of the inputs, checked by themselves and across files. Raises as `ingest`, and AbsentColumnError."""
    spec, name = context.spec, context.source
    prepared = context.prepare.digest if context.prepare else None
    declaration = digest([READING, spec.reading_values(), spec.table.where, prepared])
    same = previous is not None and previous.declaration == declaration
    files_before, tried = (previous.files, previous.unreadable) if same and previous else ((), ())
    inputs, parts, unreadable = load_parts(
        inputs, files_before, context, declaration, progress, unreadable=() if force else tried
    )
    parts = as_read = compact_parts(parts, context)
    if not any(part.rows_in for part in parts):
        raise DataError(f"source {name} has no rows", subject=name, hint="check its files and path")
    fields = fields_of(parts, context.policy, previous)
    parts = read_as_text(parts, inputs, [text_columns(part, fields) for part in parts], context, progress)
    fields = fields_of(parts, context.policy, previous)
    refuse_unknown_columns(spec, [field.name for field in fields], source=name)
    refuse_undecidable(spec, fields, name)
    progress(f"{name}: checking across files", 0.95)
    accepted = refuse_dangling(parts, fields, context, others)
    arrived = find_arrivals(inputs, accepted, fields, context, previous=previous, now=now)
    accepted, arrived, repeats = refuse_repeats(accepted, arrived, fields, context)
    return _IngestRun(
        context=context,
        declaration=declaration,
        inputs=inputs,
        as_read=as_read,
        parts=parts,
        accepted=accepted,
        arrived=arrived,
        repeats=repeats,
        versions=versions_of(accepted, arrived, fields, context),
        fields=fields,
        previous=previous,
        others=others,
        now=now,
        unreadable=unreadable,
    )


@dataclass(frozen=True)
class _IngestRun:
    """The inputs and intermediate results of an ingestion, from which the snapshot is built."""

    context: PartContext
    declaration: str
    inputs: Sequence[SourceInput]
    as_read: Sequence[PartFacts]
    parts: Sequence[PartFacts]
    accepted: Sequence[PartFacts]
    arrived: Sequence[Arrival]
    repeats: Sequence[str]
    versions: Versions
    fields: tuple[Field, ...]
    previous: Snapshot | None
    others: Mapping[str, Snapshot]
    now: datetime
    unreadable: tuple[UnreadableFile, ...]
    warnings: Sequence[str] = ()
    gone: GoneFiles | None = None

    @property
    def identity(self) -> str:
        named = {rule.references.partition(".")[0] for rule in self.context.spec.rules.values() if rule.references}
        references = {source: self.others[source].id for source in named}
        types = [(field.name, field.dtype) for field in self.fields]
        contents = [item.content for item in self.inputs]
        content = [READING, self.context.source, contents, self.declaration, references, types]
        content += [["unreadable", file.url, file.content] for file in self.unreadable]
        return digest([*content, *self._decided_by_arrival])

    @property
    def _decided_by_arrival(self) -> list[str]:
        """What distinguishes snapshots of equal files that arrived in another order; empty where they agree."""
        repeats = [] if is_in_order(self.arrived) else list(self.repeats)
        return repeats if self.versions.table is None else [*repeats, self.versions.digest]

    @property
    def fresh(self) -> list[tuple[str, PartFacts]]:
        """New or changed files, with their parts."""
        return [(item.url, part) for item, part, _ in self._fresh()]

    @property
    def fresh_as_read(self) -> list[tuple[str, PartFacts]]:
        """New or changed files, with their parts before digits became text for the sake of another file."""
        parts = {item.url: part for item, part in zip(self.inputs, self.as_read, strict=True)}
        return [(url, parts[url]) for url, _ in self.fresh]

    def new_files(self) -> list[NewFile]:
        """New or changed files, each with the part that was accepted of it before."""
        before = {file.url: file for file in self._known}
        result = []
        for item, read, accepted in self._fresh():
            file = before.get(item.url)
            loaded = [load_part(name, self.context) for name in (() if file is None else file.parts)]
            stored = [part for part in loaded if part is not None]
            grown = bool(stored) and is_grown(read, stored[0], self.fields, self.context)
            result.append(NewFile(item.url, read, accepted, stored[-1] if stored else None, grown))
        return result

    @property
    def earlier_batches(self) -> Sizes:
        """The batches that were accepted before, under this declaration."""
        return self.previous.batches if self.previous is not None and self._known else {}

    @property
    def _known(self) -> tuple[SourceFile, ...]:
        """The files of the last accepted snapshot, where they were read under this declaration."""
        same = self.previous is not None and self.previous.declaration == self.declaration
        return self.previous.files if same and self.previous else ()

    def _fresh(self) -> list[tuple[SourceInput, PartFacts, PartFacts]]:
        contents = {file.content for file in self._known}
        files = {(file.url, file.content) for file in self._known}  # all empty files have one content
        return [
            (item, read, accepted)
            for item, read, accepted in zip(self.inputs, self.parts, self.accepted, strict=True)
            if item.content not in contents or (not read.rows_in and (item.url, item.content) not in files)
        ]


def _build_snapshot(run: _IngestRun, used: Collection[str] | None) -> Snapshot:
    context = run.context
    profile = merge(profiles_of(run.accepted, context), run.fields)
    ranges = tuple(block.range for block in blocks_of(run.accepted))
    refused, dropped = sum(part.rows_refused for part in run.accepted), sum(part.rows_dropped for part in run.accepted)
    rows_in = sum(part.rows_in for part in run.accepted)
    identity, versions = run.identity, run.versions
    rows = profile.rows - versions.superseded - versions.repeated - versions.deletions
    quarantine, by_rule = write_quarantine([item.url for item in run.inputs], run.accepted, context, identity)
    checks = _check_source(run, profile, rows)
    changed, moved = _compare_with_previous(run, used)
    columns = {check.rule: check.column for check in checks}
    delivered, broken = _check_batches(run, columns, checked=rows_in - dropped)
    failed = select_failing(by_rule, columns, context.policy).total()
    verdict = find_breaches(
        context.policy, checks, changed, broken, checked=rows_in - dropped, refused=refused, failing=failed
    )
    stopped = tuple(text for severity, text in verdict if severity == "fail")
    same = run.previous is not None and run.previous.id == identity and not stopped
    files = _files(run)
    return Snapshot(
        id=identity,
        source=context.source,
        declaration=run.declaration,
        parts=ranges,
        fields=run.fields,
        key=context.spec.keys,
        event_time=context.spec.time.column if context.spec.time else None,
        known=dict(context.policy.known),
        files=files,
        rows_in=rows_in,
        rows_passed=profile.rows,
        rows_quarantined=refused,
        rows_dropped=dropped,
        quarantine=quarantine,
        versions=versions.table,
        rows_superseded=versions.superseded,
        rows_repeated=versions.repeated,
        rows_deletions=versions.deletions,
        checks=checks,
        batches=add_sizes(run.earlier_batches, delivered),
        batch_checks=run.previous.batch_checks if same and run.previous else broken,
        changes=run.previous.changes if same and run.previous else changed,
        shifts=run.previous.shifts if same and run.previous else moved,
        unchecked=context.policy.notes,
        unreadable=run.unreadable,
        warnings=_warnings(run),
        profile=profile,
        bytes=sum(rows.bytes for rows in ranges),
        csv_bytes=sum(part.csv_bytes for part in run.accepted),
        accepted=run.previous.accepted if same and run.previous else run.now,
        processed=tuple(url for url, _ in run.fresh),
        part_names=_part_names(run, files),
        subject=context.spec.subject,
        warned=tuple(text for severity, text in verdict if severity == "warn"),
        breaches=stopped,
    )


def _check_source(run: _IngestRun, profile: Profile, rows: int) -> tuple[CheckResult, ...]:
    """The rules on all rows, of which `rows` are in force, and on the files."""
    policy = run.context.policy
    checks = evaluate_row_rules(run.accepted, policy) + evaluate_table_rules(
        policy, profile, run.now, rows=rows, newest=newest_event(run.context, run.accepted, profile, run.now)
    )
    checks += () if run.gone is None else (run.gone.check(policy.missing_files),)
    if run.unreadable:
        checks += (unreadable_check(run.unreadable, len(run.inputs) + len(run.unreadable), policy),)
    return checks


def _check_batches(
    run: _IngestRun, columns: Mapping[str, str | None], *, checked: int
) -> tuple[Sequence[Batch], tuple[BatchCheck, ...]]:
    """The new batches by file, and the rules that batches break. `columns`: the column of each rule."""
    context, policy, previous, new = run.context, run.context.policy, run.previous, run.new_files()
    delivered = batches_by_file(new, context)
    batches = batches_to_check(new, delivered, context, checked=checked)
    broken = check_shares(batches, policy, columns, {} if previous is None else previous.batches)
    broken += check_row_counts(delivered, policy, run.earlier_batches)
    broken += check_freshness(new, context, run.now) if previous is not None else ()
    return delivered, broken + check_distributions(new, batches, run.fields, context, previous)


def _warnings(run: _IngestRun) -> tuple[str, ...]:
    gone = [*list_warnings(run.previous), *([] if run.gone is None else [run.gone.text])]
    if run.previous is None:  # later ones are compared with it
        gone += difference_warnings([item.url for item in run.inputs], run.as_read)
    gone += copy_warnings(run.inputs, run.parts)
    gone += empty_path_warnings(run.context.spec, run.parts)
    gone += [f"{item.url}: {note}" for item, part in zip(run.inputs, run.parts, strict=True) for note in part.notes]
    return (*run.warnings, *gone, *padding_warnings([item.url for item in run.inputs], run.parts))


def _compare_with_previous(
    run: _IngestRun, used: Collection[str] | None
) -> tuple[tuple[SchemaChange, ...], tuple[Shift, ...]]:
    """Changes of new files, in columns and values. One that the declaration itself made is never refused."""
    previous, fresh = run.previous, run.fresh
    if previous is None or not fresh:
        return (), ()
    schema_changes = find_changes(previous, run.fresh_as_read, run.context.spec, used)
    if previous.declaration != run.declaration:
        schema_changes = tuple(msgspec.structs.replace(change, refused=False) for change in schema_changes)
    new = merge(profiles_of([part for _, part in fresh], run.context), run.fields)
    return schema_changes, measure_shifts(previous.profile, new)


def _files(run: _IngestRun) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(
            url=item.url,
            sha256=item.sha256,
            bytes=item.bytes,
            rows=part.rows_in,
            stamp=item.stamp,
            parts=tuple(dict.fromkeys((part.digest, accepted.digest))),
            partition=item.partition,
            arrived=arrival.accepted,
            arrivals=arrival.store(accepted, run.context),
        )
        for item, part, accepted, arrival in zip(run.inputs, run.parts, run.accepted, run.arrived, strict=True)
    )


def _part_names(run: _IngestRun, files: Sequence[SourceFile]) -> tuple[str, ...]:
    """The folders that the snapshot's parts are in, and the moments at which their rows arrived."""
    parts = {pack_name(part.digest) for part in (*run.parts, *run.accepted)}
    return tuple(sorted(parts | {file.arrivals.key.split("/")[-2] for file in files if file.arrivals is not None}))
