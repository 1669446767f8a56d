"""Cases and figures of the review queue on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cumulant.flows.reports.terminal import heading, pairs, table

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.review.service import AnsweredCase
    from cumulant.flows.review.views import CaseView
    from cumulant.review.report import ReviewSummary

_DASH = "–"


def page(console: Console, case: CaseView) -> None:
    heading(console, f"case {case.id}", f"{case.model} version {case.version}, request {case.request_id}")
    if case.request is None:
        console.print("the prediction log no longer holds this prediction", style="yellow")
    request: list[tuple[str, object]] = list((case.request or {}).items())
    pairs(console, [(name, _DASH if value is None else value) for name, value in request])
    console.print()
    pairs(console, _known(case))
    if case.neighbours:
        names = list(case.neighbours[0].row)
        rows = [
            (neighbour.distance, neighbour.label, *(neighbour.row.get(name) for name in names))
            for neighbour in case.neighbours
        ]
        console.print()
        console.print("nearest training rows", style="bold")
        console.print(table(["distance", "label", *names], [[_format_value(value) for value in row] for row in rows]))


def _known(case: CaseView) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("answered", f"{case.time:%Y-%m-%d %H:%M:%S}Z")]
    if case.hidden:
        rows.append(("the model's answer", "hidden until you decide"))
    rows += [(f"answer {name}", _format_value(value)) for name, value in (case.answer or {}).items()]
    rows += [("because of", text) for text in _explained(case.explanation)]
    if case.reasons:
        rows.append(("in the queue as", ", ".join(case.reasons)))
    if case.status == "waiting":
        rows.append(("deadline", f"{case.deadline:%Y-%m-%d %H:%M}Z"))
    if case.holder is not None and case.held_until is not None:
        rows.append(("with", f"{case.holder} until {case.held_until:%H:%M}Z"))
    rows += [("assigned to", case.assigned)] if case.assigned else []
    rows += [("escalated", "yes")] if case.escalated else []
    rows += [("note", f"{entry['reviewer']}: {entry['text']}") for entry in case.notes]
    rows += [(f"you {entry['kind']}", _format_value(entry["label"])) for entry in case.own]
    rows += [(entry["kind"], f"{entry['reviewer']}: {_format_value(entry['label'])}") for entry in case.others]
    if case.status != "waiting":
        rows.append(("status", case.status))
        rows.append(("label", _format_value(case.label)))
    return rows


def _explained(explanation: Any) -> list[str]:
    rows = explanation if isinstance(explanation, list) else []
    return [
        f"{reason.get('code') or reason.get('feature')} {reason.get('direction', '')}"
        f" ({reason.get('contribution', 0):+.3g})"
        for reason in rows
        if isinstance(reason, dict)
    ]


def label_names(case: CaseView) -> list[str]:
    """The labels that a reviewer may enter; none where the answer is a number."""
    return [str(label).lower() if isinstance(label, bool) else str(label) for label in case.labels]


def cases(console: Console, listed: Sequence[CaseView], status: str, *, fill: str) -> None:
    """A table of cases. `fill` is the command that adds some."""
    from cumulant.flows.reports.terminal import table

    if not listed:
        message = f"no case waits: {fill}" if status == "waiting" else "there is no such case"
        console.print(message, style="dim")
        return
    columns = ["case", "answered", "version", "reasons", "status", "with", "deadline", "label"]
    rows = [
        [
            case.id,
            f"{case.time:%Y-%m-%d %H:%M}Z",
            case.version,
            ("hidden" if case.hidden else ", ".join(case.reasons)),
            case.status,
            case.holder or case.assigned or _DASH,
            f"{case.deadline:%Y-%m-%d %H:%M}Z",
            _format_value(case.label),
        ]
        for case in listed
    ]
    # A value that all cases share is printed once, or not at all.
    # A column with one value in every case is shown once, or not at all.
    blind = all(case.hidden for case in listed)
    needless = {"reasons": blind, "status": status != "all", "label": status == "waiting"}
    shown = [place for place, name in enumerate(columns) if not needless.get(name)]
    console.print(table([columns[place] for place in shown], [[row[place] for place in shown] for row in rows]))
    if blind:
        console.print("why they were chosen is hidden until you decide", style="dim")


def outcome(answered: AnsweredCase) -> str:
    """What an answer led to, in one sentence."""
    case = answered.case
    if case.status == "done":
        agreed = (
            ""
            if case.hidden or case.answer is None
            else f"; the model answered {_format_value(_decision(case.answer))}"
        )
        return f"case {case.id} is done: {_format_value(case.label)}{agreed}"
    if case.escalated and any(decision["kind"] == "decided" for decision in case.others):
        return f"two reviewers differ on case {case.id}: a third decides"
    if case.escalated:
        return f"case {case.id} goes to those who take escalated cases"
    if case.own and case.own[-1]["kind"] == "skipped":
        return f"you skipped case {case.id}: others get it"
    return f"case {case.id} waits for a second reviewer, who decides without seeing your answer"


def _decision(answer: dict[str, Any]) -> object:
    return answer.get("prediction", answer)


def figures(console: Console, report: ReviewSummary) -> None:
    heading(
        console,
        f"review of {report.model}",
        f"{report.rows:,} predictions considered in {report.draws} draw{'s' * (report.draws != 1)}",
    )
    pairs(
        console,
        [
            ("queued", report.queued),
            ("waiting", f"{report.waiting}, {report.leased} with a reviewer, {report.escalated} escalated"),
            ("done", f"{report.done}, {report.labelled} became labels, {report.used_for_training} in the newest model"),
            ("deadline passed", report.expired),
            ("two reviewers", _agreement(report)),
            ("model wrong on", _error(report)),
        ],
    )
    if report.reasons:
        rows = [(name, reason.queued, reason.done, reason.wrong) for name, reason in report.reasons.items()]
        numbers = ["queued", "done", "model wrong"]
        console.print()
        console.print(table(["reason", *numbers], rows, right=numbers))


def _agreement(report: ReviewSummary) -> str:
    agreement = report.agreement
    if agreement is None:
        return "no case was decided twice"
    agreed = f"agree on {agreement['observed']:.0%} of {agreement['cases']} case{'s' * (agreement['cases'] != 1)}"
    if agreement["kappa"] is None:
        return f"{agreed}, all of one label: no kappa"
    ends = "" if agreement["low"] is None else f" [{agreement['low']:.2f}, {agreement['high']:.2f}]"
    return f"{agreed}, Cohen's kappa {agreement['kappa']:.2f}{ends}"


def _error(report: ReviewSummary) -> str:
    if report.counted is None:
        return "no case is done"
    # Where all were drawn at random, the cases are as hard as the others.
    among = f"{report.counted:.1%} of the cases" + (", which were chosen to be hard" if report.ranked else "")
    if report.error is None:
        return f"{among}; no random case is done, so nothing is known of the others"
    low, high = report.error["low"], report.error["high"]
    ends = "" if low is None or high is None else f" [{low:.2%}, {high:.2%}]"
    some = report.answered is not None and report.answered < 1
    silent = f"; {report.answered:.0%} of the random cases have an answer" if some else ""
    return f"{report.error['value']:.2%}{ends} of all predictions considered; {among}{silent}"


def _format_value(value: object) -> str:
    if value is None:
        return _DASH
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
