"""One request on its way through a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cumulant.serving.scheduling import Feeds


class Work(msgspec.Struct, gc=False):
    """What the engine is to run for a request, and what the answer needs besides."""

    feeds: Feeds
    rows: int
    #: seconds between each row's moment and the newest stored state it used; empty without stored features
    ages: Sequence[float | None] = ()
    #: the rows as the caller sent them, for the prediction log; None where tensors were sent
    raw: Sequence[object] | None = None
    #: the same rows in the plan's types; empty where there is no plan
    checked: Sequence[Mapping[str, Any]] = ()
    #: of an experiment: the arm that answers
    arm: str = ""
    #: how a degraded answer was made: `servable`, `cached` or `constant`; empty for a full one
    fallback: str = ""
    #: one answer a row, where something else than the engine gave it
    answers: Sequence[Any] | None = None
    #: what the caller should know: columns that were ignored, and why
    warnings: tuple[str, ...] = ()

    def age(self) -> float | None:
        """The greatest age of stored features among the rows."""
        found = [age for age in self.ages if age is not None]
        return max(found) if found else None

    def parameters(self) -> dict[str, object]:
        """What the protocol's answer carries besides its outputs."""
        age = self.age()
        told: dict[str, object] = {} if age is None else {"state_age": age}
        if self.fallback:
            told["degraded"] = self.fallback
        return told | {"warnings": "\n".join(self.warnings)} if self.warnings else told
