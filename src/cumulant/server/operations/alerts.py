"""Alerts, silences and receivers."""

from __future__ import annotations

import msgspec

from cumulant.alerting.alert_state import Silence
from cumulant.flows.alerting.alerts import ReceiverTrial, acknowledge, show, silence, try_receivers, unsilence
from cumulant.flows.alerting.manual_retry import RetryResult, drop, retry
from cumulant.flows.alerting.views import AlertsView, AlertView, RefusedView, alert_view, count_matches, overview
from cumulant.server.operation import ApiCall, delete, get, post


class AlertQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`ended`: also alerts that are over; `model`: only of that model."""

    ended: bool = False
    model: str = ""


@get("/alerts", action="alerts.show")
def list_(call: ApiCall, query: AlertQuery) -> AlertsView:
    """List alerts, the most urgent first, with silences and receivers."""
    return overview(call.project, principal=call.principal, ended=query.ended, model=query.model)


@get("/alerts/{alert}", action="alerts.show")
def show_(call: ApiCall, alert: str) -> AlertView:
    """Show an alert, by its id or the beginning of it."""
    return alert_view(show(call.project, alert, principal=call.principal))


class AcknowledgeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


@post("/alerts/{alert}/acknowledge", action="alerts.steer")
def acknowledge_(call: ApiCall, alert: str, body: AcknowledgeBody) -> AlertView:
    """Acknowledge an alert: it is not notified again at its level."""
    return alert_view(acknowledge(call.project, alert, principal=call.principal, reason=body.reason))


class SilenceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`span`: how long, such as `2h`; `model`, `rule`, `subject`: what, with `*` for any."""

    span: str
    model: str = "*"
    rule: str = "*"
    subject: str = "*"
    reason: str = ""


class AddedSilence(msgspec.Struct, frozen=True, kw_only=True):
    """`matching`: how many of the `alerts` that fire or are pending it matches now."""

    silence: Silence
    matching: int
    alerts: int


@post("/silences", action="alerts.steer")
def silence_(call: ApiCall, body: SilenceBody) -> AddedSilence:
    """Silence alerts for a while."""
    added = silence(
        call.project,
        principal=call.principal,
        span=body.span,
        model=body.model,
        rule=body.rule,
        subject=body.subject,
        reason=body.reason,
    )
    matching, alerts = count_matches(call.project, added)
    return AddedSilence(silence=added, matching=matching, alerts=alerts)


@delete("/silences/{silence}", action="alerts.steer")
def unsilence_(call: ApiCall, silence: str) -> None:
    """End a silence."""
    unsilence(call.project, silence, principal=call.principal)


class ReceiverBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`receiver`: only that one."""

    receiver: str = ""


@post("/receivers/test", action="alerts.test")
def test(call: ApiCall, body: ReceiverBody) -> list[ReceiverTrial]:
    """Send a test message to receivers."""
    return try_receivers(call.project, principal=call.principal, receiver=body.receiver)


class RetryBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    message: str = ""
    receiver: str = ""


@post("/receivers/retry", action="alerts.steer")
def retry_(call: ApiCall, body: RetryBody) -> RetryResult:
    """Send messages again that receivers refused."""
    return retry(call.project, principal=call.principal, message=body.message, receiver=body.receiver)


class DropBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`message`: its name or the beginning of it; `reason`: why, for the events."""

    message: str
    reason: str = ""


@post("/messages/drop", action="alerts.steer")
def drop_(call: ApiCall, body: DropBody) -> list[RefusedView]:
    """Drop a message that a receiver refuses."""
    return drop(call.project, body.message, principal=call.principal, reason=body.reason)


OPERATIONS = (list_, show_, acknowledge_, silence_, unsilence_, test, retry_, drop_)
