"""The steps of a release: from mirrored requests to the last holdback."""

from __future__ import annotations

from typing import Literal

import msgspec

StageName = Literal["shadow", "ab", "canary", "holdback"]


class ReleaseStep(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of the gateway, held until its figures suffice. Percent of keys; times in seconds."""

    stage: StageName
    weight: float = 0.0
    mirror: float = 0.0
    at_least: float
    at_most: float
    #: of each arm that answers; in shadow, mirrored requests
    samples: int

    @property
    def label(self) -> str:
        """`shadow`, `ab 10%`, `canary 50%`, `holdback 5%`."""
        if self.stage == "holdback":
            return f"holdback {100 - self.weight:g}%"
        return self.stage if self.stage == "shadow" else f"{self.stage} {self.weight:g}%"
