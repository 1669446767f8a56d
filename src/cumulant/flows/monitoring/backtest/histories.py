"""Kinds of training history: all rows alike, the newest, or all with newer ones weighing more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.units import duration, show_duration
from cumulant.monitoring.policy import HistoryPolicy

GROWING = "growing"
_HALF_LIFE = "half-life:"
#: spans that `all` tries, in lengths of what the first model is trained on
_SPANS = (1, 2, 4)


class TrainingHistory(msgspec.Struct, frozen=True):
    """One kind of history. `setting` is what to write as `monitoring.retrain.history`."""

    window: timedelta | None = None
    half_life: timedelta | None = None

    @property
    def name(self) -> str:
        """As on the command line."""
        window = [] if self.window is None else [show_duration(self.window)]
        half = [] if self.half_life is None else [_HALF_LIFE + show_duration(self.half_life)]
        return "+".join([*window, *half]) or GROWING

    @property
    def setting(self) -> str:
        keys = {"window": self.window, "half_life": self.half_life}
        entries = [f"{key}: {show_duration(span)}" for key, span in keys.items() if span is not None]
        return f"{{{', '.join(entries)}}}"

    def windows(self, every: timedelta) -> int | None:
        """The window in whole windows of the replay, at least one."""
        return None if self.window is None else max(1, round(self.window / every))


def declared_history(policy: HistoryPolicy) -> TrainingHistory:
    return TrainingHistory(window=policy.window, half_life=policy.half_life)


def parse_history(text: str) -> TrainingHistory:
    """`growing`, `90d`, `half-life:30d`, or both as `90d+half-life:30d`.

    Raises:
        UsageError: it is none of these.
    """
    window, half = None, None
    for word in text.strip().split("+"):
        if word == GROWING:
            continue
        if word.startswith(_HALF_LIFE):
            half = _span(text, word.removeprefix(_HALF_LIFE))
        else:
            window = _span(text, word)
    return TrainingHistory(window=window, half_life=half)


def _span(name: str, text: str) -> timedelta:
    hint = "write growing, a window as 90d, or half-life:30d; several with commas; or all"
    try:
        span = duration(text)
    except UsageError:
        raise UsageError(f'"{name}" is no kind of history', subject=name, hint=hint) from None
    if not span:
        raise UsageError(f'"{name}" holds no rows', subject=name, hint=hint)
    return span


def proposed(first: timedelta, whole: timedelta) -> tuple[TrainingHistory, ...]:
    """Growing, and windows and half-lives of some lengths of the first training, as far as the history goes."""
    spans = [first * times for times in _SPANS if first * times < whole]
    return (
        TrainingHistory(),
        *(TrainingHistory(window=span) for span in spans),
        *(TrainingHistory(half_life=span) for span in spans),
    )


def select_histories(
    text: str | None, own: TrainingHistory, *, first: timedelta, whole: timedelta
) -> Sequence[TrainingHistory]:
    """Those to compare: `all`, or as listed, the project's own included. None: nothing is compared.

    Raises:
        UsageError: one is none.
    """
    if text is None:
        return ()
    histories = proposed(first, whole) if text == "all" else tuple(parse_history(word) for word in text.split(","))
    return tuple(dict.fromkeys((own, *histories)))
