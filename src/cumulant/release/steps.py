"""The steps of a release, worked out of its spec: from mirrored requests to the last holdback."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.units import duration, share
from cumulant.release.spec import HoldbackSpec, ReleaseSpec

StageName = Literal["shadow", "ab", "canary", "holdback"]


class Step(msgspec.Struct, frozen=True, kw_only=True):
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


def steps(spec: ReleaseSpec) -> tuple[Step, ...]:
    """All steps in order; after the last one the candidate is promoted.

    Raises:
        UsageError: the shares of the canary do not grow, nothing is left to compare with, or an approval
            before the canary has no stage to wait in.
    """
    if not duration(spec.look).total_seconds() > 0:
        raise UsageError(
            f"release.look is {spec.look}, and nothing comes between two looks",
            subject="release.look",
            hint="write how long lies between two looks, such as 10s",
        )
    found = tuple(_steps(spec))
    if spec.approval != "none" and spec.approval.before == "canary" and found[0].stage == "canary":
        raise UsageError(
            "release.approval waits before the canary, which is the first stage",
            subject="release.approval.before",
            hint="keep the stage `shadow` or `ab`, or write `before: promote`",
        )
    return found


def _steps(spec: ReleaseSpec) -> Iterator[Step]:
    stages = spec.stages
    if stages.shadow is not None:
        one = stages.shadow
        if one.samples and not _percent(one.mirror):
            raise UsageError(
                f"release.stages.shadow waits for {one.samples} mirrored requests, and mirrors none",
                subject="release.stages.shadow.mirror",
                hint="write a share above 0%, or `shadow: null`",
            )
        yield _step("shadow", one.at_least, one.at_most, one.samples, mirror=_percent(one.mirror))
    weights = [_percent(weight) for weight in stages.canary.weights]
    _check(weights)
    if stages.ab is not None:
        yield _step(
            "ab",
            stages.ab.at_least,
            stages.ab.at_most,
            stages.ab.samples,
            weight=_split(stages.ab.weight),
            mirror=_percent(stages.ab.mirror),
        )
    canary = stages.canary
    for weight in weights:
        least = canary.soak if weight == weights[-1] else canary.at_least
        yield _step("canary", least, canary.at_most, canary.samples, weight=weight, mirror=_percent(canary.mirror))

    if (held := holdback_of(spec)) is not None:
        weight = 100 - _percent(held.share)
        if not weights[-1] <= weight < 100:
            raise UsageError(
                f"release.holdback keeps {held.share} on the champion, after {100 - weights[-1]:g}% in the canary",
                subject="release.holdback.share",
                hint="write a share above 0% and at most what the last step of the canary leaves to the champion",
            )
        yield _step("holdback", "0s", held.at_most, 0, weight=weight, mirror=_percent(held.mirror))


def holdback_of(spec: ReleaseSpec) -> HoldbackSpec | None:
    """The holdback as it is declared; None where there is none."""
    if isinstance(spec.holdback, HoldbackSpec):
        return spec.holdback
    return HoldbackSpec() if spec.holdback == "until_labels" else None


def _step(
    stage: StageName, at_least: str, at_most: str, samples: int, *, weight: float = 0.0, mirror: float = 0.0
) -> Step:
    least, most = duration(at_least).total_seconds(), duration(at_most).total_seconds()
    if most < least:
        raise UsageError(
            f"the longest time of release.stages.{stage} ({at_most}) is shorter than its shortest ({at_least})",
            subject=f"release.stages.{stage}.at_most",
            hint="raise at_most or lower at_least",
        )
    return Step(stage=stage, weight=weight, mirror=mirror, at_least=least, at_most=most, samples=samples)


def _percent(text: str | float) -> float:
    return round(share(text) * 100, 6)


def _split(text: str | float) -> float:
    weight = _percent(text)
    if not 0 < weight < 100:
        raise UsageError(
            f"release.stages.ab has a weight of {weight:g}%, which leaves one of the arms without requests to compare",
            subject="release.stages.ab.weight",
            hint="write a share above 0% and below 100%, such as 10%, or `ab: null` to leave the stage out",
        )
    return weight


def _check(weights: list[float]) -> None:
    if any(later <= earlier for earlier, later in itertools.pairwise(weights)) or weights[0] <= 0:
        raise UsageError(
            f"the weights of release.stages.canary do not grow: {', '.join(f'{one:g}%' for one in weights)}",
            subject="release.stages.canary.weights",
            hint="write growing shares, such as [10%, 50%, 95%]",
        )
    if weights[-1] >= 100:
        raise UsageError(
            "release.stages.canary.weights ends at 100%, where nothing is left on the champion to compare with",
            subject="release.stages.canary.weights",
            hint="end at 95%; after that step the candidate gets all traffic by itself",
        )
