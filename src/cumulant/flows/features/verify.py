"""`features verify`: features that were served, recomputed from the history as of their moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cumulant.alerting.alert_state import Finding
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import DataError, NotFoundError
from cumulant.core.events import Actor
from cumulant.core.progress import Progress, silent
from cumulant.core.servable import Servable
from cumulant.features.verification import FeatureComparison, FeatureMismatch, comparison
from cumulant.flows.alerting.alerts import observe
from cumulant.flows.alerting.store import read as read_alerts
from cumulant.flows.features.served_rows import ServedRow, choose_rows
from cumulant.flows.features.verification_record import FeatureVerification, record_verification
from cumulant.flows.features.verifier import Verifier
from cumulant.flows.ledger.actions import verb
from cumulant.flows.registry.version_servable import describe_servable

if TYPE_CHECKING:
    from cumulant.core.plan import FeaturePlan
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: the rule of the alerts on features that differ
MISMATCH = "feature_mismatch"
#: rows that are compared by default, and mismatches that are shown
ROWS, _SHOWN = 1_000, 20


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
    give: the history has learned more since. Everything else is a mismatch, which is an alert. Rows whose answers said
    that features may lack events (`incomplete`) are counted apart.

    Raises:
        StorageError: the log, or a snapshot, cannot be read.
        EngineUnavailableError: the online store does not answer.
    """
    now = (clock or SystemClock()).now()
    first = since or now - timedelta(days=1)
    progress("prediction log")
    chosen = choose_rows(project, first, now, rows)
    counts, late, wrong = Counter[str](), Counter[str](), list[FeatureMismatch]()
    compared = unknown = uncompared = differing = 0
    by_version: dict[tuple[str, str], list[ServedRow]] = {}
    whole = [row for row in chosen.rows if not row.incomplete]
    for row in whole:
        by_version.setdefault((row.model, row.version), []).append(row)
    for (model, version), served in by_version.items():
        progress(f"{model}/{version}")
        plan = _plan_of(project, f"{model}/{version}")
        verifier = None if plan is None else Verifier.of(project, plan, f"{model}/{version}")
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
        uncompared += len(readable) - len(results)
        for row, differences in results:
            if differences is None:
                unknown, differing = unknown + 1, differing + 1
                continue
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
        logged=chosen.logged,
        rows=compared,
        unknown=unknown,
        uncompared=uncompared,
        incomplete=len(chosen.rows) - len(whole),
        features=_figures(counts, late, wrong),
        mismatches=tuple(wrong[:_SHOWN]),
    )
    _record(project, verification, principal, clock, complete=not differing)
    return verification


def _mismatch(row: ServedRow, name: str, expected: object) -> FeatureMismatch:
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


def _record(
    project: Project, verification: FeatureVerification, principal: Principal, clock: Clock | None, *, complete: bool
) -> None:
    """Not `complete`: rows differ of which it is not known why, so that no alert is over."""
    with project.journal().transaction(actor=Actor(str(principal.id))) as transaction:
        record_verification(transaction, verification)
    if not verification.rows:
        return  # nothing was compared, so that no alert is over
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
    if not complete:
        subjects = {finding.subject for finding in findings}
        before = (alert.finding for alert in read_alerts(project.journal())[0].alerts.values())
        findings += [of for of in before if of.scope == (project.name, MISMATCH) and of.subject not in subjects]
    observe(project, findings, principal=principal, examined=[(project.name, MISMATCH)], clock=clock)


def verification_sentence(verification: FeatureVerification) -> str:
    """What a verification gave."""
    apart = f"; {verification.incomplete:,} were answered as incomplete" if verification.incomplete else ""
    if not verification.rows:
        unknown = f"; {verification.unknown:,} cannot be recomputed" if verification.unknown else ""
        rest = unknown + apart
        return ("no served rows compared" if rest else "no features of served rows were logged") + rest
    late = sum(feature.late for feature in verification.features)
    wrong = [mismatch_sentence(feature) for feature in verification.features if feature.mismatches]
    lateness = f", {late:,} values differ by rows that arrived later" if late else ""
    rest = f", {verification.uncompared:,} left after so many with differences" if verification.uncompared else ""
    return f"{verification.rows:,} served rows compared{rest}{lateness}; " + ("; ".join(wrong) or "no mismatch") + apart


def mismatch_sentence(feature: FeatureComparison) -> str:
    """How many served values of a feature the history does not give."""
    interval = f"{100 * feature.low:.3g}% to {100 * feature.high:.3g}%"
    which = f"{feature.mismatches:,} of {feature.rows:,} served values of {feature.feature}"
    return f"{which} are not those of the history ({interval} of all)"


def _plan_of(project: Project, uri: str) -> FeaturePlan | None:
    try:
        described = describe_servable(project, project.registry().resolve(uri), verify=False)
    except NotFoundError:
        return None
    return described.plan if isinstance(described, Servable) else None
