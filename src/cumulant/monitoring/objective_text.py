"""What an objective whose budget is used too fast means, as sentences for people."""

from __future__ import annotations

from cumulant.core.units import show_duration
from cumulant.monitoring.objectives import RECENT, ObjectiveState, show_burn_rate

#: digits of a share in percent
_DIGITS = 3


def objective_sentence(state: ObjectiveState, *, declared: bool = True) -> str:
    """What fires, or is used up: how many of which requests were bad since it began, and how many may be.

    `declared`: whether the project names the objective, so that it has a budget.
    """
    bad = "were answered with a server error" if state.sli == "availability" else f"took longer than {state.within}"
    episode, firing = state.episode, state.fastest
    if episode is None or firing is None:
        return (
            f"the error budget of {state.sli} for {state.window} is used up:"
            f" {state.bad:,} of {state.requests:,} requests {bad}"
        )
    share = f"{100 * episode.bad / episode.requests:.{_DIGITS}g}%"
    text = f"{episode.bad:,} of {episode.requests:,} requests ({share}) {bad}"
    if state.sli == "availability" and 2 * episode.unanswered > episode.bad:
        text += f", {min(episode.unanswered, episode.bad):,} of them because no server answered"
    if episode.subsided:
        text += f", and {episode.recent_bad:,} of {episode.recent:,} in the last {show_duration(RECENT)}"
    if not declared:
        return text
    speed = show_burn_rate(firing.long_rate or 0.0)
    allowed = f"{100 * (1 - state.target):.{_DIGITS}g}%"
    return (
        f"{text}; the objective of {state.sli} allows {allowed},"
        f" and its error budget is used {speed} times as fast as the objective allows over {firing.long}"
    )


def objective_advice(state: ObjectiveState) -> str:
    """Where the cause is seen."""
    if state.sli == "latency":
        return (
            "see whether requests wait (`cumulant_queue_seconds`) or the model itself is slow (`cumulant_run_seconds`)"
        )
    if state.episode is not None and 2 * state.episode.unanswered > state.episode.bad:
        return "see which process does not answer: `cumulant ps`"
    return "read why in the log of the server: `.cumulant/stack/logs/server-VERSION.log` of its machine"
