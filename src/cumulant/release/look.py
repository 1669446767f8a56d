"""What one look brings: the requests answered since the last one, and the mirrored ones that both arms scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from cumulant.core.traffic import CANDIDATE, CHAMPION, Exchange

ARMS = (CHAMPION, CANDIDATE)
_BUSY, _LEFT = 429, 499


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One row that both arms scored. Scores are of the positive class, or the predicted number."""

    champion: float
    candidate: float
    #: the decisions (past the threshold) differ
    differs: bool


class Graded(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored row whose label has come: each arm's loss in it, in the declared metric (Brier, squared error)."""

    champion: float
    candidate: float


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Since the last look. `seconds` are of the controller's own steady clock, never of the wall."""

    seconds: float
    exchanges: Sequence[Exchange] = ()
    pairs: Sequence[Pair] = ()
    graded: Sequence[Graded] = ()
    #: candidate's value less the champion's of metrics of your own, oriented so that more is worse
    own: dict[str, Sequence[float]] = {}


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Bad events of one block in both arms, of so many requests."""

    requests: dict[str, int]
    bad: dict[str, int]

    def __add__(self, other: Failures) -> Failures:
        return Failures(
            requests={arm: self.requests[arm] + other.requests[arm] for arm in ARMS},
            bad={arm: self.bad[arm] + other.bad[arm] for arm in ARMS},
        )


def failed(exchange: Exchange) -> bool:
    """Whether the assigned arm did not answer: a server's error, a refusal for load, or an answer of the other arm.

    What the caller did wrong (other 4xx) is nobody's failure. One who left before the answer (499) may have waited for
    an arm that hangs: callers who leave anyway do so in both arms.
    """
    unanswered = exchange.status >= 500 or exchange.status in (_BUSY, _LEFT)
    return unanswered or bool(exchange.fault) or exchange.rescued


def timed_out(exchange: Exchange) -> bool:
    return exchange.fault == "timeout" or exchange.status in (504, _LEFT)


def counting(exchanges: Iterable[Exchange], *, model: str, revision: int) -> list[Exchange]:
    """Those that a comparison counts: predictions of this model, not forced, and assigned by the present weights.

    One that ended before it had an arm says nothing of either.
    What was assigned by the weights before and answered after them belongs to no step: it would mix two shares.
    """
    return [
        one
        for one in exchanges
        if one.model == model and one.predicts and not one.forced and one.revision == revision and one.assigned in ARMS
    ]
