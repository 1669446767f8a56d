"""The report's sections about the model: how well it does, how it was found, how it answers."""

from __future__ import annotations

from collections.abc import Sequence

from cumulant.flows.reports import charts, wording
from cumulant.flows.reports.blocks import (
    Column,
    Section,
    definitions,
    details,
    figure,
    section,
    table,
    tag,
    tile,
    tiles,
)
from cumulant.flows.reports.content import (
    CurveReport,
    FoldReport,
    GateReport,
    MetricReport,
    ReportData,
    RuleReport,
    ServingReport,
    SliceReport,
    TrainingReport,
    TrialReport,
)
from cumulant.flows.reports.decisions import decisions, search_summary
from cumulant.flows.reports.markup import Child, Markup, element, join

MANY = 12
#: what the threshold does to a slice, beside its main metric
_DECISION = ("recall", "precision", "cost")


def quality(report: ReportData) -> Section:
    """Figures on untouched rows, beside the naive baseline; curves; slices."""
    test = report.training.test_rows if report.training else 0
    rows = f" ({wording.plural(test, 'row')})" if test else ""
    lead = f"Measured on rows that neither the search nor the fit has seen{rows}."
    if report.of_tested:
        lead = (
            f"Measured of the tested model: the same configuration, fitted without the test rows{rows}, which this"
            " model has learned too."
        )
    lead, measured = f"{lead} {_intervals(report)}", "tested model" if report.of_tested else "this model"
    key = [
        element("li", element("span", class_=f"key {style}", aria_hidden="true"), text)
        for style, text in (("model", measured), ("naive", "naive baseline"))
    ]
    return section(
        "quality",
        "Quality",
        lead,
        element("ul", *key, class_="legend"),
        _metrics(report.metrics, measured),
        _decisions(report),
        _curves(report),
        _slices(report),
    )


def gate(found: GateReport) -> Section:
    """The verdict and each rule that led to it."""
    lead = f"The model was compared with {found.reference} on the same rows."
    columns = [Column("rule", "prose"), Column("verdict", "w"), Column("measured", "n"), Column("difference", "n")]
    rows = ((_rule(rule), None) for rule in found.rules)
    return section("gate", "Gate", lead, banner(found), table("Rules of the gate", columns, rows))


def banner(found: GateReport) -> Markup:
    """The verdict in one word, and a sentence."""
    style = "good" if found.passed else "bad"
    failed = [rule for rule in found.rules if not rule.passed]
    text = f"The gate's {len(found.rules)} rules hold, against {found.reference}."
    if len(found.rules) == 1 and found.passed:
        text = f"The gate's one rule holds, against {found.reference}."
    if failed:
        names = ", ".join(wording.title(rule.metric).lower() for rule in failed)
        text = f"The gate said no: {wording.plural(len(failed), 'rule')} did not hold ({names})."
    elif not found.passed:
        text = "The gate said no."
    word = element("p", wording.gate_word(found.verdict, passed=found.passed), class_="word")
    return element("div", word, element("p", text), class_=f"verdict {style}", role="status")


def _warning(text: str) -> Markup:
    return element("li", element("b", "Warning: "), text)


def training(found: TrainingReport) -> Section:
    """How the model was searched for."""
    facts = definitions(
        [
            ("target", element("code", found.target) if found.target else None),
            ("predicted at", element("code", found.predict_at) if found.predict_at else None),
            ("task", found.task),
            ("rows to learn from", wording.count(found.rows) if found.rows else None),
            ("rows held out", wording.count(found.test_rows) if found.test_rows else None),
            ("without a label", wording.count(found.unlabelled) if found.unlabelled else None),
            ("time", wording.duration(found.seconds) if found.seconds is not None else None),
        ]
    )
    told = [*[element("li", note) for note in found.notes], *[_warning(text) for text in found.warnings]]
    notes = element("ul", *told) if told else None
    drawn = [part for part in (_folds(found.folds), _search(found)) if part is not None]
    pair = element("div", *drawn, class_="pair") if drawn else None
    return section("training", "Training", search_summary(found), facts, notes, pair, _trials(found))


def serving(found: ServingReport) -> Section:
    """What a caller sends, how an answer is decided, and that the packaged model is the trained one."""
    parts = _serving_tiles(found)
    columns = [Column("field"), Column("type", "w"), Column("may be absent", "w"), Column("example")]
    rows = (
        (
            [
                element("code", field.name),
                join([field.dtype, " ", tag("personal", "unsure")]) if field.personal else field.dtype,
                "yes" if field.nullable else "no",
                element("code", field.example) if field.example else "–",
            ],
            None,
        )
        for field in found.request
    )
    lead = "A caller sends the raw fields of one row; stored history and lookups are added by the server."
    return section(
        "serving",
        "Serving",
        lead,
        tiles(*parts) if parts else None,
        table("Request", columns, rows) if found.request else None,
        element("pre", found.curl) if found.curl else None,
    )


def _intervals(report: ReportData) -> str:
    if report.cluster in ("", "row"):
        return "Intervals hold 95%, from resampling rows."
    return (
        f"Intervals hold 95%, from resampling the {wording.plural(report.clusters, report.cluster)} whole: "
        "rows of one depend on each other."
    )


def _decisions(report: ReportData) -> Markup | None:
    """What the threshold decides on the test rows."""
    parts = [tile(title, value, note) for title, value, note in decisions(report)]
    return join([element("h3", "Decisions at the threshold"), tiles(*parts)]) if parts else None


def _serving_tiles(found: ServingReport) -> list[Markup]:
    parts = []
    if found.threshold is not None:
        parts.append(tile("Threshold", wording.number(found.threshold), found.threshold_text))
    if (parity := found.parity) is not None:
        rows = wording.plural(parity.rows, "row")
        gap = f"largest difference over {rows}, tolerance {parity.tolerance:.0e}"
        parts.append(tile("Parity", f"{parity.max_difference:.1e}", gap))
        parts.append(tile("Decision flips", wording.count(parity.flips), "rows that the package decides otherwise"))
    return parts


def _metrics(metrics: Sequence[MetricReport], measured: str) -> Markup:
    columns = [
        Column("metric"),
        Column(measured, "n"),
        Column("95% interval", "n"),
        Column("naive", "n"),
        Column(""),
        Column("better is", "w"),
    ]
    rows = []
    for metric in metrics:
        low, high = charts.bounds([metric.model, metric.naive])
        cells: list[Child] = [
            wording.title(metric.name),
            element("b", wording.number(metric.model.value)),
            wording.interval(metric.model),
            wording.number(metric.naive.value) if metric.naive else "–",
            charts.strip(metric.model, metric.naive, low, high),
            "higher" if metric.higher_is_better else "lower",
        ]
        rows.append((cells, None))
    return table("Metrics on the test rows", columns, rows)


def _curves(report: ReportData) -> Markup | None:
    drawn = [found for curve in report.curves if curve.points and (found := _curve(curve, report))]
    return element("div", *drawn, class_="pair") if drawn else None


def _curve(curve: CurveReport, report: ReportData) -> Markup | None:
    naive = next((m.naive for m in report.metrics if m.name == "average_precision" and m.naive), None)
    if curve.kind == "calibration":
        return figure("Calibration", charts.calibration(curve.points))
    if curve.kind == "precision_recall":
        return figure("Precision and recall", charts.precision_recall(curve.points, naive.value if naive else None))
    if curve.kind == "roc":
        return figure("ROC", charts.roc(curve.points))
    if curve.kind == "predicted_observed":
        return figure(
            "Predicted and observed",
            charts.scatter(curve.points, "predicted", "observed", "Observed against predicted values"),
        )
    return None


def _slices(report: ReportData) -> Markup | None:
    if not report.slices:
        return None
    measured = [found for found in report.slices if found.metrics]
    shared = [m.name for m in report.metrics if measured and all(m.name in found.metrics for found in measured)]
    gated = [rule.metric for rule in report.gate.rules] if report.gate else []
    # A metric of ranks compares slices of different base rates better than a loss does.
    gated.sort(key=lambda name: not wording.higher_is_better(name))
    main = next((name for name in (*gated, *shared) if name in shared), None)
    if main is None:
        return None
    overall = next(metric.model.value for metric in report.metrics if metric.name == main)
    columns = dict.fromkeys(found.column for found in report.slices)
    parts = [_slice_table(report.slices, column, main, overall) for column in columns]
    heading = element("h3", f"{wording.title(main)} by slice (the dashed line is all rows)")
    return join([heading, *parts])


def _slice_table(slices: Sequence[SliceReport], column: str, main: str, overall: float) -> Markup:
    mine = [found for found in slices if found.column == column]
    low, high = charts.bounds([found.metrics.get(main) for found in mine])
    low, high = min(low, overall), max(high, overall)
    beside = [name for name in _DECISION if name != main and any(name in found.metrics for found in mine)]
    rows = []
    for found in mine:
        measured = found.metrics.get(main)
        drawn = (
            charts.forest(measured, overall, low, high) if measured else element("span", "too few rows", class_="quiet")
        )
        figures = wording.number(measured.value if measured else None), wording.interval(measured)
        others = [wording.number(found.metrics[name].value) if name in found.metrics else "–" for name in beside]
        cells: list[Child] = [found.value, wording.count(found.rows), *figures, drawn, *others]
        rows.append((cells, None))
    heads = [
        Column(column),
        Column("rows", "n"),
        Column(wording.title(main).lower(), "n"),
        Column("95% interval", "n"),
        Column(""),
        *(Column(wording.title(name).lower(), "n") for name in beside),
    ]
    if len(rows) <= MANY + 2:
        return table(f"By {column}", heads, rows)
    shown = table(f"By {column}", heads, rows[:MANY])
    rest = table(f"By {column}, the smaller ones", heads, rows[MANY:])
    return join([shown, details(f"{len(rows) - MANY} more", rest)])


def _rule(rule: RuleReport) -> list[Child]:
    style = "good" if rule.passed else "bad"
    gap = rule.difference
    shown = "–"
    if gap is not None:
        shown = f"{gap.value:+.3g}" + (
            f" ({gap.low:+.2g} to {gap.high:+.2g})" if gap.low is not None and gap.high is not None else ""
        )
    value = f"{wording.number(rule.value.value)}" if rule.value else "–"
    return [rule.text, tag(wording.rule_word(rule.word, against=rule.against, passed=rule.passed), style), value, shown]


def _folds(rows: Sequence[FoldReport]) -> Markup | None:
    drawn = charts.folds(rows)
    if drawn is None:
        return None
    key = [
        element("li", element("span", class_=f"key {style}", aria_hidden="true"), text)
        for style, text in (("train", "learned from"), ("held", "held out in the search"), ("test", "test"))
    ]
    return figure("Splits in time", element("ul", *key, class_="legend"), drawn)


def _search(found: TrainingReport) -> Markup | None:
    if sum(trial.score is not None for trial in found.trials) < 2:
        return None
    drawn = charts.search(found.trials, found.best, found.score_name or "score", higher=found.higher_is_better)
    return figure("The search", charts.legend(found.trials), drawn)


def _trials(found: TrainingReport) -> Markup | None:
    if not found.trials:
        return None
    ranked = sorted(found.trials, key=lambda trial: _rank(trial, higher=found.higher_is_better))
    columns = [
        Column("trial", "n"),
        Column("trainer"),
        Column(found.score_name or "score", "n"),
        Column("state"),
        Column("time", "n"),
        Column("settings", "prose"),
    ]
    rows = [(_trial(trial), "best" if trial.number == found.best else None) for trial in ranked]
    shown = table("The best trials", columns, rows[:5])
    if len(rows) <= 5:
        return shown
    return join([shown, details("all of them", table("All trials, best first", columns, rows))])


def _rank(trial: TrialReport, *, higher: bool) -> tuple[bool, float]:
    if trial.score is None:
        return True, float(trial.number)
    return False, -trial.score if higher else trial.score


def _trial(trial: TrialReport) -> list[Child]:
    settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
    score = "–" if trial.score is None else f"{trial.score:.5g}"
    return [
        str(trial.number),
        trial.trainer,
        score,
        trial.state,
        wording.duration(trial.seconds),
        element("span", settings or "its defaults", class_="quiet"),
    ]
