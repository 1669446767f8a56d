"""Work of one request on a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cumulant.servable.engine import Array
from cumulant.serving.reasons.reasoning import ReasonsRequest
from cumulant.serving.scheduling.runner import Feeds


class RequestWork(msgspec.Struct, gc=False):
    """Engine inputs of a request, and other data for its answer."""

    feeds: Feeds
    rows: int
    #: seconds between each row's moment and the newest stored state it used; empty without stored features
    ages: Sequence[float | None] = ()
    #: the rows as the caller sent them, for the prediction log; None where tensors were sent
    raw: Sequence[object] | None = None
    #: the same rows in the plan's types; empty where there is no plan
    checked: Sequence[Mapping[str, Any]] = ()
    #: how a degraded answer was made: `servable`, `cached` or `constant`; empty for a full one
    fallback: str = ""
    #: one answer a row, where something else than the engine gave it
    answers: Sequence[Any] | None = None
    #: what the caller should know: columns that were ignored, and why
    warnings: tuple[str, ...] = ()
    #: for each row the rules of the data contract that it breaks, as `amt:min`; empty where no row breaks any
    invalid: Sequence[str] = ()
    #: the places of rows that break a rule which a source's rows have to keep: no later row counts them
    refused: frozenset[int] = frozenset()
    #: None: no reasons are wanted
    reasons: ReasonsRequest | None = None
    #: reads stored features over a network and sets `feeds`; None: they are set
    read_state: Callable[[], Awaitable[None]] | None = None
    #: features by name, each a list over the rows; None without stored features
    vectors: Mapping[str, Sequence[Any]] | None = None
    #: by the place of a row, its features that may lack events, as in `Answer.incomplete`
    incomplete: Mapping[int, tuple[str, ...]] = {}

    def accepted(self) -> Sequence[Mapping[str, Any]]:
        """The rows in the plan's types that the data contract accepts."""
        if not self.refused:
            return self.checked
        return [row for place, row in enumerate(self.checked) if place not in self.refused]

    def age(self) -> float | None:
        """The greatest age of stored features among the rows."""
        ages = [age for age in self.ages if age is not None]
        return max(ages) if ages else None

    def parameters(self) -> dict[str, object]:
        """Response parameters of the protocol."""
        age = self.age() if self.ages else None
        parameters: dict[str, object] = {} if age is None else {"state_age": age}
        if self.fallback:
            parameters["degraded"] = self.fallback
        return parameters | {"warnings": "\n".join(self.warnings)} if self.warnings else parameters


class FallbackAnswers(Protocol):
    """Answers of a model whose runner refuses; `counts` by kind, as in `RequestWork.fallback`."""

    counts: dict[str, int]

    def raw(self, work: RequestWork) -> list[Array] | None:
        """Outputs for `work`; None where there is no answer."""
        ...
