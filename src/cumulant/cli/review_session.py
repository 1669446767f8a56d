"""A reviewer's sitting on a terminal: one case after another, one line an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulant.cli.review_page import label_names, outcome, page
from cumulant.core.errors import CumulantError

if TYPE_CHECKING:
    from rich.console import Console

    from cumulant.project import Project
    from cumulant.runtime.review.cases import CaseView

_HELP = "s skip, e escalate, n TEXT note, q quit"


def session(console: Console, project: Project, *, report: str) -> None:
    """Give out cases and take answers until none is left or the reviewer quits; each answer stands at once.

    `report` is the command that tells how the queue stands.
    """
    from cumulant.runtime.review.verbs import next_case

    answered, passed = 0, list[str]()
    while (case := next_case(project, principal=project.principal(), passed=passed)) is not None:
        page(console, case)
        console.print(f"\n{_asked(case)}   ({_HELP})", style="bold")
        said = _answer(console, project, case)
        if said is None:
            break
        answered += said
        passed.append(case.id)
        console.print()
    else:
        console.print("no more cases wait for you", style="dim")
    console.print(f"{answered} answered: {report}", style="dim")


def _asked(case: CaseView) -> str:
    if not case.labels:
        return "what is the number?"
    return f"what is true: {', '.join(label_names(case))}?"


def _answer(console: Console, project: Project, case: CaseView) -> bool | None:
    """Whether the case was answered; None where the reviewer quits. A wrong word is asked again."""
    from cumulant.runtime.review import verbs

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
                console.print(outcome(verbs.skip(project, case.id, principal=who)))
                return True
            if text in ("e", "escalate"):
                console.print(outcome(verbs.escalate(project, case.id, principal=who)))
                return True
            if text and not _noted(console, project, case, text):
                console.print(outcome(verbs.decide(project, case.id, text, principal=who)))
                return True
        except CumulantError as error:
            console.print(error.message if error.hint is None else f"{error.message}; {error.hint}", style="yellow")
            if error.retryable:
                return False


def _noted(console: Console, project: Project, case: CaseView, text: str) -> bool:
    """Whether the line was about a note. `n` alone may mean one, and as an answer it would be no: it is neither."""
    from cumulant.runtime.review import verbs

    word, _, rest = text.partition(" ")
    if word not in ("n", "note") or text in label_names(case):
        return False
    if rest:
        verbs.note(project, case.id, rest, principal=project.principal())
        console.print("noted")
    else:
        console.print("n TEXT writes a note; write no where that is the answer", style="yellow")
    return True
