"""Snapshots and tables that are computed from them.

A snapshot is named by its content and never changes. An erasure records the subject's hash; the sources are read again
without its rows, which gives new snapshots, and snapshots that held the subject are deleted with their tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.flows.data.erasures import RecordedErasure, read_erasure, write_erasure
from cumulant.flows.data.validate import REFUSED, SNAPSHOT, snapshots_of
from cumulant.flows.ledger.ledger_records import STEP, read_step
from cumulant.flows.registry.model_record import MODEL, ModelRecord
from cumulant.flows.subjects.places import Receipt, Subject, SubjectPlace, kept_receipt, status_after, total
from cumulant.flows.training.chosen_rows import CHOSEN

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.snapshot import Snapshot
    from cumulant.flows.ledger.run_context import Context
    from cumulant.project.project import Project

STORE, DERIVED, REFERENCES, MODELS = "snapshots", "feature tables", "references", "models"
#: columns with whole rows or facts as text: of rows that could not be read, and of what is known of a part
_TEXTS = ("__text", "json")
_FEATURES, _REPRODUCTIONS = "features/", "reproductions/"


def find_rows(context: Context, subject: Subject) -> list[SubjectPlace]:
    """The stored tables of sources that hold the subject."""
    return [
        SubjectPlace(store=STORE, where=key, rows=rows)
        for source, column in subject.columns.items()
        for key, rows in _matching_tables(context.project, f"data/{source}/", column, subject)
    ]


def _matching_tables(project: Project, prefix: str, column: str, subject: Subject) -> Iterator[tuple[str, int]]:
    """The keys of tables with rows of the subject, and how many."""
    tables = project.tables()
    for key in tables.keys(prefix):
        rows = count_rows(tables.scan(key), column, subject)
        if rows:
            yield key, rows


def count_rows(rows: pl.LazyFrame, column: str, subject: Subject) -> int:
    """The rows of a table that are the subject's, or whose texts name it."""
    import polars as pl

    schema = rows.collect_schema()
    conditions = [pl.col(column).cast(pl.String, strict=False) == subject.value] if column in schema else []
    conditions += [
        pl.col(name).str.contains(subject.value, literal=True)
        if name == "__text"
        else pl.col(name).str.contains(msgspec.json.encode(subject.value).decode(), literal=True)
        for name in _TEXTS
        if schema.get(name) == pl.String
    ]
    if not conditions:
        return 0
    return int(rows.select(pl.any_horizontal(conditions).fill_null(value=False).sum()).collect().item())


def erase_rows(context: Context, subject: Subject) -> Receipt:
    """Record the erasure, read the sources again without the subject's rows, and delete what held them."""
    project, places = context.project, find_rows(context, subject)
    _record(context, subject)
    try:
        newest, _ = snapshots_of(context, subject.columns)
    except CumulantError as error:
        reason = (
            f"the next run that can read the sources leaves the rows out; now: {project.vault.redact(error.message)}"
        )
        return Receipt(store=STORE, status="pending", rows=total(places), reason=reason)
    table_keys = {place.where for place in places}
    retired = {source: _retired(project, newest[source], table_keys) for source in subject.columns}
    removed = _delete_tables(project, newest, retired)
    _delete_records(context, retired)
    remaining = find_rows(context, subject)
    return Receipt(
        store=STORE,
        status=status_after(places, remaining),
        rows=total(places),
        rewritten=tuple(removed),
        reason=f"{total(remaining):,} rows are left in {remaining[0].where}" if remaining else "",
    )


def _record(context: Context, subject: Subject) -> None:
    """The rows by which sources are read without the subject, also if it had been admitted again."""
    with context.transaction() as transaction:
        for source in subject.columns:
            erasure = read_erasure(transaction, source, subject.hash)
            if erasure is None or erasure.admitted is not None:
                write_erasure(transaction, source, subject.hash, RecordedErasure(at=context.now()))


def _snapshots(project: Project, source: str) -> list[Snapshot]:
    from cumulant.data.snapshot import Snapshot

    rows = [*project.journal().rows(SNAPSHOT)]
    rows += [row for row in (project.journal().get(REFUSED, source),) if row is not None]
    known = (msgspec.convert(row.value, Snapshot) for row in rows)
    return [snapshot for snapshot in known if snapshot.source == source]


def _retired(project: Project, newest: Snapshot, table_keys: Iterable[str]) -> list[Snapshot]:
    """The snapshots of a source that need one of the tables, or a table that is not there any more."""
    from cumulant.data.retention import needs

    tables, keys = project.tables(), set(table_keys)
    return [
        snapshot
        for snapshot in _snapshots(project, newest.source)
        if snapshot.id != newest.id
        and (needs(snapshot, keys) or any(tables.find(part.key) is None for part in snapshot.parts))
    ]


def _delete_tables(project: Project, newest: dict[str, Snapshot], retired: dict[str, list[Snapshot]]) -> list[str]:
    """Delete the tables of retired snapshots; before them those that were computed from their rows."""
    from cumulant.data.retention import removable_keys

    tables = project.tables()
    gone = {snapshot.id for snapshots in retired.values() for snapshot in snapshots}
    keys = derived_tables(project, gone) if gone else []
    for source, snapshots in retired.items():
        ids = {snapshot.id for snapshot in snapshots}
        retained = [snapshot for snapshot in _snapshots(project, source) if snapshot.id not in ids]
        keys += removable_keys(source, [*retained, newest[source]], tables)
    for key in keys:
        tables.delete(key)
    return keys


def derived_tables(project: Project, snapshots: Iterable[str]) -> list[str]:
    """Tables of features computed from these snapshots, and rows that were chosen or reproduced from any."""
    tables, gone, keys = project.tables(), set(snapshots), []
    for record in map(read_step, project.journal().rows(STEP)):
        made_of = record.inputs.get("snapshots") if isinstance(record.inputs, dict) else None
        if record.name == "features" and record.result and isinstance(made_of, dict) and gone & {*made_of.values()}:
            table = record.result.get("table")
            keys += [str(table["key"])] if isinstance(table, dict) else []
    present = set(tables.keys(_FEATURES))
    others = [key for prefix in (_REPRODUCTIONS, f"{CHOSEN}/") for key in tables.keys(prefix)]
    return [*sorted({*keys} & present), *others]


def _delete_records(context: Context, retired: dict[str, list[Snapshot]]) -> None:
    """Delete the records of retired snapshots, whose profiles may name values."""
    with context.transaction() as transaction:
        for source, snapshots in retired.items():
            for snapshot in snapshots:
                transaction.delete(SNAPSHOT, snapshot.id)
                refused = transaction.get(REFUSED, source)
                if refused is not None and refused.value.get("id") == snapshot.id:
                    transaction.delete(REFUSED, source)


def find_derived(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Feature tables that have the subject's column. Others hold its rows too, and go with their snapshots."""
    return [
        SubjectPlace(store=DERIVED, where=key, rows=rows)
        for column in subject.names
        for prefix in (_FEATURES, _REPRODUCTIONS, f"{CHOSEN}/")
        for key, rows in _matching_tables(context.project, prefix, column, subject)
    ]


def erase_derived(context: Context, subject: Subject) -> Receipt:
    """Delete what is left of them; those computed from retired snapshots are gone with these."""
    places = find_derived(context, subject)
    for place in places:
        context.project.tables().delete(place.where)
    return Receipt(
        store=DERIVED,
        status="erased" if places else "nothing",
        rows=total(places),
        rewritten=tuple(place.where for place in places),
        reason="tables computed from deleted snapshots were deleted with them",
    )


def find_references(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Rows of training that monitoring and the review queue compare with; personal values are keyed hashes there."""
    import polars as pl

    objects, places = context.project.objects(), []
    for prefix in ("monitoring/", "review/"):
        for key in objects.keys(prefix):
            with objects.open(key) as reference:
                for path in sorted(reference.rglob("*.parquet")):
                    rows = pl.scan_parquet(path)
                    names = subject.names & set(rows.collect_schema())
                    named = [pl.col(name).cast(pl.String, strict=False).is_in(subject.texts) for name in names]
                    count = int(rows.select(pl.any_horizontal(named).sum()).collect().item()) if named else 0
                    places += [SubjectPlace(store=REFERENCES, where=key, rows=count)] if count else []
    return places


def keep_references(context: Context, subject: Subject) -> Receipt:
    reason = "`cumulant data clean` deletes them once a version that was trained since has replaced theirs"
    return kept_receipt(REFERENCES, find_references(context, subject), reason)


def find_models(context: Context, subject: Subject) -> list[SubjectPlace]:
    """Versions that were trained on a snapshot that holds the subject, or that was deleted because it did."""
    from cumulant.data.retention import needs

    journal, table_keys = context.project.journal(), {place.where for place in find_rows(context, subject)}
    known = [snapshot for source in subject.columns for snapshot in _snapshots(context.project, source)]
    present = {snapshot.id for snapshot in known}
    holding = {snapshot.id for snapshot in known if needs(snapshot, table_keys)}
    places = []
    for row in journal.rows(MODEL):
        used = msgspec.convert(row.value, ModelRecord).snapshots
        trained = {used[source] for source in subject.columns if source in used}
        if trained & holding or trained - present:
            places.append(SubjectPlace(store=MODELS, where=row.key, rows=0))
    return places


def keep_models(context: Context, subject: Subject) -> Receipt:
    places = find_models(context, subject)
    names = ", ".join(place.where for place in places)
    reason = f"trained on deleted rows or on rows of the subject: {names}; train, release, and delete these versions"
    return kept_receipt(MODELS, places, reason)
