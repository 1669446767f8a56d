"""Texts of figures and names in reports, the same in every rendering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cumulant.flows.reports.content import Interval, StepReport
from cumulant.release.wording import rounded, version_name

_LOWER = frozenset(
    {"log_loss", "brier", "calibration_error", "cost", "mae", "rmse", "pinball", "mean_absolute_error", "error_rate"}
)
_TITLES = {
    "average_precision": "Average precision",
    "roc_auc": "ROC AUC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "calibration_error": "Calibration error",
    "cost": "Cost per row",
    "mae": "Mean absolute error",
    "rmse": "Root mean square error",
    "pinball": "Pinball loss",
    "r2": "R²",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
}
#: below this a figure is what rounding left of nothing
_NOISE = 1e-12
#: figures from here on are written with an exponent
_LARGE = 1e15
#: of many classes, those that are named
_CLASSES = 6
_VERDICTS = {
    "better": "Better",
    "worse": "Worse",
    "not_worse": "Not worse",
    "cannot_tell": "Cannot tell",
}


def higher_is_better(metric: str) -> bool:
    return metric not in _LOWER and not metric.startswith("pinball")


def title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " ").capitalize())


def verdict(word: str) -> str:
    """A verdict word for people; the word itself stays the vocabulary of programs."""
    return _VERDICTS.get(word, word.replace("_", " ").capitalize())


def gate_word(word: str, *, passed: bool) -> str:
    """The gate's answer in one word: the verdict where it passed, else that it refused."""
    return verdict(word) if passed else "Refused"


def rule_word(word: str, *, against: str, passed: bool) -> str:
    """A rule's verdict for people. Against a limit the words are about whether it is kept, and how surely."""
    if against != "limit":
        return verdict(word)
    if not passed:
        return "Broken"
    return "Kept" if word == "better" else "Kept, not surely"


def number(value: float | None) -> str:
    """A measured figure to three significant digits beyond a leading zero."""
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return "–"
    if abs(value) < _NOISE:
        return "0.000"
    if abs(value) >= 10_000:
        return f"{value:,.0f}" if abs(value) < _LARGE else f"{value:.3g}"
    if abs(value) >= 100:
        return f"{value:,.1f}"
    if abs(value) >= 1:
        return f"{value:.3f}".rstrip("0").rstrip(".") if value == int(value) else f"{value:.3f}"
    return f"{value:.3f}" if abs(value) >= 0.0995 else f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.4f}"


def interval(estimate: Interval | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{number(estimate.low)} to {number(estimate.high)}"


def figure(estimate: Interval | None) -> str:
    """A value with the ends of its interval, where it has one."""
    if estimate is None:
        return "–"
    return (
        number(estimate.value)
        if estimate.low is None or estimate.high is None
        else f"{number(estimate.value)} ({interval(estimate)})"
    )


def difference(gap: Interval | None) -> str:
    if gap is None:
        return "–"
    ends = gap.low is not None and gap.high is not None
    return f"{gap.value:+.3g}" + (f" ({gap.low:+.2g} to {gap.high:+.2g})" if ends else "")


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def share(value: float) -> str:
    """A share as a percentage that never rounds something to nothing."""
    percent = 100 * value
    if 0 < percent < 0.01:
        return "<0.01%"
    return f"{percent:.2f}%" if percent < 10 else f"{percent:.1f}%"


def quantity(value: float, unit: str) -> str:
    """A measured figure with its unit, to three figures: `97.2 /s`, `1,234 ms`; a share as a percentage."""
    return share(value) if unit == "%" else f"{rounded(value)} {unit}".rstrip()


def size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(when: datetime | None) -> str:
    return "–" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def day(when: datetime | None) -> str:
    return "–" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d")


def instant(when: datetime) -> str:
    """A time in UTC, to the second; a naive one is taken as UTC."""
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def steps(reports: Sequence[StepReport], seconds: float | None) -> str:
    """`features 0.2 s, search 14.6 s, ..., between them 0.5 s`: the time of each step that was done in a run of
    `seconds`; empty where none was.
    """
    done = [(step.name, step.seconds) for step in reports if not step.reused]
    rest = 0.0 if seconds is None else seconds - sum(spent for _, spent in done)
    if done and rest > 0:
        done.append(("between them", rest))
    return ", ".join(f"{name} {duration(spent)}" for name, spent in done)


def version(name: str) -> str:
    """`version 3`, or `server http://...` of an external one."""
    return version_name(name)


def plural(number_of: int, noun: str) -> str:
    return f"{number_of:,} {noun}" if number_of == 1 else f"{number_of:,} {noun}s"


def value(content: object) -> str:
    """Any value as short text: figures rounded, times in UTC, a dash for nothing."""
    if content is None or content == "":
        return "–"
    if isinstance(content, list | tuple | set | frozenset):
        return ", ".join(map(value, content)) or "–"
    return next((text(content) for kind, text in _VALUES if isinstance(content, kind)), str(content))


_VALUES: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (bool, lambda content: "true" if content else "false"),  # as the data, JSON and the project file write it
    (int, lambda content: count(content) if -(2**63) <= content < 2**63 else f"{Decimal(content):.3g}"),
    (float, number),
    (datetime, instant),
    (timedelta, lambda content: duration(content.total_seconds())),
)


def classes_text(counts: Mapping[str, int]) -> str:
    """The classes with their rows; of many the first and the rarest."""
    named = [f"{text} {count:,}" for text, count in counts.items()]
    if len(named) <= _CLASSES:
        return " · ".join(named)
    rarest = min(counts.items(), key=lambda pair: pair[1])
    return f"{len(named)}: {' · '.join(named[:_CLASSES])} · ...; the rarest is {rarest[0]} {rarest[1]:,}"
