"""Pictures of an evaluation, drawn from its curves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cumulant.core.errors import StorageError, missing_part
from cumulant.training.records import Curve, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _SOFT, _ALERT = "#1f4e79", "#9db7cf", "#c0504d"
_MOST_FEATURES = 20


def save_plots(evaluation: Evaluation, folder: Path, *, title: str = "") -> list[Path]:
    """Write a PNG of each curve that `evaluation` has, and of the importance; returns the files.

    Raises:
        MissingPartError: matplotlib is not installed.
        StorageError: the folder cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_part("matplotlib", "train") from None
    saved = []
    for name, draw in _drawings(evaluation).items():
        # a figure of its own, without pyplot: nothing is shared with a caller's plots
        figure = Figure(figsize=(6, 4.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if title:
            figure.suptitle(title, fontsize=10)
        path = folder / f"{name}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, metadata={"Software": None})
        except OSError as error:
            raise StorageError(
                f"the plot {path.name} cannot be written: {error.strerror}", subject=path.name
            ) from error
        saved.append(path)
    return saved


def _drawings(evaluation: Evaluation) -> dict[str, Callable[[Axes], None]]:
    known: dict[str, Callable[[Axes, Curve], None]] = {
        "calibration": _draw_calibration,
        "precision_recall": _draw_precision_recall,
        "roc": _draw_roc,
        "scores": _draw_scores,
        "residuals": _draw_residuals,
        "threshold": lambda axes, curve: _draw_threshold(axes, curve, evaluation.threshold),
        "confusion": _draw_confusion,
    }
    found: dict[str, Callable[[Axes], None]] = {
        name: _bound(known[name], curve) for name, curve in evaluation.curves.items() if name in known
    }
    if evaluation.importance:
        found["importance"] = lambda axes: _draw_importance(axes, evaluation.importance)
    return found


def _bound(draw: Callable[[Axes, Curve], None], curve: Curve) -> Callable[[Axes], None]:
    return lambda axes: draw(axes, curve)


def _draw_calibration(axes: Axes, curve: Curve) -> None:
    said, seen = curve.columns["predicted"], curve.columns["observed"]
    low, high = min(*said, *seen), max(*said, *seen)
    axes.plot([low, high], [low, high], color=_SOFT, linestyle="--", label="as predicted")
    axes.plot(said, seen, color=_INK, marker="o", label="observed")
    _label(axes, "predicted", "observed", curve.text)
    axes.legend(frameon=False, loc="upper left")


def _draw_precision_recall(axes: Axes, curve: Curve) -> None:
    axes.plot(curve.columns["recall"], curve.columns["precision"], color=_INK)
    axes.set_ylim(0, 1.02)
    _label(axes, "recall", "precision", curve.text)


def _draw_roc(axes: Axes, curve: Curve) -> None:
    axes.plot([0, 1], [0, 1], color=_SOFT, linestyle="--")
    axes.plot(curve.columns["false_positive_rate"], curve.columns["true_positive_rate"], color=_INK)
    _label(axes, "negatives called positive", "positives found", curve.text)


def _draw_scores(axes: Axes, curve: Curve) -> None:
    columns = curve.columns
    width = columns["to"][0] - columns["from"][0]
    for name, color in (("negative", _SOFT), ("positive", _ALERT)):
        axes.bar(columns["from"], columns[name], width=width, align="edge", color=color, alpha=0.8, label=name)
    axes.set_yscale("symlog")
    _label(axes, "predicted probability", "rows", curve.text)
    axes.legend(frameon=False, loc="upper right")


def _draw_residuals(axes: Axes, curve: Curve) -> None:
    columns = curve.columns
    width = columns["to"][0] - columns["from"][0]
    axes.bar(columns["from"], columns["rows"], width=width, align="edge", color=_INK)
    _label(axes, "truth less prediction", "rows", curve.text)


def _draw_threshold(axes: Axes, curve: Curve, threshold: float | None) -> None:
    columns = curve.columns
    axes.plot(columns["threshold"], columns["precision"], color=_INK, label="precision")
    axes.plot(columns["threshold"], columns["recall"], color=_ALERT, label="recall")
    if threshold is not None and threshold <= 1:
        axes.axvline(threshold, color=_SOFT, linestyle="--", label="threshold")
    _label(axes, "threshold", "share", curve.text)
    axes.legend(frameon=False, loc="lower left")


def _draw_confusion(axes: Axes, curve: Curve) -> None:
    names = [name.removeprefix("predicted ") for name in curve.columns]
    table: Any = list(zip(*curve.columns.values(), strict=True))
    axes.imshow(table, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    _label(axes, "predicted", "true", curve.text)


def _draw_importance(axes: Axes, importance: dict[str, float]) -> None:
    pairs = list(importance.items())[:_MOST_FEATURES][::-1]
    axes.barh([name for name, _ in pairs], [share for _, share in pairs], color=_INK)
    axes.tick_params(axis="y", labelsize=8)
    _label(axes, "share of the model's gain", "", "what the model uses")


def _label(axes: Axes, x: str, y: str, text: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(text, fontsize=9)
