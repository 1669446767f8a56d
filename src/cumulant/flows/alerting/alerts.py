"""The commands on alerts: observe findings, deliver, acknowledge, silence, and try receivers."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.alert_events import AlertAcknowledged, AlertsSilenced, MessagesLeftOut, SilenceEnded
from cumulant.alerting.alert_state import (
    Alert,
    AlertChange,
    AlertsState,
    Finding,
    Scope,
    Silence,
    acknowledged,
    silenced,
    unsilenced,
)
from cumulant.alerting.decide import decide
from cumulant.alerting.delivery import OutboxEntry
from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import (
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    UsageError,
    did_you_mean,
    not_found,
)
from cumulant.core.events import Actor
from cumulant.core.units import duration
from cumulant.flows.alerting import outbox
from cumulant.flows.alerting.dispatcher import SECONDS, Dispatcher
from cumulant.flows.alerting.outbox import ACTOR, LEFT_OUT
from cumulant.flows.alerting.receiver_state import CLAIM_SECONDS, RECEIVER
from cumulant.flows.alerting.store import change, change_within, read
from cumulant.flows.ledger.actions import verb
from cumulant.ports.notifier import Message

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.project.notifiers import Receiver
    from cumulant.project.project import Project

#: seconds that a tick gives to all receivers together
_TICK_SECONDS = 30.0
_PAUSE = 0.25
#: refused messages that the sentence names
_NAMED = 3


class ReceiverTrial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a sample message. `answer`: what the receiver answered, or why it took nothing."""

    receiver: str
    url: str
    taken: bool
    answer: str
    code: str = ""


@verb("alerts.observe")
def observe(
    project: Project,
    findings: Iterable[Finding],
    *,
    principal: Principal,
    examined: Collection[Scope] | None = None,
    at: datetime | None = None,
    within: Transaction | None = None,
    clock: Clock | None = None,
) -> Sequence[AlertChange]:
    """Evaluate the alerts by new findings: they fire, continue or resolve; messages are queued.

    `examined`: the evaluated models and rules, other alerts stay; None: all. `at`: the moment of a past evaluation.
    `within`: the caller's transaction.

    Raises:
        RefusedError: the principal may not.
    """
    now, actor = (clock or SystemClock()).now(), Actor(str(principal.id))
    return _decide(project, tuple(findings), actor, at=at or now, now=now, examined=examined, within=within)


def advance(project: Project, *, clock: Clock | None = None) -> Sequence[AlertChange]:
    """Notify what is due by time alone: a digest, a reminder, the end of a silence. Removed receivers are forgotten."""
    remove_unnamed(project.journal(), project.receivers())
    if not read(project.journal())[1]:
        return ()
    now = (clock or SystemClock()).now()
    return _decide(project, (), ACTOR, at=now, now=now, examined=frozenset())


def _decide(
    project: Project,
    findings: Sequence[Finding],
    actor: Actor,
    *,
    at: datetime,
    now: datetime,
    examined: Collection[Scope] | None,
    within: Transaction | None = None,
) -> Sequence[AlertChange]:
    rules = project.policies.monitoring.alerts

    def how(state: AlertsState) -> tuple[AlertsState, Sequence[AlertChange], tuple[()]]:
        after, changes = decide(state, findings, at, policy=rules, examined=examined, now=now)
        return after, changes, ()

    if within is not None:
        return change_within(within, project.receivers(), how)[1]
    return change(project.journal(), actor, project.receivers(), how)[1]


def deliver(project: Project, *, clock: Clock | None = None, seconds: float = _TICK_SECONDS) -> str:
    """Notify what is due and deliver what waits, once; the result in a sentence.

    Raises:
        EngineUnavailableError: the journal does not answer.
    """
    advance(project, clock=clock)
    dispatcher = Dispatcher(project, clock=clock)
    until = time.monotonic() + CLAIM_SECONDS + _PAUSE
    while dispatcher.round() and time.monotonic() < until:  # who delivers there may be gone
        time.sleep(_PAUSE)
    dispatcher.wait(seconds)
    from cumulant.flows.alerting.views import receiver_views, refused_views

    views = receiver_views(project)
    undelivered, failing = sum(view.waiting + view.refused for view in views), [view for view in views if view.failures]
    sentence = (
        f"{_count_text(dispatcher.delivered)} delivered" if dispatcher.delivered or undelivered else "no message waits"
    )
    if undelivered:
        sentence += f", {undelivered} left"
    sentence += "".join(
        f"; {view.receiver} fails since {view.failing_since:%Y-%m-%d %H:%M} UTC: {view.fault}" for view in failing
    )
    refusing = [view.receiver for view in views if view.refused]
    refused = [refusal for receiver in refusing for refusal in refused_views(project.journal(), receiver)]
    return sentence + "".join(
        f'; {refusal.receiver} refuses "{refusal.title}": {refusal.fault}' for refusal in refused[:_NAMED]
    )


def _count_text(messages: int) -> str:
    return f"{messages} message" if messages == 1 else f"{messages} messages"


@verb("alerts.show")
def show(project: Project, name: str, *, principal: Principal) -> Alert:
    """One alert by its id, or the beginning of it.

    Raises:
        NotFoundError: none, or several, begin like it.
    """
    return _find_alert(read(project.journal())[0], name)


@verb("alerts.steer")
def acknowledge(project: Project, name: str, *, principal: Principal, reason: str = "") -> Alert:
    """Acknowledge an alert: no more reminders of it.

    Raises:
        NotFoundError: no alert has that id.
        UsageError: it is over, or has not fired yet.
    """

    def how(state: AlertsState) -> tuple[AlertsState, tuple[()], Sequence[AlertAcknowledged]]:
        alert = _find_alert(state, name)
        if alert.status != "firing":
            raise UsageError(
                f"the alert {alert.id} is {alert.status}, so there is nothing to acknowledge",
                subject=alert.id,
                hint="`cumulant alerts list` shows what fires",
            )
        finding = alert.finding
        fact = AlertAcknowledged(alert=alert.id, model=finding.model, rule=finding.rule, subject=finding.subject)
        return acknowledged(state, finding.key, str(principal.id)), (), (fact,)

    after, _ = change(project.journal(), Actor(str(principal.id), reason or None), [], how)
    return _find_alert(after, name)


@verb("alerts.steer")
def silence(
    project: Project,
    *,
    principal: Principal,
    span: str,
    model: str = "*",
    rule: str = "*",
    subject: str = "*",
    reason: str = "",
    clock: Clock | None = None,
) -> Silence:
    """Suppress notifications of what matches; it is still recorded, and sent to receivers that keep state.

    Raises:
        UsageError: `span` is no duration, or none at all; or everything would be silenced, without a reason.
        NotFoundError: no rule is called `rule`, which is no pattern.
    """
    _check_rule(project, rule)
    now = (clock or SystemClock()).now()
    try:
        length = duration(span)
        until = now + length
    except OverflowError:
        raise UsageError(f'"{span}" is longer than time goes', hint="write 2h or 7d") from None
    if not length:
        raise UsageError("a silence of no length silences nothing", subject=span, hint="write 2h or 7d")
    if not reason.strip() and not (model + rule + subject).strip("*"):
        raise UsageError(
            "a silence of all alerts needs a reason",
            subject="reason",
            hint="name the rule, the subject or the model to silence, or say why all alerts are",
        )
    wanted = Silence(id="", model=model, rule=rule, subject=subject, until=until, by=str(principal.id), reason=reason)

    def how(state: AlertsState) -> tuple[AlertsState, tuple[()], Sequence[AlertsSilenced]]:
        after = silenced(state, wanted, now)
        added = after.silences[-1]
        named = {"silence": added.id, "model": model, "rule": rule, "subject": subject, "until": until.isoformat()}
        return after, (), (AlertsSilenced(**named),)

    after, _ = change(project.journal(), Actor(str(principal.id), reason or None), [], how)
    return after.silences[-1]


def _check_rule(project: Project, rule: str) -> None:
    """A misspelt name would silence nothing for as long as it lasts. Rules of one's own are known once they fired."""
    if any(sign in rule for sign in "*?["):
        return
    state = read(project.journal())[0]
    fired = {alert.finding.rule for alert in [*state.alerts.values(), *state.over]}
    known = fired | set(project.policies.monitoring.alerts.rules)
    if rule not in known:
        own = f"rules: {', '.join(sorted(known))}; one of yours that has not fired yet: a pattern such as '{rule}*'"
        raise NotFoundError(f'no rule is called "{rule}"', subject=rule, hint=did_you_mean(rule, known) or own)


@verb("alerts.steer")
def unsilence(project: Project, name: str, *, principal: Principal) -> None:
    """End a silence before its time.

    Raises:
        NotFoundError: there is none of that id.
    """

    def how(state: AlertsState) -> tuple[AlertsState, tuple[()], Sequence[SilenceEnded]]:
        if all(silence.id != name for silence in state.silences):
            raise not_found("silence", name, [silence.id for silence in state.silences])
        return unsilenced(state, name), (), (SilenceEnded(silence=name),)

    change(project.journal(), Actor(str(principal.id)), [], how)


@verb("alerts.test")
def try_receivers(project: Project, *, principal: Principal, receiver: str = "") -> list[ReceiverTrial]:
    """Send a sample to each receiver, or to one, before all that waits; the result of each.

    Raises:
        UsageError: the project file names no receiver.
        NotFoundError: none has that name.
    """
    receivers = project.receivers()
    if not receivers:
        raise UsageError(
            "monitoring.notify names no receiver, so no alert is sent",
            subject=str(project.file.path),
            hint='add one: monitoring: {notify: ["slack+${secret:SLACK_URL}"]}',
        )
    chosen = [target for target in receivers if receiver in ("", target.name)]
    if not chosen:
        raise not_found("receiver", receiver, [target.name for target in receivers])
    now, results = SystemClock().now(), dict[str, ReceiverTrial]()
    threads = [threading.Thread(target=_try, args=(project, target, now, results), daemon=True) for target in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    late = f"nothing within {2 * SECONDS:g} s"
    return [
        results.get(target.name)
        or ReceiverTrial(
            receiver=target.name, url=target.shown, taken=False, answer=late, code=EngineUnavailableError.code
        )
        for target in chosen
    ]


def _try(project: Project, receiver: Receiver, now: datetime, results: dict[str, ReceiverTrial]) -> None:
    try:
        answer, taken, code = project.notifier(receiver).send(_sample(project, now), seconds=SECONDS), True, ""
    except CumulantError as error:
        answer, taken, code = project.vault.redact(error.full_text), False, error.code
    results[receiver.name] = ReceiverTrial(
        receiver=receiver.name, url=receiver.shown, taken=taken, answer=answer, code=code
    )


def _sample(project: Project, now: datetime) -> Message:
    return Message(
        key=f"test/{now.isoformat()}",
        kind="test",
        status="test",
        level="info",
        model=project.name,
        rule="test",
        subject="notify",
        title=f"info: a test message of {project.name}",
        text="Nothing is wrong: `cumulant alerts test` sent this to see that alerts arrive.",
        at=now,
    )


def _find_alert(state: AlertsState, name: str) -> Alert:
    """Raises NotFoundError."""
    known = [*state.alerts.values(), *reversed(state.over)]
    matches = [alert for alert in known if name and alert.id.startswith(name)]
    if len(matches) > 1:
        listed = ", ".join(alert.id for alert in matches[:5])
        raise NotFoundError(f'several alerts begin with "{name}"', subject=name, hint=f"write more of one: {listed}")
    if not matches:
        raise not_found("alert", name, [alert.id for alert in known], empty="there is no alert")
    return matches[0]


def remove_unnamed(journal: Journal, receivers: Sequence[Receiver]) -> None:
    """Forget receivers that are named no more; a new one of the same scheme inherits their messages."""
    names = {receiver.name for receiver in receivers}
    waiting: dict[str, list[OutboxEntry]] = {}
    for entry in outbox.waiting(journal):
        waiting.setdefault(entry.key.rpartition("/")[0], []).append(entry)
    known = {row.key for row in journal.rows(RECEIVER)}
    new = [receiver for receiver in receivers if receiver.name not in known]
    for gone in sorted({*waiting, *known} - names):
        successors = [receiver for receiver in new if _scheme(receiver.name) == _scheme(gone)]
        with journal.transaction(actor=ACTOR) as transaction:
            _forget(transaction, gone, waiting.get(gone, []), successors)


def _forget(
    transaction: Transaction, gone: str, entries: Sequence[OutboxEntry], successors: Sequence[Receiver]
) -> None:
    outbox.put(transaction, successors, [entry.message for entry in entries])
    for entry in entries:
        outbox.take_out(transaction, entry.key)
    transaction.delete(LEFT_OUT, gone)
    transaction.delete(RECEIVER, gone)
    if entries and not successors:
        reason = "monitoring.notify no longer names it"
        transaction.emit(MessagesLeftOut(receiver=gone, messages=len(entries), reason=reason))


def _scheme(name: str) -> str:
    return name.rpartition("-")[0]
