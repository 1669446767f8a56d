"""Monitoring: labelled quality, drift, alerts with what may be done about them, and retraining."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.console.backtest_chart import backtest_chart, backtest_rows
from cumulant.console.charts import csv_response
from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.pages.monitoring_charts import (
    QUALITY_HEADS,
    course_chart,
    drift_rows,
    heat_map,
    main_columns,
    quality_chart,
    quality_rows,
    values_chart,
)
from cumulant.console.security import security_headers
from cumulant.core.errors import UsageError, not_found
from cumulant.flows.alerting import alerts
from cumulant.flows.alerting.views import overview
from cumulant.flows.monitoring import monitoring_views
from cumulant.flows.monitoring.backtest.backtest_record import stored_backtests
from cumulant.flows.monitoring.drift.drift_history import ColumnHistory, DriftHistory
from cumulant.monitoring.drift.words import day

if TYPE_CHECKING:
    from starlette.responses import Response

_SHOW, _STEER = "monitor.show", "alerts.steer"
_PAGE = "/projects/{project}/monitoring"
_ALERT = "/projects/{project}/alerts"
#: how long a silence may last, and alerts that are over
SPANS = ("1h", "8h", "1d", "7d")
_OVER = 30


def monitoring(page: PageRequest) -> Response:
    project, who = page.project, page.principal
    quality = monitoring_views.quality(project, principal=who, version=page.query("version"))
    drift = monitoring_views.drift(project, principal=who)
    backtests = stored_backtests(project, principal=who)
    feature = page.query("feature")
    shown_drift = drift if drift is None or page.query("columns") == "all" else main_columns(drift)
    column = None if drift is None or not feature else _column(drift, feature)
    listed = overview(project, principal=who, ended=True) if page.may("alerts.show") else None
    shown = [] if listed is None else listed.alerts
    return page.page(
        "monitoring.html.jinja",
        title=f"Monitoring of {project.name}",
        crumbs=[Crumb(project.name, page.href()), Crumb("Monitoring")],
        live=not feature,
        quality=quality,
        quality_chart=None if not quality or not quality.windows else quality_chart(quality, _file(page, "quality")),
        drift=drift,
        undetailed=monitoring_views.compared_without_details(project, principal=who) if drift is None else 0,
        heat=None
        if shown_drift is None
        else heat_map(shown_drift, lambda name, at: _drift_href(page, name, at), feature),
        left_out=0 if drift is None or shown_drift is None else len(drift.columns) - len(shown_drift.columns),
        all_columns=page.href("monitoring", columns="all"),
        drift_csv=_file(page, "drift"),
        column=column,
        values=None if column is None else values_chart(column),
        course=None if column is None or drift is None else course_chart(column, drift),
        window=_window(page, drift),
        alerts=listed,
        firing=[alert for alert in shown if alert.status != "resolved"],
        over=[alert for alert in shown if alert.status == "resolved"][:_OVER],
        steer=page.may(_STEER),
        spans=SPANS,
        retraining=monitoring_views.retraining(project, principal=who),
        backtest=backtests[0] if backtests else None,
        backtest_chart=backtest_chart(backtests[0].result, _file(page, "backtest")) if backtests else None,
        version_href=lambda version: page.href("models", project.name, version),
        release_href=lambda release: page.href("releases", release),
        alert_href=page.href("alerts"),
        here=page.href("monitoring"),
    )


def quality_file(page: PageRequest) -> Response:
    view = monitoring_views.quality(page.project, principal=page.principal, version=page.query("version"))
    rows = [] if view is None else quality_rows(view)
    return csv_response("quality", QUALITY_HEADS, rows, security_headers(page.nonce))


def drift_file(page: PageRequest) -> Response:
    history = monitoring_views.drift(page.project, principal=page.principal)
    rows = [] if history is None else drift_rows(history)
    return csv_response("drift", ("column", "window", "effect", "confirmed"), rows, security_headers(page.nonce))


def backtest_file(page: PageRequest) -> Response:
    """The losses of the newest backtest by window."""
    records = stored_backtests(page.project, principal=page.principal)
    heads, rows = backtest_rows(records[0].result) if records else (["window"], [])
    return csv_response("backtest", heads, rows, security_headers(page.nonce))


def acknowledge(page: PageRequest) -> Response:
    alerts.acknowledge(page.project, page.path("alert"), principal=page.principal, reason=_reason(page))
    return page.redirect(page.href("monitoring"), done="acknowledged")


def silence(page: PageRequest) -> Response:
    """Silence what an alert is about; `fnmatch` patterns in its names are taken as they are."""
    alert = alerts.show(page.project, page.path("alert"), principal=page.principal).finding
    span = page.form.get("span", "")
    if span not in SPANS:
        raise UsageError("that is no span of a silence", subject="span", hint=", ".join(SPANS))
    alerts.silence(
        page.project,
        principal=page.principal,
        span=span,
        model=_literal(alert.model),
        rule=_literal(alert.rule),
        subject=_literal(alert.subject),
        reason=_reason(page),
    )
    return page.redirect(page.href("monitoring"), done="silenced")


def unsilence(page: PageRequest) -> Response:
    alerts.unsilence(page.project, page.path("silence"), principal=page.principal)
    return page.redirect(page.href("monitoring"), done="unsilenced")


def _reason(page: PageRequest) -> str:
    reason = page.form.get("reason", "").strip()
    if not reason:
        raise UsageError("a reason is required", subject="reason", hint="write what the next person should know")
    return reason


def _literal(name: str) -> str:
    """A pattern that matches this name alone."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)


def _column(history: DriftHistory, feature: str) -> ColumnHistory:
    known = {column.feature: column for column in history.columns}
    if feature not in known:
        raise not_found("monitored column", feature, known)
    return known[feature]


def _window(page: PageRequest, history: DriftHistory | None) -> str:
    """The chosen window and the effect of the chosen column there, in a sentence."""
    text = page.query("window")
    feature = page.query("feature")
    if history is None or not feature or not (text.isascii() and text.isdecimal() and len(text) < 6):
        return ""
    place, column = int(text), _column(history, feature)
    if place >= len(history.windows):
        return ""
    effect = column.effects[place]
    if effect is None:
        return f"On {day(history.windows[place])} there were too few rows."
    sure = "confirmed" if place in column.confirmed else "not confirmed"
    return f"On {day(history.windows[place])} it was {effect:.3g} times the least that matters, {sure}."


def _drift_href(page: PageRequest, feature: str, window: int | None) -> str:
    query = {"feature": feature} | ({} if window is None else {"window": str(window)})
    return f"{page.href('monitoring', **query)}#column"


def _file(page: PageRequest, name: str) -> str:
    version = page.query("version")
    query = {"version": version} if version and name == "quality" else {}
    return page.href("monitoring", f"{name}.csv", **query)


ROUTES = (
    PageRoute(
        _PAGE,
        monitoring,
        _SHOW,
        nav=Nav("Monitoring", "n"),
        notices={
            "acknowledged": "The alert is acknowledged: nobody is reminded of it.",
            "silenced": "The alert is silenced: it is recorded, and nobody is notified.",
            "unsilenced": "The silence has ended.",
        },
    ),
    PageRoute(f"{_PAGE}/quality.csv", quality_file, _SHOW),
    PageRoute(f"{_PAGE}/drift.csv", drift_file, _SHOW),
    PageRoute(f"{_PAGE}/backtest.csv", backtest_file, _SHOW),
    PageRoute(f"{_ALERT}/{{alert}}/acknowledge", acknowledge, _STEER, "POST"),
    PageRoute(f"{_ALERT}/{{alert}}/silence", silence, _STEER, "POST"),
    PageRoute("/projects/{project}/silences/{silence}/end", unsilence, _STEER, "POST"),
)
