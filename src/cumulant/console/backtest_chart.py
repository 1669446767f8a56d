"""The chart of a backtest: the loss of each retraining policy over the replayed windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.console.charts import Cell, Chart, numbered
from cumulant.core.units import duration
from cumulant.flows.reports.svg_elements import BOTTOM, Child, Frame, draw, element
from cumulant.flows.reports.wording import number

if TYPE_CHECKING:
    from datetime import datetime

    from cumulant.flows.monitoring.backtest.backtest_record import BacktestResult

_WIDTH, _HEIGHT = 960.0, 300.0
#: policies that are drawn, the first and the best; dates below the axis
_MOST, _LABELS = 4, 6


def backtest_rows(result: BacktestResult) -> tuple[list[str], list[list[Cell]]]:
    """Heads and rows: the beginning of each window, and each policy's loss in it."""
    heads = ["window", *(policy.rule for policy in result.rules)]
    looks = max((len(policy.losses) for policy in result.rules), default=0)
    rows: list[list[Cell]] = [
        [f"{window_begin(result, place):%Y-%m-%d %H:%M}", *(policy.losses[place] for policy in result.rules)]
        for place in range(looks)
    ]
    return heads, rows


def window_begin(result: BacktestResult, place: int) -> datetime:
    """When an evaluated window begins: they are the last ones of the history."""
    looks = max((len(policy.losses) for policy in result.rules), default=0)
    return result.start + (result.windows - looks + place) * duration(result.every)


def backtest_chart(result: BacktestResult, link: str) -> Chart | None:
    """The losses of the first policies as lines, their trainings as dots; None with fewer than two windows."""
    heads, rows = backtest_rows(result)
    ordered = [result.rules[0], *sorted(result.rules[1:], key=lambda policy: policy.loss)] if result.rules else []
    shown = ordered[:_MOST]
    known = [loss for policy in shown for loss in policy.losses if loss is not None]
    if len(rows) < 2 or not known:
        return None
    frame = Frame((0, len(rows) - 1), (0.0, 1.08 * max(known)), width=_WIDTH, height=_HEIGHT)
    parts: list[Child] = [frame.rows(f"{result.loss.replace('_', ' ')} of a window"), frame.baseline("window")]
    every = duration(result.every)
    for kind, policy in enumerate(shown):
        points = [(place, loss) for place, loss in enumerate(policy.losses) if loss is not None]
        parts.append(frame.line(points, f"policy-line policy{kind}"))
        for moment in policy.trainings:
            place = (moment - window_begin(result, 0)) / every
            inside = [(x, loss) for x, loss in points if x >= place - 0.5]
            if inside and place >= -0.5:
                note = f"{policy.rule}: trained on {moment:%Y-%m-%d}"
                parts.append(frame.dot(*inside[0], 3.5, f"dot kind{kind}", note))
    last = len(rows) - 1
    for place in sorted({round(part * last / (_LABELS - 1)) for part in range(_LABELS)}):
        style = {0: "start", last: "end"}.get(place, "middle")
        text = f"{window_begin(result, place):%Y-%m-%d}"
        parts.append(element("text", text, x=frame.x(place), y=_HEIGHT - BOTTOM + 16, class_=f"tick {style}"))
    losses = ", ".join(f"{policy.rule} {number(policy.loss)}" for policy in shown)
    drawing = draw(
        f"Losses of retraining policies in {len(rows)} windows: {losses}", *parts, width=_WIDTH, height=_HEIGHT
    )
    legend = [(f"kind{kind}", policy.rule) for kind, policy in enumerate(shown)]
    return Chart(
        "Losses of retraining policies", drawing, numbered(*heads), rows, link, note="Dots: trainings.", legend=legend
    )
