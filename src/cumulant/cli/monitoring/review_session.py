"""A reviewer's session on a terminal: one case after another, one line an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.monitoring.review_page import label_names, outcome, page
from cumulant.core.errors import CumulantError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.flows.review.case_context import CaseReader
    from cumulant.flows.review.views import CaseView
    from cumulant.project.project import Project

#: decisions become labels together, so that a reviewer does not wait for the labels after each one
_LABELLED_AT_ONCE = 50
_HELP = "s skip, e escalate, n TEXT note, q quit"


def session(console: Console, project: Project, *, report: str) -> None:
    """Present cases and store each answer until none remains or the reviewer quits; `report`: the queue's command."""
    from cumulant.flows.review.service import ingest_unless_locked, next_case, session_reader

    answered, passed, reader = 0, list[str](), session_reader(project)
    who = project.principal()
    try:
        while (case := next_case(project, principal=who, passed=passed, reader=reader)) is not None:
            page(console, case)
            console.print(f"\n{_prompt_text(case)}   ({_HELP})", style="bold")
            decided = _answer(console, project, case, reader)
            if decided is None:
                break
            answered += decided
            passed.append(case.id)
            console.print()
            if len(passed) % _LABELLED_AT_ONCE == 0:
                ingest_unless_locked(project, principal=who)
        else:
            console.print("no more cases wait for you", style="dim")
    finally:
        ingest_unless_locked(project, principal=who)
    console.print(f"{answered} answered: {report}", style="dim")


def _prompt_text(case: CaseView) -> str:
    if not case.labels:
        return "what is the number?"
    return f"what is true: {', '.join(label_names(case))}?"


def _answer(console: Console, project: Project, case: CaseView, reader: CaseReader) -> bool | None:
    """Whether the case was answered; None where the reviewer quits. A wrong word is prompted for again."""
    from cumulant.flows.review import service

    who = project.principal()
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return None
        try:
            if text in ("q", "quit"):
                return None
            if text in ("s", "skip"):
                console.print(outcome(service.skip(project, case.id, principal=who)))
                return True
            if text in ("e", "escalate"):
                console.print(outcome(service.escalate(project, case.id, principal=who)))
                return True
            if text and not _noted(console, project, case, text):
                answered = service.decide(project, case.id, text, principal=who, reader=reader, labels="later")
                console.print(outcome(answered))
                return True
        except CumulantError as error:
            console.print(error.full_text, style="yellow")
            if error.retryable:
                return False


def _noted(console: Console, project: Project, case: CaseView, text: str) -> bool:
    """Whether the line was about a note. `n` alone may mean one, and as an answer it would be no: it is neither."""
    from cumulant.flows.review import service

    word, _, rest = text.partition(" ")
    if word not in ("n", "note") or text in label_names(case):
        return False
    if rest:
        service.note(project, case.id, rest, principal=project.principal())
        console.print("noted")
    else:
        console.print("n TEXT writes a note; write no where that is the answer", style="yellow")
    return True
