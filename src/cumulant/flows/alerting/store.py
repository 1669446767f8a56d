"""The row of the alerts in the journal, changed in one transaction with its events and messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from cumulant.alerting.alert_events import alert_facts
from cumulant.alerting.alert_state import AlertChange, AlertsState
from cumulant.alerting.messages import message
from cumulant.flows.alerting import outbox

if TYPE_CHECKING:
    from cumulant.core.events import Actor, Fact
    from cumulant.ports.journal import Journal, Transaction
    from cumulant.project.notifiers import Receiver

#: from the alerts before to those after, their changes, and further events
AlertTransition = Callable[[AlertsState], tuple[AlertsState, Sequence[AlertChange], Sequence["Fact"]]]

ALERTS, KEY = "alerts", "state"


def read(journal: Journal) -> tuple[AlertsState, bool]:
    """The alerts, and whether there ever were any."""
    row = journal.get(ALERTS, KEY)
    return (AlertsState(), False) if row is None else (msgspec.convert(row.value, AlertsState), True)


def change(
    journal: Journal,
    actor: Actor,
    receivers: Sequence[Receiver],
    how: AlertTransition,
) -> tuple[AlertsState, Sequence[AlertChange]]:
    """Change the alerts: state, events and messages are written together or not at all."""
    with journal.transaction(actor=actor) as transaction:
        return change_within(transaction, receivers, how)


def change_within(
    transaction: Transaction, receivers: Sequence[Receiver], how: AlertTransition
) -> tuple[AlertsState, Sequence[AlertChange]]:
    """`change` in the caller's transaction, together with its cause."""
    row = transaction.get(ALERTS, KEY)
    before = AlertsState() if row is None else msgspec.convert(row.value, AlertsState)
    after, changes, own_facts = how(before)
    if after != before:
        transaction.put(ALERTS, KEY, cast("dict[str, object]", msgspec.to_builtins(after)))
    for fact in (*alert_facts(changes), *own_facts):
        transaction.emit(fact)
    for keeps in (False, True):
        messages = [message(entry) for entry in changes if entry.to_people is not keeps]
        outbox.put(transaction, [entry for entry in receivers if entry.keeps_state is keeps], messages)
    return after, changes
