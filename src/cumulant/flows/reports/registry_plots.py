"""The curves of an evaluation as files, for the registry: drawn as the report draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import StorageError
from cumulant.flows.reports import model_content, report_charts
from cumulant.flows.reports.svg_elements import BOTTOM, HEIGHT, RIGHT, TOP, WIDTH, Child, Drawing, Frame, draw, element
from cumulant.flows.reports.wording import count, number

if TYPE_CHECKING:
    from cumulant.training.records import Curve, Evaluation

_MOST_FEATURES = 20
#: classes of a confusion matrix that are named, and those whose cells hold their count
_NAMED, _COUNTED = 24, 10
#: letters of the name of a class and of a feature beside a drawing, and the units that one takes at most
_CLASS, _FEATURE, _LETTER = 16, 26, 7.0
#: share from which a cell is so dark that its count is light
_DARK = 0.55


def save_plots(evaluation: Evaluation, folder: Path, *, title: str = "") -> list[Path]:
    """Write an SVG of each curve that `evaluation` has, and of the importance; returns the files.

    Raises:
        StorageError: the folder cannot be written.
    """
    saved = []
    for name, (drawing, text) in draw_plots(evaluation).items():
        path = folder / f"{name}.svg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(drawing.document(title, text), encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"the plot {path.name} cannot be written: {error.strerror}", subject=path.name
            ) from error
        saved.append(path)
    return saved


def draw_plots(evaluation: Evaluation) -> dict[str, tuple[Drawing, str]]:
    """Name -> the drawing of each curve and of the importance, with a sentence about it."""
    drawings: dict[str, tuple[Drawing, str]] = {}
    for name, curve in model_content.named_curves(evaluation).items():
        if (figure := report_charts.curve(curve)) is not None:
            drawings[name] = figure.drawing, evaluation.curves[name].text
    others: Mapping[str, Callable[[Curve], Drawing]] = {
        "scores": draw_scores,
        "residuals": draw_residuals,
        "threshold": lambda curve: draw_threshold(curve, evaluation.threshold),
        "confusion": draw_confusion,
    }
    for name, plot in others.items():
        if name in evaluation.curves:
            drawings[name] = plot(evaluation.curves[name]), evaluation.curves[name].text
    if evaluation.importance:
        drawings["importance"] = draw_importance(evaluation.importance), "what the model uses"
    return drawings


def draw_scores(curve: Curve) -> Drawing:
    """How many rows of each class have a predicted probability, with the numbers of rows by their logarithm."""
    starts, ends = curve.columns["from"], curve.columns["to"]
    sides = {name: curve.columns[name] for name in ("negative", "positive")}
    frame = Frame((starts[0], ends[-1]), (0.0, max(1.0, *map(max, sides.values()))), log_y=True)
    bars = [
        frame.bar((start, end), rows, f"bar {name}", f"{number(start)} to {number(end)}: {count(round(rows))} {name}")
        for name, column in sides.items()
        for start, end, rows in zip(starts, ends, column, strict=True)
        if rows > 0
    ]
    axes = frame.axes("predicted probability", "rows")
    return draw(
        "Rows by predicted probability and class", axes, *bars, *_legend({name: f"bar {name}" for name in sides})
    )


def draw_residuals(curve: Curve) -> Drawing:
    """How many rows have a difference between truth and prediction."""
    starts, ends, rows = (curve.columns[name] for name in ("from", "to", "rows"))
    frame = Frame((starts[0], ends[-1]), (0.0, max(1.0, *rows)))
    bars = [
        frame.bar((start, end), high, "bar", f"{number(start)} to {number(end)}: {count(round(high))} rows")
        for start, end, high in zip(starts, ends, rows, strict=True)
        if high > 0
    ]
    return draw("Rows by truth less prediction", frame.axes("truth less prediction", "rows"), *bars)


def draw_threshold(curve: Curve, chosen: float | None) -> Drawing:
    """Precision and recall at each threshold, and the chosen one."""
    at = curve.columns["threshold"]
    frame = Frame((min(0.0, *at), max(1.0, *at)), (0.0, 1.0))
    lines = {"precision": "model", "recall": "second"}
    drawn: list[Child] = [frame.line(zip(at, curve.columns[name], strict=True), style) for name, style in lines.items()]
    if chosen is not None and frame.x0 <= chosen <= frame.x1:
        drawn.append(frame.line([(chosen, 0.0), (chosen, 1.0)], "ideal"))
        lines["threshold"] = "ideal"
    return draw(
        "Precision and recall at each threshold", frame.axes("threshold", "share"), *drawn, *_legend(lines, line=True)
    )


def draw_confusion(curve: Curve) -> Drawing:
    """A cell for each true and predicted class, darker the more rows it holds."""
    names = [name.removeprefix("predicted ") for name in curve.columns]
    columns = list(curve.columns.values())
    margin = _room(names, _CLASS)
    bottom = HEIGHT - margin
    across, down = (WIDTH - RIGHT - margin) / len(names), (bottom - TOP) / len(names)
    most = max((max(column) for column in columns), default=0.0) or 1.0
    parts: list[Child] = []
    for place, column in enumerate(columns):
        for row, rows in enumerate(column):
            x, y = margin + place * across, TOP + row * down
            if not rows and len(names) > _COUNTED:
                continue
            note = f"true {names[row]}, predicted {names[place]}: {count(round(rows))} rows"
            cell = {"x": _units(x), "y": _units(y), "width": _units(across), "height": _units(down)}
            shade = f"{rows / most:.3f}"
            parts.append(element("rect", element("title", note), class_="bar", fill_opacity=shade, **cell))
            if len(names) <= _COUNTED:
                style = "middle reversed" if rows / most > _DARK else "middle"
                text = {"x": _units(x + across / 2), "y": _units(y + down / 2 + 4), "class_": style}
                parts.append(element("text", count(round(rows)), **text))
    for place in range(0, len(names), -(-len(names) // _NAMED)):
        x, y = margin + (place + 0.5) * across, TOP + (place + 0.5) * down
        parts.append(_name(names[place], _CLASS, margin - 6, y + 4))
        turned = f"translate({x + 4:.1f} {bottom + 6:.1f}) rotate(-60)"
        parts.append(element("text", _short(names[place], _CLASS), transform=turned, class_="tick end"))
    return draw("Rows by true class, downwards, and predicted class, across", *parts)


def draw_importance(shares: Mapping[str, float]) -> Drawing:
    """The features with the largest shares of the model's gain, as bars."""
    largest = list(shares.items())[:_MOST_FEATURES]
    margin, height = _room([name for name, _ in largest], _FEATURE), 22.0
    most = max((share for _, share in largest), default=0.0) or 1.0
    parts: list[Child] = []
    for place, (name, share) in enumerate(largest):
        y = TOP + place * height
        width = _units(max(share, 0.0) / most * (WIDTH - RIGHT - margin - 44))
        parts.append(_name(name, _FEATURE, margin - 6, y + 15))
        parts.append(element("rect", x=margin, y=_units(y + 4), width=width, height=height - 8, class_="bar"))
        parts.append(element("text", number(share), x=_units(margin + width + 6), y=_units(y + 15), class_="tick"))
    text = "Share of the model's gain by feature"
    return draw(text, *parts, height=TOP + len(largest) * height + BOTTOM / 2)


def _legend(styles: Mapping[str, str], *, line: bool = False) -> list[Child]:
    """Names beside samples of their styles, in the upper right corner, above the plot area's lines."""
    parts: list[Child] = []
    for place, (name, style) in enumerate(styles.items()):
        x, y = WIDTH - RIGHT - 96, TOP + 14 + 16 * place
        if line:
            parts.append(element("line", x1=x, x2=x + 18, y1=y - 4, y2=y - 4, class_=style))
        else:
            parts.append(element("rect", x=x + 4, y=y - 9, width=10, height=10, class_=style))
        parts.append(element("text", name, x=x + 24, y=y, class_="tick"))
    return parts


def _name(name: str, letters: int, x: float, y: float) -> Child:
    """A name that ends at `x`; cut where it is long, with the whole of it in its tip."""
    return element("text", element("title", name), _short(name, letters), x=_units(x), y=_units(y), class_="tick end")


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _room(names: Sequence[str], letters: int) -> float:
    return _units(16 + _LETTER * max((len(_short(name, letters)) for name in names), default=0))


def _units(value: float) -> float:
    return round(value, 1)
