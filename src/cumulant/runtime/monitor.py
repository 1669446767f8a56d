"""Monitoring: the rows of a table or of the prediction log, window by window, against a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core import units
from cumulant.core.errors import DataError, UsageError, did_you_mean
from cumulant.core.events import Actor
from cumulant.core.ids import digest
from cumulant.core.progress import Progress, silent
from cumulant.core.version import __version__
from cumulant.monitoring import alerts, drift
from cumulant.monitoring.drift.words import day, sentence
from cumulant.monitoring.events import DriftAlarm, DriftLooked
from cumulant.monitoring.labels import Labels, labelled
from cumulant.monitoring.spec import DriftSpec
from cumulant.monitoring.tables import ANSWER, TOLD, Table, open_table
from cumulant.runtime.actions import check
from cumulant.runtime.alerts.flow import observe
from cumulant.runtime.watching.days import Kept, LogWindows, content_of, spoken
from cumulant.runtime.watching.page import Look, check_page, write_page
from cumulant.runtime.watching.reference import served_reference
from cumulant.runtime.watching.windows import TableWindows, as_flags, flags, served_table

if TYPE_CHECKING:
    from cumulant.monitoring.drift import Cut, Finding, Findings, Joint, Profile, Role
    from cumulant.ports.access import Principal
    from cumulant.project import Project
    from cumulant.runtime.watching.reference import Served
    from cumulant.runtime.watching.windows import Windows


#: journal rows: what the last event of a look at the rows of a model said
_LOOKED = "drift_looked"
#: findings whose segments are looked for, and the most values of a column whose values are segments
_EXPLAINED, _FEW_VALUES = 10, 50
#: kinds of change that a comparison without labels can show, and what to do about each
_NEXT: Mapping[str, str] = {
    "data_fault": "look at what delivers this column; the model is not at fault, and training on these rows would be",
    "covariate": "see whether labels or estimates show a loss; the change alone is no reason to train again",
    "prior": "compare with labels when they come: the share of positives moved, or what the model says of them",
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is compared with what. `windows` equal parts, or windows of the length that the spec says.

    `key`: the columns by which labels find their row.
    `hashed`: columns that a log holds as keyed hashes; against a file with their values they are not watched.
    `before`: rows of the log of that moment and later are not looked at. `out`: a page that shows what was found.
    """

    predictions: Path
    reference: Path | None
    labels: Path | None = None
    label: str | None = None
    key: tuple[str, ...] = ()
    time: str | None = None
    windows: int | None = None
    columns: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    before: datetime | None = None
    joint: bool = False
    hashed: tuple[str, ...] = ()
    out: Path | None = None

    @property
    def narrowed(self) -> bool:
        """Whether it is a look at less than the newest rows with all their columns."""
        return bool(self.columns or self.answers or self.windows or self.until is not None)


class Monitored(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and how the table was read.

    `unknown`: columns that the settings name and neither side has. `unread`: columns that no feature of the served
    version reads. `others`: rows of the log that other versions answered, which are left out.
    """

    predictions: str
    reference: str
    rows: int
    time: str | None
    answers: tuple[str, ...]
    label: str | None
    labelled: int
    label_key: tuple[str, ...]
    only_here: tuple[str, ...]
    only_in_reference: tuple[str, ...]
    unknown: tuple[str, ...]
    unread: tuple[str, ...] = ()
    others: int = 0
    drift: Findings
    joint: Joint | None = None


def monitor(
    asked: Asked, spec: DriftSpec, *, served: Served | None = None, keep: Path | None = None
) -> Monitored:  # fmt: skip
    """Compare a table's rows with a reference's; with `served`, a log's of that version with its training's.

    `keep`: a folder for the profiles of a log's days, so that a day that was counted is not read again.

    Raises:
        DataError: a file or column is not there or cannot be read, there are no rows, or nothing in common.
        UsageError: the labels cannot be told from their key, no reference is named, or `asked.out` is no page.
        StorageError: a file of the log is damaged, or the page cannot be written.
    """
    if asked.out is not None:
        check_page(asked.out)
    length = units.duration(spec.window)
    if length <= timedelta(0):
        raise UsageError("a window has no length", subject=spec.window, hint="write monitoring: {drift: {window: 1d}}")
    now, before, said = _sides(asked, length, served, keep)
    label = None if said is None else said.name
    answers = asked.answers or now.answers
    _require(now, [*asked.columns, *answers])
    roles = _roles(now, asked.columns, answers, label, spec)
    hashed = (
        [] if before.is_log else [name for name in asked.hashed if roles.pop(name, None) and name in before.columns]
    )
    shared: dict[str, Role] = {name: role for name, role in roles.items() if name in before.columns}
    if not shared:
        raise DataError(
            "predictions and reference have no column in common", subject=before.name,
            hint=f"predictions have {', '.join(list(roles)[:8])}; the reference has {', '.join(before.columns[:8])}",
        )  # fmt: skip
    reference, current = now.against(before, shared)
    found = drift.compare(
        reference, current, spec, looks=asked.windows, weights=None if served is None else served.weights
    )
    sides = _Sides(before, now, reference, max(spec.spans))
    carried = tuple(_carried(one, found, sides) for one in found.findings[:_EXPLAINED])
    unlike = tuple(drift.Skipped(name, "the log holds hashes of it, and the reference values") for name in hashed)
    found = msgspec.structs.replace(
        found, findings=(*carried, *found.findings[_EXPLAINED:]), skipped=(*found.skipped, *unlike)
    )
    weighed = {*spec.weights}
    told = Monitored(
        predictions=now.name,
        reference=before.name,
        rows=sum(block.rows for block in found.windows),
        time=now.time,
        answers=tuple(name for name in answers if name in shared),
        label=label,
        labelled=0 if said is None else said.known,
        label_key=() if said is None else said.key,
        only_here=tuple(name for name in roles if name not in shared and not _is_key(now, name, said)),
        only_in_reference=_lacking(now, before, asked, spec, served),
        unknown=tuple(sorted({*spec.ignore, *weighed} - {*now.columns, *before.columns})),
        unread=()
        if served is None
        else tuple(name for name in served.unread if name in shared and name not in weighed),
        others=now.others,
        drift=found,
        joint=_jointly(sides, found.newest) if asked.joint else None,
    )
    if asked.out is not None:
        look = Look(now.name, before.name, found, told.joint, reference, current, notes(told))
        write_page(asked.out, look, spec, now=datetime.now(UTC))
    return told


def notes(found: Monitored) -> tuple[str, ...]:
    """What a reader should know to trust the answer."""
    told = found.drift
    lists = {
        "not in the reference": found.only_here,
        "only in the reference": found.only_in_reference,
        "no feature of the model reads them, so they count little": found.unread,
        "no such column, though the settings name it": found.unknown,
    }
    facts = {
        "rows are taken as independent: the reference has no times from which dependence could be learned":
            told.assumed_independent,
        f"{found.labelled:,} rows have a label ({found.label}), found by {', '.join(found.label_key)}":
            found.label is not None,
        f"{told.left_out:,} rows have no readable time and were left out": told.left_out > 0,
        f"{found.others:,} rows that other versions answered were left out": found.others > 0,
    }  # fmt: skip
    return (
        *(text for text, holds in facts.items() if holds),
        *(f"{text}: {', '.join(names)}" for text, names in lists.items() if names),
        *(f"not watched: {one.name} ({one.reason})" for one in told.skipped),
    )


def monitor_project(
    project: Project,
    asked: Asked,
    folder: Path,
    spec: DriftSpec,
    *,
    principal: Principal,
    quiet: bool = False,
    progress: Progress = silent,
) -> Monitored:
    """Compare the project's prediction log, `folder`, with a reference; report it as an event, and alert by its rules.

    Without a reference it is the champion's log and what the champion was trained and tested on. A look at the past, or
    at some of the columns, alters no alerts: what it does not see is not over. With `quiet` there is an event only
    where it would say other than the last one.

    Raises:
        RefusedError: the principal may not.
        DataError, UsageError, StorageError: as `monitor`.
        UsageError, NotFoundError: as `served_reference`.
    """
    check(project.access(), principal, "monitor.run", project.name)
    personal = {name for source in project.spec.data.values() for name in source.personal}
    served = served_reference(project, principal=principal, progress=progress) if asked.reference is None else None
    asked = replace(asked, predictions=folder, hashed=tuple(sorted(personal)))
    found = monitor(asked, spec, served=served, keep=project.state / "monitoring" / "profiles")
    _report(project, _fact(project.name, found), principal, quiet=quiet)
    if not asked.narrowed and spec.ignore == project.spec.monitoring.drift.ignore:
        scopes = [(project.name, rule) for rule in _NEXT]
        observe(project, _alerting(project.name, found), principal=principal, looked=scopes, at=asked.before)
    return found


def _report(project: Project, fact: DriftLooked, principal: Principal, *, quiet: bool) -> None:
    said = msgspec.to_builtins(fact)
    row = project.journal().get(_LOOKED, fact.model)
    if quiet and row is not None and msgspec.json.encode(row.value) == msgspec.json.encode(said):
        return
    with project.journal().transaction(actor=Actor(principal.name)) as transaction:
        transaction.put(_LOOKED, fact.model, said)
        transaction.emit(fact)


def _alerting(model: str, found: Monitored) -> Iterator[alerts.Finding]:
    """What is alarming in the newest window, for whoever is told of alerts; the rule is named as the kind of change."""
    together: dict[tuple[str, str], list[Finding]] = {}
    for one in found.drift.active:
        together.setdefault((one.kind, one.feature), []).append(one)
    for (kind, feature), several in together.items():
        yield alerts.Finding(
            model=model,
            rule=kind,
            subject=feature,
            kind=kind,
            # What a client sent goes into no message.
            moved=f"{feature}: {'; '.join(sentence(one, examples=False) for one in several)}",
            since=min(units.from_micros(one.since.start) if one.since.timed else datetime.now(UTC) for one in several),
            next=_NEXT.get(kind, ""),
        )


def _sides(
    asked: Asked, length: timedelta, served: Served | None, keep: Path | None
) -> tuple[Windows, TableWindows, Labels | None]:
    """Rows and reference, and what is known of the rows' labels."""
    of = None if served is None else (served.version.name, served.version.version)
    if keep is not None and asked.labels is None and asked.windows is None and asked.time is None:
        before, key = _before(asked, served, spoken(asked.predictions))
        reference = _windows(before, None, length, served)
        kept = Kept(keep, digest([key, of, length.total_seconds(), __version__]))
        since, until = asked.since, asked.until
        now = LogWindows(asked.predictions, reference, kept, length, since, until, of, asked.before)
        return now, reference, None
    table = open_table(asked.predictions, since=asked.since, until=asked.until, of=of).timed(asked.time)
    before, _ = _before(asked, served, frozenset(table.columns if table.is_log else ()))
    said = None
    if asked.labels is not None:
        said = labelled(table, asked.labels, asked.label, asked.key)
        # What a served version was trained on has one truth, whatever the file calls it.
        said = said if served is None else said.called(served.truth)
        table = said.table
    size = -(-table.count() // asked.windows) if asked.windows else None
    table = table if served is None else as_flags(table, flags(before))
    return _windows(table, size, length, None), _windows(before, size, length, served), said


def _before(asked: Asked, served: Served | None, logged: frozenset[str]) -> tuple[Table, object]:
    """The reference, and a name of its content. `logged`: columns of the log that is compared with it."""
    if served is not None:
        return served_table(served.path, f"the training and test rows of {served.version.uri}"), served.key
    if asked.reference is None:
        raise UsageError("nothing says what the rows are compared with", hint="name it with --reference FILE")
    before = _named_alike(open_table(asked.reference), logged)
    if asked.time is not None and asked.time in before.columns:
        before = before.timed(asked.time)
    return before, [str(asked.reference.absolute()), before.columns, content_of(asked.reference)]


def _windows(table: Table, size: int | None, length: timedelta, served: Served | None) -> TableWindows:
    if not table.count():
        raise DataError(f"{table.name} has no rows", subject=table.name, hint="look at the file, --since and --until")
    tested = () if served is None else (*table.answers, *(name for name in [served.truth] if name in table.columns))
    return TableWindows(table, _cut(table, size, length), tested)


def _is_key(now: Windows, name: str, said: Labels | None) -> bool:
    """Whether a column that the reference lacks only names the rows: then it is not missing there."""
    if said is not None and name in said.key:
        return True
    return isinstance(now, TableWindows) and not now.is_log and now.table.tells_apart(name)


def _require(now: Windows, names: Sequence[str]) -> None:
    for name in names:
        if name not in now.columns:
            hint = did_you_mean(name, now.columns) or f"columns: {', '.join(now.columns[:12])}"
            raise DataError(f"{now.name} has no column {name}", subject=name, hint=hint)


@dataclass(frozen=True)
class _Sides:
    before: TableWindows
    now: Windows
    reference: Profile
    #: windows that are looked at together at most
    span: int


def _jointly(sides: _Sides, last: int) -> Joint | None:
    """The windows up to the newest with enough rows against the reference, by all features together."""
    names = [one.name for one in sides.reference.columns if one.role == "feature"]
    now, codes = sides.now.rows(
        [name for name in names if name in sides.now.columns], max(last + 1 - sides.span, 0), last
    )
    before, own = sides.before.all(names), sides.before.cut.codes
    if codes is None or own is None:
        return drift.jointly(before, now, sides.reference)
    return drift.jointly(before, now, sides.reference, blocks=(own, codes))


def _segments(reference: Profile) -> list[str]:
    """The columns whose values may be segments: features with few categories."""
    return [
        one.name
        for one in reference.columns
        if one.role == "feature" and one.cells.kind == "category" and len(one.cells.values) <= _FEW_VALUES
    ]


def _carried(one: Finding, found: Findings, sides: _Sides) -> Finding:
    """The finding with the segments that carry it, in its newest windows: a long one costs no more."""
    by = [name for name in _segments(sides.reference) if name != one.feature and name in sides.now.columns]
    if not by or one.what == "absent":
        return one
    column = next(column for column in sides.reference.columns if column.name == one.feature)
    first, last = found.windows.index(one.since), found.windows.index(one.until)
    now, _ = sides.now.rows([one.feature, *by], max(first, last + 1 - sides.span), last)
    then = sides.before.all([one.feature, *by])
    return msgspec.structs.replace(one, segments=drift.segments(then, now, column, one.what, by))


def _cut(table: Table, size: int | None, length: timedelta) -> Cut:
    """Equal windows of `size` rows where asked for, else windows of time, else all rows as one."""
    times = None if table.time is None else table.series(table.time)
    if size is not None:
        return drift.by_rows(table.count(), size, times)
    return drift.whole(table.count()) if times is None else drift.by_time(times, length)


def _roles(
    table: Windows, columns: tuple[str, ...], answers: tuple[str, ...], label: str | None, spec: DriftSpec
) -> dict[str, Role]:
    """What is watched, in the order of the table."""
    left_out = {*spec.ignore, table.time, *(TOLD if table.is_log else ())}
    wanted = columns or tuple(name for name in table.columns if name not in left_out)
    roles: dict[str, Role] = dict.fromkeys(wanted, "feature")
    roles |= {name: "prediction" for name in answers if name not in left_out}
    return roles | ({} if label is None else {label: "label"})


def _named_alike(before: Table, logged: frozenset[str]) -> Table:
    """A log names the fields of answers `answer.FIELD`; a reference that is a file may have them plainly."""
    if before.is_log:
        return before
    plain = {name: ANSWER + name for name in before.answers if ANSWER + name in logged}
    named = tuple(plain.get(name, name) for name in before.columns)
    return replace(before, rows=before.rows.rename(plain), columns=named, answers=tuple(plain.values()))


def _lacking(
    now: Windows, before: TableWindows, asked: Asked, spec: DriftSpec, served: Served | None
) -> tuple[str, ...]:
    """Columns of the reference that the predictions lack; a file of training rows also has what no request carries."""
    if asked.columns:
        return ()
    known = {*now.columns, *spec.ignore, *TOLD, before.time, *(() if served is None else before.tested)}
    return tuple(name for name in before.columns if name not in known)


def _fact(model: str, found: Monitored) -> DriftLooked:
    told = found.drift
    return DriftLooked(
        model=model,
        rows=found.rows,
        windows=len(told.windows),
        alarming=sum(told.alarming),
        until=day(told.windows[-1]),
        alarms=tuple(
            DriftAlarm(
                feature=one.feature, change=one.kind, what=one.what, effect=one.effect, since=day(one.since),
                active=one.active,
            )
            for one in told.findings
        ),
    )  # fmt: skip
