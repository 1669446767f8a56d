"""Which objectives of a served model stop its release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cumulant.monitoring.objectives import count_events, show_burn_rate

if TYPE_CHECKING:
    from cumulant.monitoring.objectives import ObjectiveState
    from cumulant.monitoring.request_counts import RequestCounts
    from cumulant.release.policy import SloGate


def find_hold(
    states: Sequence[ObjectiveState],
    gate: SloGate,
    *,
    earlier: str = "",
    arms: Mapping[str, RequestCounts] | None = None,
) -> str:
    """The objectives that stop a release, as a clause; empty where none does.

    `earlier`: what stopped the release so far. It stays while there are no requests of the shortest window: a log with
    a gap, or a clock that jumped, does not show that an objective is met again. `arms`: their requests since the
    release began, which the clause compares.
    """
    if gate == "none":
        return ""
    holds = [clause for state in states for clause in _clauses(state, gate, arms or {})]
    if not holds and earlier and all(state.burn[0].short_rate is None for state in states):
        return earlier
    return " and ".join(holds)


def _clauses(state: ObjectiveState, gate: SloGate, arms: Mapping[str, RequestCounts]) -> Iterator[str]:
    burning = next((burn for burn in state.burn if burn.firing and burn.severity == "page"), None)
    if burning is not None and burning.long_rate is not None:
        yield (
            f"the error budget of {state.sli} burns {show_burn_rate(burning.long_rate)} times as fast as it may"
            f" in {burning.long} and still in {burning.short}{_shares(state, arms)}"
        )
    elif gate == "budget" and state.spent:
        yield (
            f"the error budget of {state.sli} is spent: {state.bad:,} of {state.requests:,} requests in"
            f" {state.window} were bad, above {(1 - state.target) * 100:.3g}%{_shares(state, arms)}"
        )


def _shares(state: ObjectiveState, arms: Mapping[str, RequestCounts]) -> str:
    """` (bad since the release began: champion 48 of 9,000, candidate 0 of 1,000)`."""
    counts = {arm: count_events(state.sli, counts) for arm, counts in arms.items()}
    texts = [f"{arm} {bad:,} of {requests:,}" for arm, (requests, bad) in counts.items() if requests]
    return f" (bad since the release began: {', '.join(texts)})" if texts else ""
