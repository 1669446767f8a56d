"""Work of one request on a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from cumulant.core.errors import RequestError
from cumulant.servable.engine import Array
from cumulant.serving.errors import HttpError
from cumulant.serving.scheduling.runner import Feeds

#: plain rows are read on the event loop, some 10 microseconds each: more of them would hold up every other request
MOST_ROWS = 10_000


def check_count(rows: int) -> None:
    """Raises HttpError (413) for more rows than one request may bring; called before they are made of what came."""
    if rows > MOST_ROWS:
        raise row_count_error(rows)


def row_count_error(rows: int) -> RequestError:
    """Error for a request without rows, or with more than `MOST_ROWS`."""
    if rows:
        text = f"{rows} rows in one request, where {MOST_ROWS} may be"
        return HttpError(413, text, hint="send them in several requests")
    return RequestError("there are no rows to score", hint="send one row or more, as an object with its fields each")


class ReasonsRequest(msgspec.Struct, frozen=True, gc=False):
    """Requested reasons: `count` per row; `decided`: only of rows that are predicted true."""

    count: int
    decided: bool = False


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
    #: None: no reasons are wanted
    reasons: ReasonsRequest | None = None
    #: reads stored features over a network and sets `feeds`; None: they are set
    read_state: Callable[[], Awaitable[None]] | None = None

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
