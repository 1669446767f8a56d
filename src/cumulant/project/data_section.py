"""The section `data` as policies: how each source is read, checked and kept, with its contract file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from cumulant.core.errors import UsageError
from cumulant.core.plan import KnownAt
from cumulant.core.units import duration, micros, share
from cumulant.data.column_paths import paths_of
from cumulant.data.policy import DistributionRule, QuantileRule, RowShare, SourcePolicy
from cumulant.data.rules.verdict_spec import Range, ShareRange
from cumulant.data.spec import RuleSpec, SourceSpec, is_delay


def declared_source(spec: SourceSpec, *, source: str, root: Path) -> SourcePolicy:
    """The policy of a source with the rules of its contract file.

    Raises:
        DataError: the contract file is missing or is none.
        UsageError: as `source_policy`.
    """
    from cumulant.data.proposal.contract import merge_contract, read_contract

    contract = read_contract(spec, source=source, root=root)
    if contract is None:
        return source_policy(spec)
    return source_policy(merge_contract(spec, contract), notes=contract.notes)


def source_policy(spec: SourceSpec, *, notes: tuple[str, ...] = ()) -> SourcePolicy:
    """The policy of a source whose contract is merged in, or that has none.

    Raises:
        DataError: a column is named under `known_time` twice.
        UsageError: a limit that is no share, or a `min` above its `max`.
    """
    paths_of(spec.columns)
    _check_stream(spec)
    _check_event_time(spec)
    if spec.ttl is None and spec.on_expired != SourceSpec().on_expired:
        hint = "say the age: `ttl: 30d`, or leave out `on_expired`"
        raise UsageError("`on_expired` needs a `ttl`: without one no entity expires", subject="on_expired", hint=hint)
    nulls = {column: share(rule.nulls) for column, rule in spec.rules.items() if rule.nulls is not None}
    return SourcePolicy(
        spec=spec,
        notes=notes,
        quarantine=share(spec.quarantine),
        missing_files=share(spec.missing_files),
        required=frozenset(column for column, limit in nulls.items() if limit == 0),
        nulls={column: limit for column, limit in nulls.items() if limit > 0},
        fresh=None if spec.table.fresh is None else duration(spec.table.fresh),
        keep=None if spec.keep is None else duration(spec.keep),
        lateness=None if spec.lateness is None else duration(spec.lateness),
        idle=_IDLE if spec.idle is None else duration(spec.idle),
        freshness=_age("freshness", spec.freshness),
        ttl=_age("ttl", spec.ttl),
        keep_refused=None if spec.keep_refused is None else duration(spec.keep_refused),
        min_rows=_row_limit(spec.batch.min_rows),
        max_rows=_row_limit(spec.batch.max_rows),
        distributions=dict(_distributions(spec)),
        known=_known(spec),
    )


def _age(key: str, declared: str | None) -> timedelta | None:
    age = None if declared is None else duration(declared)
    if age is not None and not age:
        raise UsageError(f"`{key}` may not be 0: no event is as new", subject=key, hint=f"write {key}: 10m")
    return age


#: keys of files, and what rows of a stream cannot have yet, each with the reason
_NOT_OF_STREAMS = {
    "path": "rows come from one or the other",
    "sheet": "messages have none",
    "missing": "a missing value of a message is null",
    "subject": "erasing a subject reads files again, and would leave the rows that were ingested",
}


def _check_stream(spec: SourceSpec) -> None:
    """Raises UsageError: a source of a stream has a key that only one of files can have, or the other way round."""
    default = SourceSpec()
    if spec.stream is None and spec.registered is not None:
        hint = "name the topic: `stream: TOPIC`"
        raise UsageError(f"`format: {spec.format}` is one of messages, and not of files", subject="format", hint=hint)
    if spec.stream is not None and spec.registered is None and spec.format != default.format:
        hint = "write `avro` or `protobuf`, or leave out `format` where messages are JSON"
        raise UsageError(f"messages of a stream cannot have `format: {spec.format}`", subject="format", hint=hint)
    if spec.stream is None and spec.keep_refused is not None:
        raise UsageError(
            "`keep_refused` is of sources with a `stream`",
            subject="keep_refused",
            hint="`keep` says how long snapshots and their quarantined rows are kept",
        )
    if spec.stream is not None and spec.prepare is not None:
        raise UsageError(
            f"a source with `stream` cannot have `prepare: {spec.prepare}`: Python runs over tables of files, and "
            "not on messages",
            subject=spec.prepare,
            hint="leave out `prepare`, and write what it computes as expressions in features.py, inside of windows "
            "too: they compile everywhere",
        )
    for key, reason in _NOT_OF_STREAMS.items() if spec.stream is not None else ():
        if getattr(spec, key) != getattr(default, key):
            raise UsageError(
                f"a source with `stream` cannot have `{key}`: {reason}", subject=key, hint=f"leave out `{key}`"
            )


#: after which a partition is idle, where nothing is declared
_IDLE = timedelta(minutes=1)


def _check_event_time(spec: SourceSpec) -> None:
    """Raises UsageError: event time of a stream is declared where there is none, or makes no sense."""
    for key in ("lateness", "idle"):
        declared = getattr(spec, key)
        if declared is None:
            continue
        if spec.stream is None:
            raise UsageError(
                f"`{key}` is of a stream, and this source has none", subject=key, hint=f"leave out `{key}`"
            )
        if spec.time is None:
            raise UsageError(
                f"`{key}` needs the time of each row's event",
                subject=key,
                hint="name its column: `event_time: COLUMN`",
            )
        duration(declared)
    if spec.lateness is not None and not spec.keys:
        raise UsageError(
            "`lateness` decides which rows enter online features, and rows without a key never do",
            subject="lateness",
            hint="name the columns that identify a row: `key: COLUMN`",
        )
    if spec.idle is not None and not duration(spec.idle):
        raise UsageError("with `idle: 0s` every partition is idle at once", subject="idle", hint="write 1m")


def known_delays(spec: SourceSpec) -> dict[str, timedelta | None]:
    """Column of a declared known time to its delay after the event; None where a column says the time."""
    return {column: duration(when) if is_delay(when) else None for column, when in spec.known_columns.items()}


def _known(spec: SourceSpec) -> dict[str, KnownAt]:
    """Column to when it becomes known. A column of known times is itself known at that time."""
    known: dict[str, KnownAt] = {}
    for column, when in spec.known_columns.items():
        if is_delay(when):
            known[column] = KnownAt(delay_us=micros(duration(when)))
        else:
            known[column] = KnownAt(column=when)
            known.setdefault(when, KnownAt(column=when))
    return known


def _row_limit(declared: int | str | None) -> int | RowShare | None:
    """`250%` as 2.5 times earlier batches."""
    if not isinstance(declared, str):
        return declared
    try:
        value = float(declared.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if value < 0 or not declared.endswith("%"):
        raise UsageError(
            f'"{declared}" is no limit on the rows of a batch',
            hint="write a number of rows, or a share of earlier batches such as 50%",
        )
    return RowShare(value, declared)


def _distributions(spec: SourceSpec) -> Iterator[tuple[str, DistributionRule]]:
    for column, rule in spec.rules.items():
        if rule.mean or rule.quantiles or rule.shares or rule.drift is not None:
            yield column, _distribution(column, rule)


def _distribution(column: str, rule: RuleSpec) -> DistributionRule:
    quantiles = tuple(
        QuantileRule(_share(text, "quantiles", column), text, bounds) for text, bounds in rule.quantiles.items()
    )
    declared = [("mean", rule.mean)] if rule.mean is not None else []
    declared += [("quantiles", bounds) for bounds in rule.quantiles.values()]
    shares = {value: _share_range(bounds, column) for value, bounds in rule.shares.items()}
    declared += [("shares", bounds) for bounds in shares.values()]
    for name, bounds in declared:
        if bounds.min is not None and bounds.max is not None and bounds.min > bounds.max:
            raise UsageError(
                f"the rule `{name}` of {column} has a min above its max: {bounds.min:g} and {bounds.max:g}",
                subject=column,
                hint="swap them, or leave one out",
            )
    return DistributionRule(rule.mean, quantiles, shares, rule.drift)


def _share_range(bounds: ShareRange, column: str) -> Range:
    declared = (bounds.min, bounds.max)
    low, high = (None if bound is None else _share(bound, "shares", column) for bound in declared)
    return Range(min=low, max=high)


def _share(value: str | float, rule: str, column: str) -> float:
    try:
        return share(value)
    except UsageError as error:
        raise UsageError(f"`{rule}` of {column}: {error}", subject=column, hint=error.hint) from None
