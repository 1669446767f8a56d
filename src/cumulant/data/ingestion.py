"""From a source's files to a snapshot: read what is new, check every row, keep what passes, show what does not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from cumulant.core.errors import DataError
from cumulant.core.ids import digest
from cumulant.core.plan import Field, KnownAt
from cumulant.core.progress import Progress, silent
from cumulant.core.system.memory import memory_limit
from cumulant.core.units import duration, from_micros, micros
from cumulant.data.checks.batch_checks import broken_shares
from cumulant.data.checks.batch_freshness import past_events, stale
from cumulant.data.checks.batch_rows import Sizes, broken_rows, with_sizes
from cumulant.data.checks.batches import NewFile, deliveries, gathered, is_grown
from cumulant.data.checks.breach import AbsentColumnError, SourceBreachError, as_change
from cumulant.data.checks.distribution import broken_distributions
from cumulant.data.checks.late_refusals import refuse_dangling, refuse_repeats
from cumulant.data.checks.limits import refuse_unusable
from cumulant.data.checks.quarantine import example_of, quarantined
from cumulant.data.checks.rules import RuleCompiler, refuse_unknown
from cumulant.data.checks.severity import failing
from cumulant.data.checks.verdict import first_of, hint_for, row_checks, table_checks, verdicts
from cumulant.data.corrections.arrivals import Arrival, arrivals, in_order
from cumulant.data.corrections.versions import Versions, refuse_undecidable, versions_of
from cumulant.data.files.file_checks import (
    GoneFiles,
    copy_warnings,
    empty_path_warnings,
    gone_files,
    list_warnings,
    padding_warnings,
    skipped_warnings,
)
from cumulant.data.files.file_differences import difference_warnings
from cumulant.data.files.inputs import Input, of_files, of_frame
from cumulant.data.files.listing import Listing, list_files
from cumulant.data.files.unreadable_files import unreadable_check
from cumulant.data.parts.memory_budget import Room
from cumulant.data.parts.packs import blocks_of, profiles_of, stored_part
from cumulant.data.parts.part import PartFacts, Workshop
from cumulant.data.parts.part_store import compacted, parts_of, read_as_text
from cumulant.data.prepare import load
from cumulant.data.profile import Profile, merge
from cumulant.data.proposal.contract import contract_of, merged
from cumulant.data.schema import changes, fields_of, text_columns
from cumulant.data.shift import Shifts, shifts
from cumulant.data.snapshot import READING, SchemaChange, Shift, Snapshot, SourceFile, UnreadableFile, pack_name
from cumulant.data.spec import VERDICT_KEYS, SourceSpec, is_delay
from cumulant.ports.files import Files
from cumulant.ports.tables import TableStore

#: attributes of a declaration that do not change which rows a snapshot holds
_NOT_IDENTITY = (
    "path", "quarantine", "severity", "batch", "table", "on_schema_change", "keep", "contract", "missing_files",
)  # fmt: skip


def ingest(
    name: str,
    spec: SourceSpec,
    *,
    root: Path,
    files: Files,
    tables: TableStore,
    previous: Snapshot | None,
    now: datetime,
    others: Mapping[str, Snapshot] | None = None,
    frame: object | None = None,
    used: Collection[str] | None = None,
    rule_compiler: RuleCompiler | None = None,
    measure: Shifts = shifts,
    progress: Progress = silent,
    force: bool = False,
    listing: Listing | None = None,
    room: Room | None = None,
) -> Snapshot:
    """The snapshot of source `name` as it is now. Only new or changed files are read; with `force` the content of each
    decides what is changed, not its size and time.

    `previous` is the last accepted snapshot; `others` are the snapshots that `references` may name; `frame`
    stands in for the files, and `listing` says which there are (None: they are listed); `used` names the columns whose
    loss matters, a mapping also what uses each (None: all matter). `rule_compiler` turns a condition of `table.where`
    into an expression; without it conditions are SQL. `room` is the memory that may be taken (None: half of the
    machine's).

    Raises:
        SourceBreachError: more rows refused than declared, a rule on the whole broken, or a schema change that
            the policy refuses. Its `snapshot` is complete, so that the rows can be inspected.
        ContractBreachError: a declared column is gone that the previous snapshot had.
        DataError: a source that cannot be read as declared.
        DefinitionError: a rule or `prepare` that cannot be used.
        UsageError: a limit that cannot be evaluated.
        UserCodeError: `prepare` raised.
    """
    root = root.absolute()
    contract = contract_of(spec, source=name, root=root)
    spec = spec if contract is None else merged(spec, contract)
    refuse_unusable(spec)
    prepare = load(spec.prepare, root, quiet=bool(spec.personal)) if spec.prepare else None
    room = Room(memory_limit(None)) if room is None else room
    shop = Workshop(name, spec, tables, prepare, rule_compiler, room)
    declaration = _declaration(spec, prepare.digest if prepare else None)
    if frame is not None:
        listing = None
    elif listing is None:
        listing = list_files(spec, source=name, root=root, files=files)
    known = None if force else previous
    inputs = [of_frame(frame, spec, name)] if listing is None else of_files(listing, spec, root, files, known)
    same = previous is not None and previous.declaration == declaration
    files_before, tried = (previous.files, previous.unreadable) if same and previous else ((), ())
    try:
        inputs, parts, unreadable = parts_of(
            inputs, files_before, shop, declaration, progress, unreadable=() if force else tried
        )
    except AbsentColumnError as error:
        raise as_change(error, previous) from error
    parts = as_read = compacted(parts, shop)
    if not any(part.rows_in for part in parts):
        raise DataError(f"source {name} has no rows", subject=name, hint="look at its files and path")
    fields = fields_of(parts, spec, previous)
    parts = read_as_text(parts, inputs, [text_columns(part, fields) for part in parts], shop, progress)
    fields = fields_of(parts, spec, previous)
    try:
        refuse_unknown(spec, [field.name for field in fields], source=name)
        refuse_undecidable(spec, fields, name)
    except AbsentColumnError as error:
        raise as_change(error, previous) from error
    progress(f"{name}: checking across files", 0.95)
    kept = refuse_dangling(parts, fields, shop, others or {})
    arrived = arrivals(inputs, kept, fields, shop, previous=previous, now=now)
    kept, arrived, repeats = refuse_repeats(kept, arrived, fields, shop)
    versions = versions_of(kept, arrived, fields, shop)
    unchecked = () if contract is None else contract.notes
    warnings = [] if listing is None else skipped_warnings(listing, root)
    gone = (
        None
        if listing is None or previous is None
        else gone_files(previous, inputs, parts, spec, root=root, unreadable=unreadable)
    )
    bill = _Bill(
        name, spec, declaration, inputs, as_read, parts, kept, arrived, repeats, versions, fields, previous,
        others or {}, now, unchecked, warnings, gone, unreadable,
    )  # fmt: skip
    snapshot = _assembled(bill, shop, used, measure)
    progress(f"{name}: {snapshot.rows_passed:,} of {snapshot.rows_in:,} rows passed", 1.0)
    if snapshot.breaches:
        hint = hint_for(snapshot, lambda check: example_of(check, snapshot, shop))
        said = "; ".join(first_of(snapshot.breaches))
        raise SourceBreachError(f"source {name}: {said}", snapshot=snapshot, hint=hint)
    return snapshot


def _declaration(spec: SourceSpec, prepare: str | None) -> str:
    """Digest of everything declared that decides which rows pass, and how they are read."""
    declared = spec.plain()
    for attribute in _NOT_IDENTITY:
        declared.pop(attribute, None)
    for column, rule in spec.rules.items():
        for key in VERDICT_KEYS:
            declared["rules"][column].pop(key, None)
        if rule.gives_verdicts_only:
            del declared["rules"][column]
    return digest([READING, declared, spec.table.where, prepare])


@dataclass(frozen=True)
class _Bill:
    """What a snapshot is made from."""

    name: str
    spec: SourceSpec
    declaration: str
    inputs: Sequence[Input]
    as_read: Sequence[PartFacts]
    parts: Sequence[PartFacts]
    kept: Sequence[PartFacts]
    arrived: Sequence[Arrival]
    repeats: Sequence[str]
    versions: Versions
    fields: tuple[Field, ...]
    previous: Snapshot | None
    others: Mapping[str, Snapshot]
    now: datetime
    unchecked: tuple[str, ...]
    warnings: Sequence[str]
    gone: GoneFiles | None
    unreadable: tuple[UnreadableFile, ...]

    @property
    def identity(self) -> str:
        named = {rule.references.partition(".")[0] for rule in self.spec.rules.values() if rule.references}
        references = {source: self.others[source].id for source in named}
        types = [(field.name, field.dtype) for field in self.fields]
        made = [READING, self.name, [item.content for item in self.inputs], self.declaration, references, types]
        made += [["unreadable", file.url, file.content] for file in self.unreadable]
        return digest([*made, *self._decided_by_arrival])

    @property
    def _decided_by_arrival(self) -> list[str]:
        """What tells apart snapshots of equal files that arrived in another order; nothing where they agree."""
        repeats = [] if in_order(self.arrived) else list(self.repeats)
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

    def new_files(self, shop: Workshop) -> list[NewFile]:
        """New or changed files, each with the part that was accepted of it before."""
        before = {file.url: file for file in self._known}
        result = []
        for item, read, kept in self._fresh():
            file = before.get(item.url)
            stored = (
                [] if file is None else [part for name in file.parts if (part := stored_part(name, shop)) is not None]
            )
            grown = bool(stored) and is_grown(read, stored[0], self.fields, shop)
            result.append(NewFile(item.url, read, kept, stored[-1] if stored else None, grown))
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

    def _fresh(self) -> list[tuple[Input, PartFacts, PartFacts]]:
        contents = {file.content for file in self._known}
        files = {(file.url, file.content) for file in self._known}  # all empty files have one content
        return [
            (item, read, kept)
            for item, read, kept in zip(self.inputs, self.parts, self.kept, strict=True)
            if item.content not in contents or (not read.rows_in and (item.url, item.content) not in files)
        ]


def _assembled(bill: _Bill, shop: Workshop, used: Collection[str] | None, measure: Shifts) -> Snapshot:
    profile = merge(profiles_of(bill.kept, shop), bill.fields)
    ranges = tuple(block.range for block in blocks_of(bill.kept))
    refused, dropped = sum(part.rows_refused for part in bill.kept), sum(part.rows_dropped for part in bill.kept)
    rows_in = sum(part.rows_in for part in bill.kept)
    identity, versions = bill.identity, bill.versions
    rows = profile.rows - versions.superseded - versions.repeated - versions.deletions
    quarantine, by_rule = quarantined(bill.inputs, bill.kept, shop, identity)
    checks = row_checks(bill.kept, bill.spec) + table_checks(
        bill.spec, profile, bill.now, rows=rows, newest=_newest_event(bill, shop, profile)
    )
    checks += () if bill.gone is None else (bill.gone.check(bill.spec),)
    if bill.unreadable:
        checks += (unreadable_check(bill.unreadable, len(bill.inputs) + len(bill.unreadable), bill.spec),)
    changed, moved = _against_previous(bill, shop, used, measure)
    columns = {check.rule: check.column for check in checks}
    new = bill.new_files(shop)
    delivered = deliveries(new, shop)
    batches = gathered(new, delivered, shop, checked=rows_in - dropped)
    before = bill.previous.batches if bill.previous is not None else {}
    broken = broken_shares(batches, bill.spec, columns, before)
    broken += broken_rows(delivered, bill.spec, bill.earlier_batches)
    broken += stale(new, shop, bill.now) if bill.previous is not None else ()
    broken += broken_distributions(new, batches, bill.fields, shop, bill.previous)
    failed = failing(by_rule, columns, bill.spec).total()
    verdict = verdicts(bill.spec, checks, changed, broken, checked=rows_in - dropped, refused=refused, failing=failed)
    stopped = tuple(text for severity, text in verdict if severity == "fail")
    same = bill.previous is not None and bill.previous.id == identity and not stopped
    files = _files(bill, shop)
    return Snapshot(
        id=identity,
        source=bill.name,
        declaration=bill.declaration,
        parts=ranges,
        fields=bill.fields,
        key=bill.spec.keys,
        event_time=bill.spec.time.column if bill.spec.time else None,
        known=known_at(bill.spec),
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
        batches=with_sizes(bill.earlier_batches, delivered),
        batch_checks=bill.previous.batch_checks if same and bill.previous else broken,
        changes=bill.previous.changes if same and bill.previous else changed,
        shifts=bill.previous.shifts if same and bill.previous else moved,
        unchecked=bill.unchecked,
        unreadable=bill.unreadable,
        warnings=_warnings(bill),
        profile=profile,
        bytes=sum(rows.bytes for rows in ranges),
        csv_bytes=sum(part.csv_bytes for part in bill.kept),
        accepted=bill.previous.accepted if same and bill.previous else bill.now,
        processed=tuple(url for url, _ in bill.fresh),
        part_names=_part_names(bill, files),
        warned=tuple(text for severity, text in verdict if severity == "warn"),
        breaches=stopped,
    )


def _newest_event(bill: _Bill, shop: Workshop, profile: Profile) -> datetime | None:
    """The newest event up to now, where `fresh` is declared.

    Rows after now are left out: a wrong year would make a source fresh that gets no rows any more.
    """
    event = bill.spec.time
    if event is None or bill.spec.table.fresh is None or event.column not in profile:
        return None
    newest = profile[event.column].max
    if newest is not None and newest <= bill.now.timestamp() * 1_000_000:
        return from_micros(int(newest))  # of a personal column none is recorded
    return past_events([block.scan(shop) for block in blocks_of(bill.kept)], event.column, bill.now)[1]


def _warnings(bill: _Bill) -> tuple[str, ...]:
    gone = [*list_warnings(bill.previous), *([] if bill.gone is None else [bill.gone.text])]
    if bill.previous is None:  # later ones are compared with it
        gone += difference_warnings([item.url for item in bill.inputs], bill.as_read)
    gone += copy_warnings(bill.inputs, bill.parts)
    gone += empty_path_warnings(bill.spec, bill.parts)
    gone += [f"{item.url}: {note}" for item, part in zip(bill.inputs, bill.parts, strict=True) for note in part.notes]
    return (*bill.warnings, *gone, *padding_warnings([item.url for item in bill.inputs], bill.parts))


def _against_previous(
    bill: _Bill, shop: Workshop, used: Collection[str] | None, measure: Shifts
) -> tuple[tuple[SchemaChange, ...], tuple[Shift, ...]]:
    """What new files changed, in columns and in values. A change that the declaration itself made is told only."""
    previous, fresh = bill.previous, bill.fresh
    if previous is None or not fresh:
        return (), ()
    found = changes(previous, bill.fresh_as_read, bill.spec, used)
    if previous.declaration != bill.declaration:
        found = tuple(msgspec.structs.replace(change, refused=False) for change in found)
    new = merge(profiles_of([part for _, part in fresh], shop), bill.fields)
    return found, measure(previous.profile, new)


def _files(bill: _Bill, shop: Workshop) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(
            url=item.url,
            sha256=item.sha256,
            bytes=item.bytes,
            rows=made.rows_in,
            stamp=item.stamp,
            parts=tuple(dict.fromkeys((made.digest, kept.digest))),
            partition=item.partition,
            arrived=arrival.accepted,
            arrivals=arrival.stored(kept, shop),
        )
        for item, made, kept, arrival in zip(bill.inputs, bill.parts, bill.kept, bill.arrived, strict=True)
    )


def _part_names(bill: _Bill, files: Sequence[SourceFile]) -> tuple[str, ...]:
    """The folders that the snapshot's parts are in, and the moments at which their rows arrived."""
    parts = {pack_name(part.digest) for part in (*bill.parts, *bill.kept)}
    return tuple(sorted(parts | {file.arrivals.key.split("/")[-2] for file in files if file.arrivals is not None}))


def known_at(spec: SourceSpec) -> dict[str, KnownAt]:
    """Column to when it becomes known. A column that tells a known time is itself known at that time."""
    found = {}
    for column, when in spec.known_columns.items():
        if is_delay(when):
            found[column] = KnownAt(delay_us=micros(duration(when)))
        else:
            found[column] = KnownAt(column=when)
            found.setdefault(when, KnownAt(column=when))
    return found
