"""Metrics of alerts and of their receivers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.alerting.policy import LEVELS
from cumulant.core.prometheus import Series
from cumulant.flows.alerting.outbox import refusals, waiting
from cumulant.flows.alerting.receiver_state import RECEIVER, ReceiverState
from cumulant.flows.alerting.store import read

if TYPE_CHECKING:
    from cumulant.ports.journal import Journal


def alert_series(journal: Journal, receivers: Sequence[str] = ()) -> Iterator[Series]:
    """Alerts by level and by rule; messages and failures by receiver, also of those that had none yet."""
    state, _ = read(journal)
    firing = Counter(alert.level for alert in state.firing)
    yield from (Series("cumulant_alerts_firing", (level,), firing[level]) for level in LEVELS)
    active = Counter((alert.finding.model, alert.finding.rule, alert.level) for alert in state.alerts.values())
    yield from (Series("cumulant_alerts_active", labels, count) for labels, count in sorted(active.items()))
    standings = {row.key: msgspec.convert(row.value, ReceiverState) for row in journal.rows(RECEIVER)}
    refused = Counter(key.rpartition("/")[0] for key in refusals(journal))
    queued = Counter(entry.key.rpartition("/")[0] for entry in waiting(journal))
    for name in sorted({*receivers, *standings, *queued}):
        yield Series("cumulant_messages_waiting", (name,), queued[name] - refused[name])
        yield Series("cumulant_messages_refused", (name,), refused[name])
        yield Series("cumulant_receiver_failures", (name,), standings.get(name, ReceiverState()).failures)
