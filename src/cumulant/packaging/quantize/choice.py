"""Choice between the forms of a graph, with reasons. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from cumulant.core.servable import FormResult
from cumulant.packaging.quantize.measure import FormTiming

Aim = Literal["size", "speed"]

ORIGINAL = "original"
#: faster means: at least this much, beyond the noise of the measurement
MARGIN = 0.05


class FormTrial(NamedTuple):
    """Measured form. `fault`: why it could not be measured; `note`: a hint for the user."""

    kind: str
    size: int = 0
    agreement: float = 0.0
    paces: tuple[FormTiming, ...] = ()
    fault: str = ""
    note: str = ""
    #: what the agreement is at least, given the number of rows; None: the agreement itself
    bound: float | None = None
    #: how far its answers are from the original's on rows that are no part of the agreement's
    distance: float = 0.0
    #: why too many answers of one kind change, where few of all do
    one_sided: str = ""

    @property
    def assured(self) -> float:
        return self.agreement if self.bound is None else self.bound


def choose_form(trials: Sequence[FormTrial], *, aim: Aim, accuracy_loss: float) -> tuple[FormResult, ...]:
    """The trials in their order, one of them chosen; the first is the original.

    Forms whose agreement has a bound are tested one after the other, the nearest to the original (on other rows) first,
    and no more after the first that does not keep the loss. So with 95% confidence all that pass keep it, however many
    were tried: each test is at its full level, and the first false one ends them (fixed sequence; Maurer, Hothorn and
    Lehmacher, 1995).

    `size`: the smallest within the loss, the faster of equals. `speed`: the fastest of those that are faster than
    the original beyond noise at one number of rows and slower at none. The original without such a form.
    """
    tested = _tested(trials, accuracy_loss)
    refusals = [
        _refusal(trial, trials[0], aim, accuracy_loss, tested=place in tested) for place, trial in enumerate(trials)
    ]
    fit = [trial for trial, refusal in zip(trials, refusals, strict=True) if not refusal]
    best = min(fit, key=_size_key if aim == "size" else _speed_key, default=trials[0])
    return tuple(_candidate(trial, refusal, best, aim) for trial, refusal in zip(trials, refusals, strict=True))


def _tested(trials: Sequence[FormTrial], accuracy_loss: float) -> set[int]:
    """The places of the forms that are tested: in the order of their distance, up to the first that fails."""
    tested = {place for place, trial in enumerate(trials) if trial.bound is None or trial.fault}
    for place in sorted(set(range(len(trials))) - tested, key=lambda place: trials[place].distance):
        tested.add(place)
        if not _keeps(trials[place], accuracy_loss):
            break
    return tested


def _keeps(trial: FormTrial, accuracy_loss: float) -> bool:
    # 1e-12: a loss of 0.01 allows 0.99, which 1 - 0.01 misses by a bit
    return not trial.one_sided and trial.assured >= 1 - accuracy_loss - 1e-12


def _refusal(trial: FormTrial, original: FormTrial, aim: Aim, accuracy_loss: float, *, tested: bool) -> str:
    """Why it cannot be taken; the original always can, if nothing else can."""
    if trial is original:
        return "no other form serves better"
    if trial.fault:
        return trial.fault
    if not tested:
        return "not tested: a form nearer to the original did not keep the loss"
    if not _keeps(trial, accuracy_loss):
        return trial.one_sided or _shortfall(trial, accuracy_loss)
    if aim == "size":
        return "" if trial.size < original.size else "not smaller than the original"
    return _slowness(trial)


def _shortfall(trial: FormTrial, accuracy_loss: float) -> str:
    requirement = f"less than the {1 - accuracy_loss:.2%} asked for"
    if trial.bound is None:
        return f"agrees on {trial.agreement:.2%}, {requirement}"
    return (
        f"agrees on {trial.agreement:.2%}, which shows {max(0.0, trial.bound):.2%} with 95% confidence, {requirement}"
    )


def _slowness(trial: FormTrial) -> str:
    if any(pace.low > 1 + MARGIN for pace in trial.paces):
        return f"slower than the original: {_times(trial)}"
    if not any(pace.high < 1 - MARGIN for pace in trial.paces):
        return f"not faster than the original beyond noise and {MARGIN:.0%}: {_times(trial)}"
    return ""


def _size_key(trial: FormTrial) -> tuple[float, float]:
    return trial.size, _relative(trial)


def _speed_key(trial: FormTrial) -> tuple[float, float]:
    return _relative(trial), trial.size


def _relative(trial: FormTrial) -> float:
    return math.exp(sum(math.log(pace.ratio) for pace in trial.paces) / max(1, len(trial.paces)))


def _candidate(trial: FormTrial, refusal: str, best: FormTrial, aim: Aim) -> FormResult:
    chosen = trial is best
    if chosen and not refusal:
        reason = "the smallest within the loss" if aim == "size" else "the fastest within the loss"
        reason = f"{reason}: {_times(trial)}"
    elif refusal and (chosen or trial.kind != ORIGINAL):
        reason = refusal
    else:
        reason = f"within the loss, but {best.kind} is {'smaller' if aim == 'size' else 'faster'}: {_times(trial)}"
    first = trial.paces[0] if trial.paces else None
    return FormResult(
        kind=trial.kind,
        size=trial.size,
        seconds=first.seconds / first.rows if first else 0.0,
        agreement=trial.agreement,
        chosen=chosen,
        reason="; ".join(part for part in (reason, trial.note) if part),
    )


def _times(trial: FormTrial) -> str:
    return ", ".join(f"{pace.ratio:.2f} of the time at {pace.rows} rows" for pace in trial.paces)
