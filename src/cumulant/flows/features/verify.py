"""`features verify`: features that were served, recomputed from the history as of their moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError, DataError, NotFoundError, RequestError
from cumulant.core.events import Actor
from cumulant.core.ids import digest, short
from cumulant.core.prediction import read_object
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.core.units import to_micros
from cumulant.features.definition.personal_features import stored_features
from cumulant.features.offline.groups import groups_of
from cumulant.features.online.hashed_keys import HashedKeys
from cumulant.features.online.requests import RequestReader
from cumulant.features.verification import FeatureComparison, FeatureMismatch, comparison, differing
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.data.validate import load_snapshot, newest_snapshot
from cumulant.flows.features.feature_table import scans
from cumulant.flows.features.stored_tables import FilledTable, filled_tables
from cumulant.flows.features.verification_record import FeatureVerification, record_verification
from cumulant.flows.ledger.actions import verb
from cumulant.flows.registry.version_servable import describe_servable

if TYPE_CHECKING:
    import polars as pl

    from cumulant.core.plan import FeaturePlan
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the rule of the alerts on features that differ
MISMATCH = "feature_mismatch"
#: rows that are compared by default, and mismatches that are shown
ROWS, _SHOWN = 1_000, 20
#: rows with a difference, which are explained one by one, after which no more rows are compared; fillings and moments
#: of arrival that are tried for each
_EXPLAINED, _FILLINGS, _ARRIVALS = 200, 3, 64
#: microseconds from a row's arrival until it can be read, at most: it is committed meanwhile
_COMMITTED = 10_000_000
_COLUMNS = ["id", "row", "time", "latency_us", "model", "version", "fingerprint", "request", "features", "shadow"]


class _ServedRow(NamedTuple):
    """A logged row with its stored features. `begun`, `ended`: of the request, in microseconds."""

    id: str
    row: int
    model: str
    version: str
    fingerprint: str
    request: dict[str, Any]
    served: dict[str, Any]
    begun: int
    ended: int


@verb("features.verify")
def verify_features(
    project: Project,
    *,
    principal: Principal,
    since: datetime | None = None,
    rows: int = ROWS,
    clock: Clock | None = None,
    progress: Progress = silent,
) -> FeatureVerification:
    """Recompute features of served rows from the newest accepted snapshots and what was posted, and compare.

    Of the rows whose features were logged `since`, by default a day ago, those with the smallest hash of their id. A
    value that differs is `late` where it is what the snapshots of its table and the rows that had arrived by its answer
    give: the history has learned more since. Everything else is a mismatch, which is an alert.

    Raises:
        StorageError: the log, or a snapshot, cannot be read.
        EngineUnavailableError: the online store does not answer.
    """
    now = (clock or SystemClock()).now()
    first = since or now - timedelta(days=1)
    progress("prediction log")
    logged = list(_logged(project, first, now))
    chosen = sorted(logged, key=lambda row: digest([row.id, row.row]))[:rows]
    counts, late, wrong = Counter[str](), Counter[str](), list[FeatureMismatch]()
    compared = unknown = 0
    by_version: dict[tuple[str, str], list[_ServedRow]] = {}
    for row in chosen:
        by_version.setdefault((row.model, row.version), []).append(row)
    for (model, version), served in by_version.items():
        progress(f"{model}/{version}")
        plan = _plan_of(project, f"{model}/{version}")
        verifier = None if plan is None else _Verifier.of(project, plan)
        readable = [] if verifier is None else [row for row in served if verifier.reads(row)]
        unknown += len(served) - len(readable)
        if verifier is None or not readable:
            continue
        try:
            results = list(verifier.compare(readable))
        except DataError as error:  # the newest rows have other columns than this version's definition reads
            progress(f"{model}/{version} is not compared: {error.message}")
            unknown += len(readable)
            continue
        for row, differences in results:
            compared += 1
            counts.update(name for name in verifier.names if name in row.served)
            for name, (expected, explained) in differences.items():
                if explained:
                    late[name] += 1
                else:
                    wrong.append(_mismatch(row, name, expected))
    verification = FeatureVerification(
        model=project.name,
        at=now,
        since=first,
        logged=len(logged),
        rows=compared,
        unknown=unknown,
        features=_figures(counts, late, wrong),
        mismatches=tuple(wrong[:_SHOWN]),
    )
    if verification.rows:
        _record(project, verification, principal, clock)
    return verification


def _mismatch(row: _ServedRow, name: str, expected: object) -> FeatureMismatch:
    return FeatureMismatch(
        feature=name,
        version=f"{row.model}/{row.version}",
        id=row.id,
        row=row.row,
        served=row.served[name],
        expected=expected,
    )


def _figures(
    counts: Mapping[str, int], late: Mapping[str, int], wrong: Sequence[FeatureMismatch]
) -> tuple[FeatureComparison, ...]:
    mismatches = Counter(each.feature for each in wrong)
    figures = (
        comparison(name, rows=rows, late=late.get(name, 0), mismatches=mismatches[name])
        for name, rows in counts.items()
    )
    return tuple(sorted(figures, key=lambda each: (-each.mismatches, each.feature)))


def _record(project: Project, verification: FeatureVerification, principal: Principal, clock: Clock | None) -> None:
    with project.journal().transaction(actor=Actor(str(principal.id))) as transaction:
        record_verification(transaction, verification)
    findings = [
        Finding(
            model=project.name,
            rule=MISMATCH,
            subject=feature.feature,
            kind="data_fault",
            moved=mismatch_sentence(feature),
            since=verification.since,
            at_least=True,
            next="see which requests: `cumulant features verify`; and what is stored: `cumulant features status`",
        )
        for feature in verification.features
        if feature.mismatches
    ]
    observe(project, findings, principal=principal, examined=[(project.name, MISMATCH)], clock=clock)


def verification_sentence(verification: FeatureVerification) -> str:
    """What a verification gave."""
    if not verification.rows:
        return "no features of served rows were logged"
    late = sum(feature.late for feature in verification.features)
    wrong = [mismatch_sentence(feature) for feature in verification.features if feature.mismatches]
    lateness = f", {late:,} values differ by rows that arrived later" if late else ""
    return f"{verification.rows:,} served rows compared{lateness}; " + ("; ".join(wrong) or "no mismatch")


def mismatch_sentence(feature: FeatureComparison) -> str:
    """How many served values of a feature the history does not give."""
    interval = f"{100 * feature.low:.3g}% to {100 * feature.high:.3g}%"
    which = f"{feature.mismatches:,} of {feature.rows:,} served values of {feature.feature}"
    return f"{which} are not those of the history ({interval} of all)"


def _logged(project: Project, since: datetime, until: datetime) -> Iterator[_ServedRow]:
    """The rows of the log whose stored features were logged."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from cumulant.serving.prediction_log.storage.scanning import batches

    first = pa.scalar(since, pa.timestamp("us", "UTC"))
    wanted = (pc.field("time") >= first) & (pc.field("features") != "") & ~pc.field("shadow")
    for batch in batches(project.log(), _COLUMNS, wanted=wanted, since=since.date(), until=until.date()):
        for row in batch.to_pylist():
            ended = to_micros(row["time"])
            yield _ServedRow(
                row["id"],
                row["row"],
                row["model"],
                row["version"],
                row["fingerprint"],
                read_object(row["request"]),
                read_object(row["features"]),
                ended - row["latency_us"],
                ended,
            )


def _plan_of(project: Project, uri: str) -> FeaturePlan | None:
    try:
        described = describe_servable(project, project.registry().resolve(uri), verify=False)
    except NotFoundError:
        return None
    return described.plan if isinstance(described, Servable) else None


class _History(NamedTuple):
    """Rows of snapshots, and those that were posted, by source."""

    rows: Mapping[str, pl.LazyFrame]
    posted: Mapping[str, pl.DataFrame]


class _Verifier:
    """Recomputes rows of one definition. `names`: the features that are compared."""

    def __init__(self, project: Project, plan: FeaturePlan, fillings: Sequence[FilledTable]) -> None:
        import polars as pl

        from cumulant.features.online.logged_rows import posted_rows
        from cumulant.flows.features.stream_rows import StreamRows

        self._project, self._fingerprint, self._fillings = project, short(digest(plan)), fillings
        self._hashed = HashedKeys.of(plan, project.salt)
        self._plan = self._hashed.plan
        corrected = {
            name for name, source in plan.sources.items() if not isinstance(source.corrections, msgspec.UnsetType)
        }
        scope = self._hashed.log_scope(project.name)
        self._posted = {
            name: posted_rows(project.online(), scope, source)
            for name, source in self._plan.sources.items()
            if source.key and name not in corrected
        }
        #: rows that came by streams, as the posted ones are: online features have them before a snapshot does
        self._streamed = {
            name: StreamRows(project, name, self._hashed).arrived(source.fields)
            for name, source in plan.sources.items()
            if name in self._posted and _is_streamed(project, name)
        }
        for name, rows in self._streamed.items():
            names = [*self._posted[name].columns]
            self._posted[name] = pl.concat([self._posted[name], rows.select(names)], how="vertical_relaxed")
        self.names = stored_features(plan)
        #: their values are hashes in the log, and none of the compared features reads them
        hidden = {field.name for field in plan.request if field.personal} - self._hashed.names
        self._request = [field for field in self._plan.request if field.name not in hidden]

    @classmethod
    def of(cls, project: Project, plan: FeaturePlan) -> _Verifier | None:
        """None where a source of the plan has no snapshot, or rows outside of snapshots that correct earlier ones: from
        when on those count online is not known here.
        """
        if any(newest_snapshot(project, name) is None for name in plan.sources) or _corrected_online(project, plan):
            return None
        own = [table for table in filled_tables(project, every=True) if digest(table.plan) == digest(plan)]
        return cls(project, plan, own)

    def reads(self, row: _ServedRow) -> bool:
        """Whether the logged request has fields that can be read; large ones are logged as their hash."""
        try:
            RequestReader(self._request).read(row.request)
        except RequestError:
            return False
        return "$large" not in row.request

    def compare(self, rows: Sequence[_ServedRow]) -> Iterator[tuple[_ServedRow, dict[str, tuple[Any, bool]]]]:
        """Each row with its differences: by feature the expected value, and whether late rows explain it. It ends after
        as many rows with differences as are explained.
        """
        present = {name: newest_snapshot(self._project, name) for name in self._plan.sources}
        newest = {name: snapshot.id for name, snapshot in present.items() if snapshot is not None}
        expected = self._compute(self._history(newest), rows, arrived=None)
        explained = 0
        for row, values in zip(rows, expected, strict=True):
            if row.fingerprint != self._fingerprint:  # the server had another definition than the version's
                yield row, {name: (values[name], False) for name in self.names if name in row.served}
                continue
            differences = differing(row.served, values, self.names)
            if differences and explained == _EXPLAINED:
                return
            explained += bool(differences)
            gone = self._explain(row, differences) if differences else set()
            yield row, {name: (values[name], name in gone) for name in differences}

    def _explain(self, row: _ServedRow, names: Sequence[str]) -> set[str]:
        """The features whose served values are those of the rows that had arrived when it was answered.

        The stored features that a request reads are those of all rows up to some arrival: each of the last ones is
        tried, the newest first.
        """
        remaining = set(names)
        before = [filling for filling in self._fillings if to_micros(filling.begun) <= row.ended]
        for filling in before[:_FILLINGS]:
            try:
                history = self._history(filling.snapshots, of=row)
            except CumulantError:  # a snapshot is not stored any more
                continue
            for arrived in self._arrivals(row, history):
                if not remaining:
                    break
                (values,) = self._compute(history, [row], arrived=arrived)
                remaining &= set(differing(row.served, values, names))
        return set(names) - remaining

    def _arrivals(self, row: _ServedRow, history: _History) -> list[int]:
        """The moments up to which rows may have been read, the newest first."""
        from cumulant.features.online.logged_rows import ARRIVED

        first, moments = row.begun - _COMMITTED, {row.ended, row.begun}
        for posted in history.posted.values():
            own = posted[ARRIVED].drop_nulls()
            moments |= set(own.filter(own.is_between(first, row.ended)).to_list())
        # A batch may have waited for longer until it was put into online features, after all those before it.
        batches = {int(at) for rows in self._streamed.values() for at in rows[ARRIVED].unique() if at <= row.ended}
        earlier = sorted(batches - moments, reverse=True)[:_ARRIVALS]
        return [*sorted(moments, reverse=True)[:_ARRIVALS], first, *earlier]

    def _history(self, snapshots: Mapping[str, str], *, of: _ServedRow | None = None) -> _History:
        """The rows of snapshots and those that were posted; `of`: that share a key with this one alone."""
        stored = {name: load_snapshot(self._project, identity) for name, identity in snapshots.items()}
        frames = self._hashed.frames(scans(self._project, stored, snapshots, as_of=None))
        rows = {name: frame.lazy() for name, frame in frames.items()}
        if of is None:
            return _History(rows, self._posted)
        keys = self._keys(of)
        own = {name: frame.filter(keys[name]).collect().lazy() for name, frame in rows.items() if name in keys}
        posted = {name: frame.filter(keys[name]) for name, frame in self._posted.items() if name in keys}
        return _History({**rows, **own}, posted)

    def _keys(self, row: _ServedRow) -> dict[str, pl.Expr]:
        """By source, the condition of rows that windows and lookups of a request may see."""
        import polars as pl

        from cumulant.features.online.logged_rows import field_frame

        request = field_frame(self._request, [RequestReader(self._request).read(row.request)]).row(0, named=True)
        conditions: dict[str, list[pl.Expr]] = {}
        for group in groups_of(self._plan):
            own = [pl.col(name).eq(pl.lit(request[name])).fill_null(value=False) for name in group.by]
            conditions.setdefault(group.source, []).append(pl.all_horizontal(own))
        return {name: pl.any_horizontal(own) for name, own in conditions.items()}

    def _compute(self, history: _History, rows: Sequence[_ServedRow], *, arrived: int | None) -> list[dict[str, Any]]:
        from cumulant.features.offline.offline import compute
        from cumulant.features.online.logged_rows import field_frame, with_posted

        frames = dict(history.rows)
        for name, posted in history.posted.items():
            frames[name] = with_posted(frames[name], _arrived(posted, arrived), self._plan.sources[name])
        reader = RequestReader(self._request)
        requests = field_frame(self._request, [reader.read(row.request) for row in rows])
        computed = compute(self._plan, frames, rows=requests).select(self.names)
        decoded: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(computed.to_dicts()))
        return decoded


def _corrected_online(project: Project, plan: FeaturePlan) -> bool:
    """Whether a source whose rows correct each other has rows that were posted, or that came by a stream."""
    from cumulant.features.online.logged_rows import has_posted_rows

    corrected = [of for of in plan.sources.values() if not isinstance(of.corrections, msgspec.UnsetType)]
    scope = HashedKeys.of(plan, project.salt).log_scope(project.name)
    return any(_is_streamed(project, of.name) or has_posted_rows(project.online(), scope, of) for of in corrected)


def _is_streamed(project: Project, source: str) -> bool:
    policy = project.policies.sources.get(source)
    return policy is not None and policy.spec.stream is not None


def _arrived(posted: pl.DataFrame, by: int | None) -> pl.DataFrame:
    """Posted rows that had arrived by a moment; None: all."""
    import polars as pl

    from cumulant.features.online.logged_rows import ARRIVED

    return posted if by is None else posted.filter(pl.col(ARRIVED).is_null() | (pl.col(ARRIVED) <= by))
