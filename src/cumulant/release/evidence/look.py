"""The data of one look: requests answered since the last one, and mirrored ones that both arms scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b

import msgspec
import numpy as np
import numpy.typing as npt

from cumulant.core.traffic import CANDIDATE, CHAMPION, Exchange
from cumulant.statistics.sequential.arrays import Floats

ARMS = (CHAMPION, CANDIDATE)
#: metrics that the gateway counts, in the order of the columns of `Requests.bad`
COUNTED = ("errors", "timeouts", "latency")
_REFUSED_ROW, _BUSY, _LEFT = 422, 429, 499

Bools = npt.NDArray[np.bool_]


class PerArm(msgspec.Struct, frozen=True, kw_only=True):
    champion: float = 0.0
    candidate: float = 0.0

    def with_more(self, champion: float, candidate: float) -> PerArm:
        return PerArm(champion=self.champion + float(champion), candidate=self.candidate + float(candidate))


def _no_floats() -> Floats:
    return np.zeros(0)


def _no_bools() -> Bools:
    return np.zeros(0, dtype=np.bool_)


def _no_hours() -> npt.NDArray[np.int64]:
    return np.zeros(0, dtype=np.int64)


def _no_keys() -> npt.NDArray[np.uint64]:
    return np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests that a comparison counts, one entry [n] each in every column.

    Attributes:
        candidate: whether the request was assigned to the candidate; else to the champion.
        failed: the assigned arm did not answer.
        timed_out: it failed for taking too long.
        micros: how long the answer took, in microseconds.
        key: hash of the key that keeps a caller on one arm, equal for equal keys; 0 where the request has none.
    """

    candidate: Bools = field(default_factory=_no_bools)
    failed: Bools = field(default_factory=_no_bools)
    timed_out: Bools = field(default_factory=_no_bools)
    micros: Floats = field(default_factory=_no_floats)
    key: npt.NDArray[np.uint64] = field(default_factory=_no_keys)

    def __len__(self) -> int:
        return len(self.candidate)

    @classmethod
    def of(cls, exchanges: Sequence[Exchange]) -> Requests:
        """The columns of exchanges that `counting` chose."""
        hashes = {key: key_hash(key) for key in {exchange.key for exchange in exchanges}}
        return cls(
            candidate=np.array([exchange.assigned == CANDIDATE for exchange in exchanges], dtype=np.bool_),
            failed=np.array([failed(exchange) for exchange in exchanges], dtype=np.bool_),
            timed_out=np.array([timed_out(exchange) for exchange in exchanges], dtype=np.bool_),
            micros=np.array([exchange.duration_us for exchange in exchanges], dtype=np.float64),
            key=np.array([hashes[exchange.key] for exchange in exchanges], dtype=np.uint64),
        )

    def take(self, which: Bools | npt.NDArray[np.int64]) -> Requests:
        """Some of the requests, by a mask or by their places."""
        return Requests(**{name: getattr(self, name)[which] for name in _COLUMNS})

    @classmethod
    def joined(cls, parts: Sequence[Requests]) -> Requests:
        """The requests of all parts, one part after the other."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})

    def arm(self, name: str) -> Bools:
        """Which requests [n] were assigned to the arm."""
        return self.candidate if name == CANDIDATE else ~self.candidate


_COLUMNS = tuple(column.name for column in fields(Requests))


@dataclass(frozen=True, eq=False)
class ScorePairs:
    """Mirrored rows [n] that both arms scored: the positive class or the number; `differs`: other decisions."""

    champion: Floats = field(default_factory=_no_floats)
    candidate: Floats = field(default_factory=_no_floats)
    differs: Bools = field(default_factory=_no_bools)

    def __len__(self) -> int:
        return len(self.champion)

    @classmethod
    def of(cls, pairs: Sequence[ScorePair]) -> ScorePairs:
        return cls(
            champion=np.array([pair.champion for pair in pairs], dtype=np.float64),
            candidate=np.array([pair.candidate for pair in pairs], dtype=np.float64),
            differs=np.array([pair.differs for pair in pairs], dtype=np.bool_),
        )


@dataclass(frozen=True, eq=False)
class LossPairs:
    """Mirrored rows whose label has come [n]: each arm's loss, in the declared metric (Brier, squared error).

    `score`: the champion's score of the row; NaN where it is not known. `hour`: that of the request, since 1970 UTC.
    """

    champion: Floats = field(default_factory=_no_floats)
    candidate: Floats = field(default_factory=_no_floats)
    score: Floats = field(default_factory=_no_floats)
    hour: npt.NDArray[np.int64] = field(default_factory=_no_hours)

    def __len__(self) -> int:
        return len(self.champion)

    @classmethod
    def of(cls, graded: Sequence[LossPair]) -> LossPairs:
        return cls(
            champion=np.array([pair.champion for pair in graded], dtype=np.float64),
            candidate=np.array([pair.candidate for pair in graded], dtype=np.float64),
            score=np.array([pair.score for pair in graded], dtype=np.float64),  # None becomes NaN
            hour=np.array([pair.hour for pair in graded], dtype=np.int64),
        )


class ScorePair(msgspec.Struct, frozen=True, kw_only=True):
    """One row that both arms scored. Scores are of the positive class, or the predicted number."""

    champion: float
    candidate: float
    #: the decisions (past the threshold) differ
    differs: bool


class LossPair(msgspec.Struct, frozen=True, kw_only=True):
    """A mirrored row whose label has come: each arm's loss in it, in the declared metric (Brier, squared error)."""

    champion: float
    candidate: float
    #: the champion's score of the row
    score: float | None = None
    #: of the request, since 1970 UTC
    hour: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """Since the last look. `seconds` are of the controller's own steady clock, never of the wall.

    `own`: candidate's value less the champion's of metrics of your own, oriented so that more is worse. `hour`: of the
    mirrored rows, since 1970 UTC; only whether it is that of a labelled row matters.
    """

    seconds: float
    hour: int = 0
    requests: Requests = field(default_factory=Requests)
    pairs: ScorePairs = field(default_factory=ScorePairs)
    losses: LossPairs = field(default_factory=LossPairs)
    own: dict[str, Sequence[float]] = field(default_factory=dict)


def key_hash(key: str) -> int:
    """64 bits that stand for a key; 0 for no key."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little") or 1 if key else 0


def failed(exchange: Exchange) -> bool:
    """Whether the assigned arm did not answer: a server's error, a refusal for load or of a row (422), or an answer of

    What else the caller did wrong (other 4xx) is nobody's failure. One who left before the answer (499) may have waited
    for an arm that hangs: callers who leave anyway do so in both arms.
    """
    unanswered = exchange.status >= 500 or exchange.status in (_REFUSED_ROW, _BUSY, _LEFT)
    return unanswered or bool(exchange.fault) or exchange.rescued


def timed_out(exchange: Exchange) -> bool:
    return exchange.fault == "timeout" or exchange.status in (504, _LEFT)


def counting(exchanges: Iterable[Exchange], *, model: str, revision: int | None = None) -> list[Exchange]:
    """Those that count: predictions of this model, not forced, and assigned by the weights of `revision`."""
    return [
        exchange
        for exchange in exchanges
        if exchange.model == model
        and exchange.predicts
        and not exchange.forced
        and revision in (None, exchange.revision)
        and exchange.assigned in ARMS
    ]
