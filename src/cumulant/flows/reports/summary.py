"""The terminal summary at the end of `train`, `evaluate` and `demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from cumulant.core.errors import join_names
from cumulant.flows.reports import wording
from cumulant.flows.reports.content import GateReport, Interval, ReportData, TrainingReport
from cumulant.flows.reports.decisions import trials_text
from cumulant.flows.reports.terminal import clean, pairs, table, warn
from cumulant.flows.reports.wording import share as percent

if TYPE_CHECKING:
    from rich.console import Console

BAR = 22
SHOWN_FEATURES = 12


def show_training(console: Console, report: ReportData) -> None:
    """Rows and quarantine, features, folds, best trial, metrics beside naive, the gate's verdict, the model."""
    show_data(console, report)
    pairs(console, [*_features(report), *(_search(report.training) if report.training is not None else [])])
    show_metrics(console, report)
    if report.gate is not None:
        show_gate(console, report.gate)
    if report.training is not None:
        warn(console, report.training.warnings)
    if report.uri is not None:
        aliases = f"  {', '.join(report.aliases)}" if report.aliases else ""
        console.print(Text.assemble(("model    ", "dim"), (clean(report.uri), "bold"), (clean(aliases), "green")))


def show_data(console: Console, report: ReportData) -> None:
    """One line a source: a bar of what passed, and the figures."""
    rows = []
    for source in report.sources:
        whole = source.rows_in or 1
        rows.append(
            (
                source.name,
                source.rows_in,
                source.rows_passed,
                source.rows_quarantined,
                source.rows_dropped,
                percent(source.rows_quarantined / whole),
            )
        )
    console.print(table(["source", "rows in", "passed", "quarantined", "dropped", "refused"], rows, right=["refused"]))
    for source in report.sources:
        warn(console, (f"{source.name}: {text}" for text in source.warnings))


def show_metrics(console: Console, report: ReportData) -> None:
    """Each figure with its interval, beside the naive baseline, and both drawn on one scale."""
    with_naive = any(metric.naive for metric in report.metrics)
    rows = []
    for metric in report.metrics:
        better = "↑" if metric.higher_is_better else "↓"
        cells: list[object] = [
            f"{wording.title(metric.name)} {better}",
            Text(wording.number(metric.model.value), style="bold"),
            wording.interval(metric.model),
        ]
        if with_naive:
            cells += [wording.number(metric.naive.value) if metric.naive else "–"]
            if console.width >= 84:
                cells.append(draw_intervals(metric.model, metric.naive))
        rows.append(cells)
    measured = "tested model" if report.of_tested else "model"
    heads = ["on the test rows", measured, "95% interval"] + (["naive"] if with_naive else [])
    if with_naive and console.width >= 84:
        heads.append("")
    console.print(table(heads, rows, right=[measured, "95% interval", "naive"]))


def show_gate(console: Console, gate: GateReport) -> None:
    """The verdict word, the rules, and what they do not measure."""
    style = "green" if gate.passed else "red"
    console.print(
        Text.assemble(
            ("gate     ", "dim"),
            (wording.gate_word(gate.verdict, passed=gate.passed), f"bold {style}"),
            f"  against {clean(gate.reference)}",
        )
    )
    for rule in gate.rules:
        mark = ("  ✓ ", "green") if rule.passed else ("  ✗ ", "red")
        word = wording.rule_word(rule.word, against=rule.against, passed=rule.passed).lower()
        value = f"{wording.number(rule.value.value)}, " if rule.value else ""
        gap = f", by {rule.difference.value:+.3g}" if rule.difference and rule.against != "limit" else ""
        console.print(Text.assemble(mark, clean(rule.text), (clean(f"  ({value}{word}{gap})"), "dim")), soft_wrap=True)
    warn(console, gate.warnings)


def draw_intervals(model: Interval, naive: Interval | None) -> Text:
    """Two intervals on one scale: the model's as a line with a dot, the naive one's below it in the same cells."""
    from cumulant.flows.reports.report_charts import bounds

    low, high = bounds([model, naive])
    cells = [(" ", "")] * BAR
    for interval, line, dot, style in ((naive, "┄", "○", "yellow"), (model, "━", "●", "cyan")):
        if interval is None:
            continue
        first, last = (
            (interval.low, interval.high)
            if interval.low is not None and interval.high is not None
            else (interval.value, interval.value)
        )
        for index in range(_place(first, low, high), _place(last, low, high) + 1):
            cells[index] = (line, style)
        cells[_place(interval.value, low, high)] = (dot, f"bold {style}")
    return Text.assemble(*cells)


def _place(value: float, low: float, high: float) -> int:
    return min(BAR - 1, max(0, round((value - low) / ((high - low) or 1) * (BAR - 1))))


def _features(report: ReportData) -> list[tuple[str, object]]:
    names = [feature.name for feature in report.features]
    return [("features", f"{len(names)}: {join_names(names, SHOWN_FEATURES)}")] if names else []


def _search(training: TrainingReport) -> list[tuple[str, object]]:
    best = next((trial for trial in training.trials if trial.number == training.best), None)
    folds = [fold for fold in training.folds if fold.name != "test"]
    learned = f"{training.rows:,} rows to learn from, {training.test_rows:,} held out"
    if training.unlabelled:
        learned += f", {training.unlabelled:,} without a label"
    rows: list[tuple[str, object]] = [("rows", learned)]
    if training.classes:
        rows.append(("classes", wording.classes_text(training.classes)))
    if folds:
        timed = all(fold.held_to for fold in folds)
        rows.append(("folds", f"{len(folds)} in time order" if timed else f"{len(folds)}"))
    if best is not None:
        settings = ", ".join(f"{name} {value}" for name, value in best.settings.items())
        score = (
            f", {wording.title(training.score_name)} {wording.number(best.score)} over the folds"
            if best.score is not None
            else ""
        )
        rows.append(("search", trials_text(training.trials)))
        short = "; its fits were cut short by the time" if best.shortened else ""
        rows.append(("best trial", f"number {best.number}: {best.trainer}{score}{short}"))
        if settings:
            rows.append(("", Text(clean(settings), style="dim")))
    if training.blend is not None and training.blend.taken:
        gain = wording.interval(training.blend.gain)
        rows.append(
            ("model", f"{training.blend.text}; better than {training.blend.best} alone by {gain} over the folds")
        )
    return rows + [("note" if index == 0 else "", note) for index, note in enumerate(training.notes)]
