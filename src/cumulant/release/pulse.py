"""The quick look, once a second: failures that need no statistics."""

from __future__ import annotations

import msgspec

from cumulant.core.traffic import CANDIDATE, CHAMPION
from cumulant.core.units import duration, share
from cumulant.release.spec import CeilingSpec


class ArmPulse(msgspec.Struct, frozen=True, kw_only=True):
    """One arm in the last seconds."""

    #: seconds for which no server of the arm has been ready; 0 while one is
    not_ready: float = 0.0
    #: of its servers, in the last minute
    restarts: int = 0
    requests: int = 0
    failures: int = 0
    #: answers that do not have the outputs that the champion's have
    misshapen: int = 0


class Pulse(msgspec.Struct, frozen=True, kw_only=True):
    champion: ArmPulse = ArmPulse()
    candidate: ArmPulse = ArmPulse()

    def of(self, arm: str) -> ArmPulse:
        return self.candidate if arm == CANDIDATE else self.champion


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """A hard failure. `shared`: the champion has it too, so it is not the candidate's."""

    text: str
    shared: bool


def trouble(pulse: Pulse, ceilings: CeilingSpec) -> Trouble | None:
    """The candidate's hard failure, told in words; None where there is none."""
    if pulse.candidate.misshapen:
        answers = "an answer" if pulse.candidate.misshapen == 1 else f"{pulse.candidate.misshapen} answers"
        return Trouble(text=f"the candidate gave {answers} of another shape than the champion's", shared=False)
    text = _failure(pulse.candidate, ceilings)
    if text is None:
        return None
    return Trouble(text=f"the candidate {text}", shared=_failure(pulse.of(CHAMPION), ceilings) is not None)


def _failure(arm: ArmPulse, ceilings: CeilingSpec) -> str | None:
    if arm.restarts >= ceilings.restarts:
        return f"was started again {arm.restarts} times within a minute"
    if arm.not_ready > duration(ceilings.not_ready).total_seconds():
        return f"has had no server that is ready for {arm.not_ready:.0f} s"
    if arm.requests >= ceilings.requests and arm.failures > share(ceilings.errors) * arm.requests:
        return f"failed {arm.failures} of its last {arm.requests} requests"
    return None
