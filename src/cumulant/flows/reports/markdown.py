"""The report as Markdown: the same content, for pull requests and wikis. Text from outside cannot become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from cumulant.flows.reports import wording
from cumulant.flows.reports.content import MetricReport, ReportData, SliceReport, SourceReport, TrainingReport
from cumulant.flows.reports.decisions import decisions, search_summary

_SPECIAL = re.compile(r"([\\`*_\[\]|~<>&$])|^(\s*)([#+=-])|^(\s*\d+)([.)])")
_BREAK = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def render(report: ReportData) -> str:
    """The whole document."""
    return "\n".join(line for part in _parts(report) for line in part).rstrip() + "\n"


def text(value: object) -> str:
    """`value` as plain text on one line, with everything escaped that Markdown or HTML would act on."""
    return _SPECIAL.sub(_escaped, _BREAK.sub(" ", str(value)))


def _escaped(match: re.Match[str]) -> str:
    anywhere, indent, mark, number, point = match.groups()
    return f"\\{anywhere}" if anywhere else f"{indent or number or ''}\\{mark or point}"


def code(value: object) -> str:
    """`value` as code; a fence longer than any run of backticks in it."""
    plain = _BREAK.sub(" ", str(value)).replace("|", "\u01c0")
    runs = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * (runs + 1)
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}" if plain else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A pipe table; cells are Markdown already."""
    marks = ["---:" if head in right else "---" for head in heads]
    return [_row(heads), _row(marks), *[_row(row) for row in rows], ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _parts(report: ReportData) -> Iterator[list[str]]:
    yield _head(report)
    if report.gate is not None:
        yield _gate(report)
    if report.metrics:
        yield _metrics(report.metrics, "tested model" if report.of_tested else "model")
    if lines := [f"- {name.lower()}: {value}{_note(note)}" for name, value, note in decisions(report)]:
        yield ["### Decisions at the threshold", "", *lines, ""]
    if report.slices:
        yield _slices(report.slices)
    yield from _data(report)
    if report.features:
        rows = [
            [code(entry.name), entry.dtype, text(entry.description or entry.definition), text(entry.owner)]
            for entry in report.features
        ]
        yield ["## Features", "", *table(["name", "type", "what it is", "owner"], rows)]
    if report.training is not None:
        yield _training(report.training)
    yield _serving(report)
    yield ["## Lineage", "", *[f"- {text(name)}: {code(value)}" for name, value in report.lineage.items()], ""]
    if report.environment:
        yield [*[f"- {text(name)}: {code(value)}" for name, value in report.environment.items()], ""]
    if report.events:
        rows = [
            [wording.moment(entry.time), text(entry.actor), code(entry.kind), text(entry.text)]
            for entry in report.events
        ]
        shown = wording.steps(report.steps, report.seconds)
        steps = [f"The steps of the run took {text(shown)}.", ""] if shown else []
        yield ["## Who did what", "", *steps, *table(["when", "who", "what", ""], rows)]


def _head(report: ReportData) -> list[str]:
    lines = [f"# {text(report.subject)}", ""]
    if report.purpose:
        lines += [text(report.purpose), ""]
    facts = [
        ("model", report.uri and code(report.uri)),
        ("aliases", ", ".join(map(text, report.aliases))),
        ("owner", text(report.owner)),
        ("risk", text(report.risk)),
        ("run", report.run and code(report.run)),
        ("trained", wording.moment(report.created) if report.created else ""),
    ]
    return [*lines, *[f"- {label}: {value}" for label, value in facts if value], ""]


def _gate(report: ReportData) -> list[str]:
    gate = report.gate
    assert gate is not None
    rows = [
        [
            text(rule.text),
            wording.number(rule.value.value) if rule.value else "–",
            f"{rule.difference.value:+.4g} ({wording.interval(rule.difference)})" if rule.difference else "–",
            wording.rule_word(rule.word, against=rule.against, passed=rule.passed),
            "yes" if rule.passed else "**no**",
        ]
        for rule in gate.rules
    ]
    verdict = f"**{wording.gate_word(gate.verdict, passed=gate.passed)}**, against {text(gate.reference)}."
    heads = ["rule", "measured", "difference", "verdict", "holds"]
    warnings = [line for warning in gate.warnings for line in (f"- **warning**: {text(warning)}", "")]
    return ["## Gate", "", verdict, "", *warnings, *table(heads, rows, right=["measured", "difference"])]


def _metrics(metrics: Sequence[MetricReport], measured: str) -> list[str]:
    rows = [
        [
            text(wording.title(metric.name)),
            wording.number(metric.model.value),
            wording.interval(metric.model),
            wording.number(metric.naive.value) if metric.naive else "–",
            "higher" if metric.higher_is_better else "lower",
        ]
        for metric in metrics
    ]
    heads = ["metric", measured, "95% interval", "naive", "better is"]
    return ["## Quality", "", *table(heads, rows, right=[measured, "95% interval", "naive"])]


def _note(note: str) -> str:
    return f" ({text(note)})" if note else ""


def _slices(slices: Sequence[SliceReport]) -> list[str]:
    names = list(dict.fromkeys(name for part in slices for name in part.metrics))
    rows = [
        [
            f"{text(part.column)} = {text(part.value)}",
            wording.count(part.rows),
            *[_measured(part, name) for name in names],
        ]
        for part in slices
    ]
    return ["### By slice", "", *table(["slice", "rows", *map(text, names)], rows, right=["rows"])]


def _measured(part: SliceReport, name: str) -> str:
    value = part.metrics.get(name)
    return "–" if value is None else f"{wording.number(value.value)} ({wording.interval(value)})"


def _data(report: ReportData) -> Iterator[list[str]]:
    yield ["## Data", ""]
    heads = ["source", "rows in", "passed", "quarantined", "dropped", "snapshot"]
    rows = [
        [
            text(source_report.name),
            *[
                wording.count(value)
                for value in (
                    source_report.rows_in,
                    source_report.rows_passed,
                    source_report.rows_quarantined,
                    source_report.rows_dropped,
                )
            ],
            code(source_report.snapshot[:12]),
        ]
        for source_report in report.sources
    ]
    yield table(heads, rows, right=heads[1:5])
    for source in report.sources:
        yield _source(source)


def _source(source: SourceReport) -> list[str]:
    failed = [check for check in source.checks if (check.failed and check.quarantines) or not check.passed]
    lines = [
        f"- {text(check.text)}: {wording.count(check.failed)} rows refused ({wording.share(check.share)})"
        for check in failed
    ]
    lines += [f"- **warning**: {text(warning)}" for warning in source.warnings]
    lines += [f"- {text(change)}" for change in (*source.changes, *source.shifts)]
    lines += [
        f"- file {code(file.name)}, {wording.count(file.rows)} rows, SHA-256 {code(file.sha256)}"
        for file in source.files
    ]
    return [f"### {text(source.name)}", "", *lines, ""] if lines else []


def _training(training: TrainingReport) -> list[str]:
    facts = [
        ("target", code(training.target) if training.target else ""),
        ("predicted at", code(training.predict_at) if training.predict_at else ""),
        ("task", text(training.task)),
        ("rows", f"{wording.count(training.rows)} to learn from, {wording.count(training.test_rows)} held out"),
    ]
    lines = [f"- {label}: {value}" for label, value in facts if value] + [f"- {text(note)}" for note in training.notes]
    lines += [f"- **warning**: {text(warning)}" for warning in training.warnings]
    scored = [trial for trial in training.trials if trial.score is not None]
    best = sorted(scored, key=lambda trial: trial.score or 0.0, reverse=training.higher_is_better)[:10]
    rows = [
        [
            str(trial.number),
            text(trial.trainer),
            f"{trial.score:.5g}",
            wording.duration(trial.seconds),
            text(", ".join(f"{name} {value}" for name, value in trial.settings.items())),
        ]
        for trial in best
    ]
    heads = ["trial", "trainer", text(training.score_name or "score"), "time", "settings"]
    return ["## Training", "", text(search_summary(training)), "", *lines, "", *(table(heads, rows) if rows else [])]


def _serving(report: ReportData) -> list[str]:
    serving = report.serving
    if serving is None:
        return []
    lines = ["## Serving", ""]
    if serving.threshold is not None:
        lines.append(f"- threshold {wording.number(serving.threshold)}: {text(serving.threshold_text)}")
    if serving.parity is not None:
        gap, rows = f"{serving.parity.max_difference:.1e}", wording.count(serving.parity.rows)
        lines.append(f"- parity over {rows} rows: largest difference {gap}, {serving.parity.flips} decision flips")
    rows_ = [
        [code(field.name), field.dtype, "yes" if field.nullable else "no", code(field.example)]
        for field in serving.request
    ]
    lines += ["", *table(["request field", "type", "may be absent", "example"], rows_)]
    if serving.curl:
        lines += [*(f"    {line}" for line in serving.curl.splitlines()), ""]
    return lines
