"""Releases of a project: the list, and one of them live, with what an operator may do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cumulant.console.charts import csv_response
from cumulant.console.forest_plot import forest_plot
from cumulant.console.look_charts import HEADS
from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.pages.release_looks import look_section, look_table
from cumulant.console.security import security_headers
from cumulant.core.errors import ConflictError, CumulantError, NotFoundError, RequestError, not_found
from cumulant.flows.release import actions, store
from cumulant.flows.release.controller.rollback_outbox import recorded_rollbacks
from cumulant.flows.release.release_queries import current_release, find_release, release_page
from cumulant.flows.release.rollback import roll_back, rollback_target
from cumulant.flows.release.traffic_split import traffic_split
from cumulant.flows.release.views import ReleaseView, StageView, reason_text, view
from cumulant.release.state import Release
from cumulant.release.wording import format_value, span, version_name

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.flows.release.views import MetricView

_SHOW = "release.show"
_PAGE = 50
#: most characters of a reason
_REASON = 500
_TONES = {"promoted": "good", "rolled_back": "bad", "inconclusive": "unsure", "superseded": "", "running": "unsure"}
_STATES = {"now": "now", "passed": "passed", "ended here": "ended", "skipped": "skipped", "to come": "future"}


class ReleaseOperation(NamedTuple):
    """What an operator does to a release: the flow behind it, and in which states the page offers it."""

    name: str
    label: str
    text: str
    action: str
    run: Callable[..., object]
    states: frozenset[str]
    done: str
    danger: bool = False
    #: only of a release that an objective holds
    held_only: bool = False


_UNDER_WAY = frozenset({"pending", "running", "paused", "awaiting_approval"})
#: in which a rollback takes requests from the candidate
_REVERSIBLE = _UNDER_WAY | {"promoted"}
OPERATIONS = (
    ReleaseOperation(
        "approve",
        "Approve",
        "The release goes on to the step that waits for the approval.",
        "release.approve",
        actions.approve,
        frozenset({"awaiting_approval"}),
        "The release is approved.",
    ),
    ReleaseOperation(
        "resume",
        "Resume",
        "The release goes on from the step in which it was paused.",
        "release.steer",
        actions.resume,
        frozenset({"paused"}),
        "The release is resumed.",
    ),
    ReleaseOperation(
        "pause",
        "Pause",
        "The weights stay as they are. Failures and proven harm still roll the release back.",
        "release.steer",
        actions.pause,
        frozenset({"running"}),
        "The release is paused.",
    ),
    ReleaseOperation(
        "override-slo",
        "Override the objectives",
        "The release goes on to its end, whatever the objectives of the served model are.",
        "release.steer",
        actions.override_objectives,
        frozenset({"running", "paused", "awaiting_approval"}),
        "The objectives no longer hold the release.",
        held_only=True,
    ),
    ReleaseOperation(
        "promote",
        "Promote now",
        "The candidate gets all requests at once, whatever the evidence.",
        "release.steer",
        actions.promote,
        _UNDER_WAY,
        "The candidate is promoted.",
    ),
    ReleaseOperation(
        "abort",
        "Abort",
        "The champion gets all requests back, and the release ends.",
        "release.steer",
        actions.abort,
        _UNDER_WAY,
        "The release is aborted: the champion gets all requests.",
        danger=True,
    ),
)
ROLLBACK = "release.rollback"


def releases(page: PageRequest) -> Response:
    """All releases, the newest first."""
    project, principal = page.project, page.principal
    names = _models(page)
    before = page.query("before")
    listed = sorted(
        (
            release
            for name in names
            for release in release_page(
                project, principal=principal, model=name, before=before, limit=_PAGE + 1, cache=page.memory.releases
            )
        ),
        key=lambda release: release.id,
        reverse=True,
    )
    shown = listed[:_PAGE]
    rollbacks = {name: recorded_rollbacks(project.journal(), name) for name in names}
    return page.page(
        "releases.html.jinja",
        title=f"Releases of {project.name}",
        crumbs=[Crumb(project.name, page.href()), Crumb("Releases")],
        live=page.may("events.show"),
        shown=bool(shown),
        rows=page.site.rows.render(
            "release",
            [(each, reason_text(each, rollbacks[each.model])) for each in shown],
            key=lambda item: (item[0].id, item[0].status, item[0].at, item[1]),
            values=lambda item: {"release": item[0], "reason": item[1], "tone": _TONES.get(item[0].status, "unsure")},
            own=project.name,
            base=page.href("releases"),
        ),
        older=page.href("releases", before=shown[-1].id) if len(listed) > _PAGE else "",
        newer=page.href("releases") if before else "",
        rollback=_rollback_form(page, listed),
    )


def _models(page: PageRequest) -> list[str]:
    """The project's own model, and those of external servers that have had a release."""
    return list(dict.fromkeys((page.project.name, *store.list_models(page.project.journal()))))


def one_release(page: PageRequest) -> Response:
    """One release: its steps, its metrics, what is missing, and what may be done."""
    project, release = page.project, _find(page)
    shown = view(release, recorded_rollbacks(project.journal(), release.model))
    return page.page(
        "release.html.jinja",
        title=f"Release of {version_name(shown.candidate)}",
        crumbs=[Crumb(project.name, page.href()), Crumb("Releases", page.href("releases")), Crumb(shown.id)],
        live=page.may("events.show"),
        release=shown,
        candidate=version_name(shown.candidate),
        champion=version_name(shown.champion),
        as_of=store.written_at(project.journal(), release),
        steps=[step_card(stage) for stage in shown.stages],
        split=traffic_split(release),
        plot=forest_plot(shown.metrics),
        rows=[metric_row(metric) for metric in shown.metrics],
        looks=look_section(page, release),
        tone=_TONES.get(shown.status, "unsure"),
        operations=[
            (operation, page.href("releases", release.id, operation.name))
            for operation in OPERATIONS
            if shown.status in operation.states
            and (not operation.held_only or is_held(shown))
            and page.may(operation.action, model=release.model)
        ],
        rollback=_rollback_form(page, [release]),
        events=page.href("events", run=release.id),
    )


def looks_file(page: PageRequest) -> Response:
    """The recorded looks of a metric."""
    release, name = _find(page), page.path("metric")
    return csv_response(f"{release.id}-{name}", HEADS, look_table(page, release, name), security_headers(page.nonce))


def is_held(release: ReleaseView) -> bool:
    """Whether an objective of the served model keeps it from its next step."""
    return bool(release.slo_hold) and not release.slo_override


class StepCard(NamedTuple):
    """A step as it is drawn. `progress`: of the fewest requests and of the shortest time, 0 to 1; `facts`: lines."""

    name: str
    state: str
    word: str
    progress: float | None
    facts: list[str]


def step_card(stage: StageView) -> StepCard:
    """`canary 10%`: `10.5% of 2,942 requests`, `8 s of at least 8 s`."""
    champion, candidate = stage.samples.get("champion", 0), stage.samples.get("candidate", 0)
    facts = []
    if stage.state in {"to come", "skipped"}:
        facts += [f"at least {_span(stage.at_least)}", f"at least {stage.samples_needed:,} requests an arm"]
        return StepCard(stage.name, _STATES[stage.state], stage.state, None, facts)
    if stage.weight:
        total = champion + candidate
        share = f", {100 * candidate / total:.1f}% of {total:,}" if total else ""
        facts.append(f"candidate {candidate:,}{share}")
    else:
        facts.append(f"candidate {candidate:,} mirrored")
    facts.append(_time_fact(stage))
    return StepCard(stage.name, _STATES[stage.state], stage.state, _progress(stage), facts)


def _time_fact(stage: StageView) -> str:
    if stage.state != "now":
        return f"took {_span(stage.seconds)}"
    rest = stage.at_least - stage.seconds
    if rest > 0:
        return f"{_span(rest)} left of at least {_span(stage.at_least)}"
    return f"{_span(stage.seconds)}, at most {_span(stage.at_most)}"


def _progress(stage: StageView) -> float | None:
    """Of the present step, whichever is further away: its shortest time or its fewest requests."""
    if stage.state != "now":
        return None
    arms = ("candidate", "champion") if stage.weight else ("candidate",)
    parts = [stage.samples.get(arm, 0) / stage.samples_needed for arm in arms if stage.samples_needed]
    parts += [stage.seconds / stage.at_least] if stage.at_least else []
    return max(0.0, min(1.0, *parts)) if parts else 1.0


def _span(seconds: float) -> str:
    return span(max(0.0, seconds))


class ReleaseMetricLine(NamedTuple):
    """A metric in a table; `harm` and `fine`: parts of the evidence that would prove it, 0 to 1; None: not tested."""

    name: str
    champion: str
    candidate: str
    difference: str
    margin: str
    harm: float | None
    fine: float | None
    samples: int
    verdict: str


def metric_row(metric: MetricView) -> ReleaseMetricLine:
    def value(number: float | None) -> str:
        return "–" if number is None else format_value(number, metric.unit)

    tested = metric.harm is not None
    known = metric.low is not None or metric.high is not None
    unit = "%" if metric.unit == "ms" else metric.unit  # the margin of a latency is a part of the champion's
    return ReleaseMetricLine(
        name=metric.metric,
        champion=value(metric.champion),
        candidate=value(metric.candidate),
        difference=f"{value(metric.low)} to {value(metric.high)}" if known else "–",
        margin="–" if metric.margin is None else format_value(metric.margin, unit),
        harm=min(1.0, metric.harm) if metric.harm is not None else None,
        fine=min(1.0, metric.fine) if tested else None,
        samples=metric.samples.get("candidate", 0),
        verdict=metric.verdict,
    )


def _find(page: PageRequest) -> Release:
    """The release that the path names, of whatever model."""
    identity = page.path("release")
    for name in _models(page)[::-1]:
        with suppress(NotFoundError):
            return find_release(page.project, identity, principal=page.principal, model=name)
    known = release_page(page.project, principal=page.principal, limit=_PAGE)
    raise not_found("release", identity[:80], [release.id for release in known])


def operate(page: PageRequest, operation: ReleaseOperation) -> Response:
    """Do `operation` to the release of the path, which has to be the newest of its model."""
    release, reason = _find(page), _reason(page)
    newest = current_release(page.project, principal=page.principal, model=release.model)
    if newest.id != release.id:
        raise ConflictError(
            f"the release {release.id} is over, and {newest.id} is newer", subject=release.id, hint="open the newest"
        )
    operation.run(page.project, principal=page.principal, reason=reason, model=release.model)
    return page.redirect(page.href("releases", release.id), done=operation.name)


def roll_back_now(page: PageRequest) -> Response:
    """Send all requests to the version that the form named, or to the one that was served before.

    Of two people who press at once, the second would otherwise go back by one version more.
    """
    project, to = page.project, page.query("to")
    result = roll_back(project, project.name, principal=page.principal, reason=_reason(page), to=to)
    return page.redirect(page.href("releases"), done="rolled-back" if result.serving else "rolled-back-idle")


def _reason(page: PageRequest) -> str:
    reason = page.form.get("reason", "").strip()
    if not reason or len(reason) > _REASON:
        raise RequestError(
            f"a reason of 1 to {_REASON} characters is needed",
            subject="reason",
            hint="say why, for those who read the events later",
        )
    return reason


class RollbackForm(NamedTuple):
    """Where the form of a rollback leads, and its words."""

    url: str
    label: str
    text: str


def _rollback_form(page: PageRequest, listed: list[Release]) -> RollbackForm | None:
    """None where the principal may not, or nothing was promoted and no release has traffic to take back."""
    project = page.project
    own = [each for each in listed if each.model == project.name and each.status in _REVERSIBLE]
    if not own or not page.may(ROLLBACK, model=project.name):
        return None
    text = "All requests go to {}, at once. A release under way ends."
    try:
        version = rollback_target(project, project.name, principal=page.principal)
    except CumulantError:
        if all(each.status != "promoted" for each in own):
            return None
        # The form says why, once it is sent.
        return RollbackForm(page.href("rollback"), "Roll back", text.format("the version that was served before"))
    label = f"Roll back to version {version}"
    return RollbackForm(page.href("rollback", to=version), label, text.format(f"version {version}"))


_BELOW = "/projects/{project}"
ROUTES = (
    PageRoute(f"{_BELOW}/releases", releases, _SHOW, nav=Nav("Releases", "r")),
    PageRoute(f"{_BELOW}/releases/{{release}}", one_release, _SHOW),
    PageRoute(f"{_BELOW}/releases/{{release}}/looks/{{metric}}.csv", looks_file, _SHOW),
    *(
        PageRoute(
            f"{_BELOW}/releases/{{release}}/{operation.name}",
            partial(operate, operation=operation),
            operation.action,
            "POST",
            notices={operation.name: operation.done},
        )
        for operation in OPERATIONS
    ),
    PageRoute(
        f"{_BELOW}/rollback",
        roll_back_now,
        ROLLBACK,
        "POST",
        notices={
            "rolled-back": "All requests go to the version that was served before.",
            "rolled-back-idle": "Nothing serves yet: cumulant up begins with the version that was served before.",
        },
    ),
)
