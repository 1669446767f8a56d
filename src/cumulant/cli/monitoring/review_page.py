"""How cases and figures of the review queue look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.review.service import Answered
    from cumulant.flows.review.views import CaseView
    from cumulant.review.report import Figures

_DASH = "–"


def page(console: Console, case: CaseView) -> None:
    """One case, whole."""
    from cumulant.flows.reports.terminal import heading, pairs, table

    heading(console, f"case {case.id}", f"{case.model} version {case.version}, request {case.request_id}")
    if case.request is None:
        console.print("the prediction log no longer holds this prediction", style="yellow")
    told: list[tuple[str, object]] = list((case.request or {}).items())
    pairs(console, [(name, _DASH if value is None else value) for name, value in told])
    console.print()
    pairs(console, _known(case))
    if case.neighbours:
        names = list(case.neighbours[0].row)
        rows = [(one.distance, one.label, *(one.row.get(name) for name in names)) for one in case.neighbours]
        console.print()
        console.print("nearest training rows", style="bold")
        console.print(table(["distance", "label", *names], [[_shown(value) for value in row] for row in rows]))


def _known(case: CaseView) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [("answered", f"{case.time:%Y-%m-%d %H:%M:%S}Z")]
    if case.hidden:
        found.append(("the model's answer", "hidden until you decide"))
    found += [(f"answer {name}", _shown(value)) for name, value in (case.answer or {}).items()]
    found += [("because of", text) for text in _explained(case.explanation)]
    if case.reasons:
        found.append(("in the queue as", ", ".join(case.reasons)))
    if case.status == "waiting":
        found.append(("deadline", f"{case.deadline:%Y-%m-%d %H:%M}Z"))
    if case.holder is not None and case.held_until is not None:
        found.append(("with", f"{case.holder} until {case.held_until:%H:%M}Z"))
    found += [("assigned to", case.assigned)] if case.assigned else []
    found += [("escalated", "yes")] if case.escalated else []
    found += [("note", f"{one['reviewer']}: {one['text']}") for one in case.notes]
    found += [(f"you {one['kind']}", _shown(one["label"])) for one in case.own]
    found += [(one["kind"], f"{one['reviewer']}: {_shown(one['label'])}") for one in case.others]
    if case.status != "waiting":
        found.append(("status", case.status))
        found.append(("label", _shown(case.label)))
    return found


def _explained(explanation: Any) -> list[str]:
    """Reasons as the log holds them: a list of features with their contributions."""
    rows = explanation if isinstance(explanation, list) else []
    return [
        f"{one.get('code') or one.get('feature')} {one.get('direction', '')} ({one.get('contribution', 0):+.3g})"
        for one in rows
        if isinstance(one, dict)
    ]


def label_names(case: CaseView) -> list[str]:
    """What a reviewer may say, as it is written; none where it is a number."""
    return [str(one).lower() if isinstance(one, bool) else str(one) for one in case.labels]


def cases(console: Console, found: Sequence[CaseView], status: str, *, fill: str) -> None:
    """A table of cases. `fill` is the command that brings some."""
    from cumulant.flows.reports.terminal import table

    if not found:
        said = f"no case waits: {fill}" if status == "waiting" else "there is no such case"
        console.print(said, style="dim")
        return
    columns = ["case", "answered", "version", "reasons", "status", "with", "deadline", "label"]
    rows = [
        [
            one.id, f"{one.time:%Y-%m-%d %H:%M}Z", one.version, _why(one), one.status,
            one.holder or one.assigned or _DASH, f"{one.deadline:%Y-%m-%d %H:%M}Z", _shown(one.label),
        ]
        for one in found
    ]  # fmt: skip
    # A column that says the same of every case is said once, or not at all.
    blind = all(one.hidden for one in found)
    needless = {"reasons": blind, "status": status != "all", "label": status == "waiting"}
    kept = [place for place, name in enumerate(columns) if not needless.get(name)]
    console.print(table([columns[place] for place in kept], [[row[place] for place in kept] for row in rows]))
    if blind:
        console.print("why they were chosen is hidden until you decide", style="dim")


def _why(case: CaseView) -> str:
    return "hidden" if case.hidden else ", ".join(case.reasons)


def outcome(found: Answered) -> str:
    """What an answer led to, in one sentence."""
    case = found.case
    if case.status == "done":
        agreed = "" if case.hidden or case.answer is None else f"; the model said {_shown(_decision(case.answer))}"
        return f"case {case.id} is done: {_shown(case.label)}{agreed}"
    if case.escalated and any(one["kind"] == "decided" for one in case.others):
        return f"two reviewers differ on case {case.id}: a third decides"
    if case.escalated:
        return f"case {case.id} goes to those who take escalated cases"
    if case.own and case.own[-1]["kind"] == "skipped":
        return f"you skipped case {case.id}: others get it"
    return f"case {case.id} waits for a second reviewer, who decides without knowing what you said"


def _decision(answer: dict[str, Any]) -> object:
    return answer.get("prediction", answer)


def figures(console: Console, found: Figures) -> None:
    """The queue in numbers."""
    from cumulant.flows.reports.terminal import heading, pairs, table

    heading(
        console,
        f"review of {found.model}",
        f"{found.rows:,} predictions looked at in {found.draws} draw{'s' * (found.draws != 1)}",
    )
    pairs(
        console,
        [
            ("queued", found.queued),
            ("waiting", f"{found.waiting}, {found.leased} with a reviewer, {found.escalated} escalated"),
            ("done", f"{found.done}, {found.labelled} became labels, {found.used_for_training} in the newest model"),
            ("deadline passed", found.expired),
            ("two reviewers", _agreement(found)),
            ("model wrong on", _error(found)),
        ],
    )
    if found.reasons:
        rows = [(name, one.queued, one.done, one.wrong) for name, one in found.reasons.items()]
        numbers = ["queued", "done", "model wrong"]
        console.print()
        console.print(table(["reason", *numbers], rows, right=numbers))


def _agreement(found: Figures) -> str:
    told = found.agreement
    if told is None:
        return "no case was decided twice"
    agreed = f"agree on {told['observed']:.0%} of {told['cases']} case{'s' * (told['cases'] != 1)}"
    if told["kappa"] is None:
        return f"{agreed}, all of one label: no kappa"
    ends = "" if told["low"] is None else f" [{told['low']:.2f}, {told['high']:.2f}]"
    return f"{agreed}, Cohen's kappa {told['kappa']:.2f}{ends}"


def _error(found: Figures) -> str:
    if found.counted is None:
        return "no case is done"
    # Where all were drawn at random, the cases are as hard as the others.
    among = f"{found.counted:.1%} of the cases" + (", which were chosen to be hard" if found.ranked else "")
    if found.error is None:
        return f"{among}; no random case is done, so nothing is known of the others"
    low, high = found.error["low"], found.error["high"]
    ends = "" if low is None or high is None else f" [{low:.2%}, {high:.2%}]"
    some = found.answered is not None and found.answered < 1
    silent = f"; {found.answered:.0%} of the random cases have an answer" if some else ""
    return f"{found.error['value']:.2%}{ends} of all predictions looked at; {among}{silent}"


def _shown(value: object) -> str:
    if value is None:
        return _DASH
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
