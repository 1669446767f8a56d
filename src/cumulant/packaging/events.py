"""Events of packaging."""

from __future__ import annotations

from typing import ClassVar

from cumulant.core.events import Fact


class ServableBuilt(Fact, frozen=True, kw_only=True):
    """A model was packaged and answers as it did in training, within the parity tolerance."""

    kind: ClassVar[str] = "packaging.servable_built"

    model: str
    sha256: str
    bytes: int
    parity_rows: int
    max_difference: float
    flips: int
