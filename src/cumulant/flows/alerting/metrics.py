"""Alerts and receivers as Prometheus reads them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.policy import LEVELS
from cumulant.flows.alerting.outbox import refusals, waiting
from cumulant.flows.alerting.receiver_state import RECEIVER, ReceiverState
from cumulant.flows.alerting.store import read

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal

_FIRING, _WAITING, _FAILURES = "cumulant_alerts_firing", "cumulant_messages_waiting", "cumulant_receiver_failures"
_REFUSED = "cumulant_messages_refused"


def exposition(journal: Journal) -> str:
    """The text format: alerts that fire by level; messages that wait or are refused, and failures, by receiver."""
    state, _ = read(journal)
    firing = Counter(alert.level for alert in state.firing)
    standings = {row.key: msgspec.convert(row.value, ReceiverState) for row in journal.rows(RECEIVER)}
    refused = Counter(key.rpartition("/")[0] for key in refusals(journal))
    queues = Counter(entry.key.rpartition("/")[0] for entry in waiting(journal))
    names = sorted({*standings, *queues})
    lines = [f"# HELP {_FIRING} Alerts that fire.", f"# TYPE {_FIRING} gauge"]
    lines += [f'{_FIRING}{{level="{level}"}} {firing[level]}' for level in LEVELS]
    lines += [f"# HELP {_WAITING} Messages that wait for a receiver.", f"# TYPE {_WAITING} gauge"]
    lines += [f'{_WAITING}{{receiver="{name}"}} {queues[name] - refused[name]}' for name in names]
    lines += [
        f"# HELP {_REFUSED} Messages that a receiver refuses, while it may take others.",
        f"# TYPE {_REFUSED} gauge",
    ]
    lines += [f'{_REFUSED}{{receiver="{name}"}} {refused[name]}' for name in names]
    lines += [f"# HELP {_FAILURES} Failures of a receiver in a row.", f"# TYPE {_FAILURES} gauge"]
    lines += [f'{_FAILURES}{{receiver="{name}"}} {standings.get(name, ReceiverState()).failures}' for name in names]
    return "\n".join(lines) + "\n"
