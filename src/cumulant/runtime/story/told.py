"""What is told of the demo's releases."""

from __future__ import annotations

import msgspec


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage that was held: percent of the keys, active seconds, requests that counted in all and an arm."""

    name: str
    weight: float
    seconds: float
    samples: int
    champion_samples: int
    candidate_samples: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One release: what was released, what became of it and why. Failed requests are those that callers saw."""

    candidate: str
    version: str
    verdict: str
    reason: str
    stages: tuple[Stage, ...]
    failed_requests: int
    #: of them, by whose they were: `candidate`, `champion`, `gateway`, `caller`
    failed_by: dict[str, int]
    seconds: float
    id: str
