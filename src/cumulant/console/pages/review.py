"""Review: the queue of a project, and one case after another, decided by keyboard or by mouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast, get_args

from msgspec.json import encode

from cumulant.console.page_request import Crumb, Nav, PageRequest, PageRoute
from cumulant.console.texts import plain
from cumulant.core.errors import ConflictError, LeaseHeldError, UsageError
from cumulant.flows.review import service
from cumulant.flows.review.case_pages import ListStatus, case_page
from cumulant.flows.review.read_ahead import read_next

if TYPE_CHECKING:
    from starlette.responses import Response

    from cumulant.flows.review.views import CaseView

_SHOW, _ANSWER = "review.show", "review.answer"
_LIST, _CASE = "/projects/{project}/review", "/projects/{project}/review/cases/{case}"
_DECLARE = "monitoring: {review: {budget: 50/day}}"
#: by the notice of a form, what was done to the case before
_ANSWERS = {"decided": "decided", "skipped": "skipped", "escalated": "escalated"}
#: labels that a digit chooses
_DIGITS = 9


class Choice(NamedTuple):
    """A label that a reviewer may choose, and the digit that does."""

    value: str
    key: str


class Opinion(NamedTuple):
    """What somebody answered, or wrote beside the case, in a sentence."""

    who: str
    text: str
    at: object


def queue(page: PageRequest) -> Response:
    if page.project.policies.monitoring.review is None and page.may(_SHOW):  # else the flow refuses
        return page.page(
            "empty.html.jinja",
            title=f"Review of {page.project.name}",
            crumbs=[Crumb(page.project.name, page.href()), Crumb("Review")],
            heading="Review",
            empty=("The project declares no review queue", "Predictions worth a look come into it.", _DECLARE),
        )
    status = page.query("status", "waiting")
    if status not in get_args(ListStatus):
        raise UsageError(f'no case is "{status[:40]}"', subject="status", hint=", ".join(get_args(ListStatus)))
    listed = case_page(
        page.project,
        principal=page.principal,
        status=cast("ListStatus", status),
        after=page.query("after"),
        index=page.memory.cases,
    )
    older = page.href("review", status=status, after=listed.after) if listed.after else ""
    return page.page(
        "review.html.jinja",
        title=f"Review of {page.project.name}",
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Review")],
        live=True,
        listed=listed,
        rows=page.site.rows.render(
            "case",
            listed.cases,
            key=encode,
            values=lambda case: {"case": case},
            chosen=status,
            base=page.href("review"),
        ),
        chosen=status,
        older=older,
        newest=page.href("review", status=status) if page.query("after") else "",
        base=page.href("review"),
        answers=page.may(_ANSWER),
        previous=page.query("previous"),
        personal=sorted(page.project.policies.personal),
    )


def case(page: PageRequest) -> Response:
    reader = page.memory.ahead.reader(page.project)
    shown = service.show_case(page.project, page.path("case"), principal=page.principal, reader=reader)
    if shown.status == "waiting" and page.may(_ANSWER):
        read_next(page.project, page.memory.cases, page.memory.ahead, principal=page.principal)
    return _case_page(page, shown, status=200)


def _case_page(page: PageRequest, shown: CaseView, *, status: int) -> Response:
    return page.answer(
        "case.html.jinja",
        title=f"Case {shown.id}",
        status=status,
        crumbs=[
            Crumb(page.project.name, page.href()),
            Crumb("Review", page.href("review")),
            Crumb(f"case {shown.id}"),
        ],
        case=shown,
        fields=[(name, plain(value)) for name, value in (shown.request or {}).items()],
        answer=[(name, _rounded(value)) for name, value in (shown.answer or {}).items()],
        reasons=_reasons(shown.explanation),
        choices=label_choices(shown.labels),
        target=_target(page),
        neighbours=shown.neighbours,
        neighbour_heads=_neighbour_heads(shown),
        opinions=_opinions(shown),
        open=page.may(_ANSWER) and _is_open(shown, page.principal.id),
        undoable=bool(shown.own) and page.may(_ANSWER),
        previous=page.query("previous"),
        answered=_ANSWERS.get(page.query("done"), "answered"),
        base=page.href("review"),
        url=page.href("review", "cases", shown.id),
        plain=plain,
    )


def take_next(page: PageRequest) -> Response:
    """Lease the next case to the reviewer, and show it."""
    return _to_next(page, done="", previous="")


def decide(page: PageRequest) -> Response:
    label = page.form.get("label", "").strip()
    if not label:
        raise UsageError("choose a label, or write a number", subject=page.path("case"))
    seen, note = page.form.get("seen") or None, page.form.get("note", "")

    def answer(case: str) -> None:
        reader = page.memory.ahead.reader(page.project)
        service.decide(
            page.project, case, label, principal=page.principal, note=note, seen=seen, reader=reader, labels="later"
        )

    return _answered(page, answer, done="decided")


def skip(page: PageRequest) -> Response:
    seen = page.form.get("seen") or None
    return _answered(
        page, lambda case: service.skip(page.project, case, principal=page.principal, seen=seen), done="skipped"
    )


def escalate(page: PageRequest) -> Response:
    seen, note = page.form.get("seen") or None, page.form.get("note", "")
    return _answered(
        page,
        lambda case: service.escalate(page.project, case, principal=page.principal, note=note, seen=seen),
        done="escalated",
    )


def note(page: PageRequest) -> Response:
    shown = service.note(page.project, page.path("case"), page.form.get("text", ""), principal=page.principal)
    return page.redirect(page.href("review", "cases", shown.id), done="noted")


def undo(page: PageRequest) -> Response:
    name = page.path("case")
    try:
        service.undo(page.project, name, principal=page.principal)
    except (ConflictError, LeaseHeldError) as error:
        return _conflict(page, error)
    return page.redirect(page.href("review", "cases", name), done="undone")


def make_labels(page: PageRequest) -> Response:
    service.make_labels(page.project, principal=page.principal)
    return page.redirect(page.href("review"), done="labelled")


def _answered(page: PageRequest, answer: Callable[[str], object], *, done: str) -> Response:
    """Record an answer, and go to the next case. What another reviewer did meanwhile is a page that says so."""
    try:
        answer(page.path("case"))
    except (ConflictError, LeaseHeldError) as error:
        return _conflict(page, error)
    return _to_next(page, done=done, previous=page.path("case"))


def _to_next(page: PageRequest, *, done: str, previous: str) -> Response:
    passed = [previous] if previous else []
    reader = page.memory.ahead.reader(page.project)
    taken = service.next_case(page.project, principal=page.principal, passed=passed, reader=reader)
    query = {name: text for name, text in (("done", done), ("previous", previous)) if text}
    if taken is None:
        return page.redirect(page.href("review", done="nothing-left", **({"previous": previous} if previous else {})))
    return page.redirect(page.href("review", "cases", taken.id, **query))


def _conflict(page: PageRequest, error: ConflictError | LeaseHeldError) -> Response:
    """The case as it is now, and why the answer was not recorded."""
    shown = service.show_case(page.project, page.path("case"), principal=page.principal)
    return page.answer(
        "case_conflict.html.jinja",
        title="The case has changed",
        status=409,
        crumbs=[Crumb(page.project.name, page.href()), Crumb("Review", page.href("review")), Crumb("conflict")],
        case=shown,
        error=error,
        opinions=_opinions(shown),
        label=page.form.get("label", ""),
        note=page.form.get("note", ""),
        base=page.href("review"),
        url=page.href("review", "cases", shown.id),
        plain=plain,
    )


def label_choices(labels: Sequence[object]) -> list[Choice]:
    """The labels of a case with their keys: their places, or the labels themselves where these are digits."""
    names = [str(label).lower() if isinstance(label, bool) else str(label) for label in labels]
    # The key 1 must not choose the label 0.
    digits = all(len(name) == 1 and name.isdecimal() for name in names)
    keys = names if digits else [str(place) if place <= _DIGITS else "" for place in range(1, len(names) + 1)]
    return [Choice(name, key) for name, key in zip(names, keys, strict=True)]


def _target(page: PageRequest) -> str:
    """What is predicted, as the project file writes it."""
    training = page.project.spec.training
    return "" if training is None else training.target


def _neighbour_heads(shown: CaseView) -> list[tuple[str, str]]:
    names = list(shown.neighbours[0].row) if shown.neighbours else []
    return [("distance", "num"), ("label", ""), *((name, "") for name in names)]


def _rounded(content: object) -> str:
    return f"{content:.6g}" if isinstance(content, float) else plain(content)


def _is_open(shown: CaseView, viewer: str) -> bool:
    """Whether the page offers an answer; the flow decides."""
    answered = bool(shown.own) and not (shown.escalated and shown.own[-1]["kind"] == "escalated")
    return shown.status == "waiting" and not answered and shown.assigned in (None, viewer)


def _opinions(shown: CaseView) -> list[Opinion]:
    words = {"decided": "decided", "skipped": "skipped the case", "escalated": "escalated the case"}
    given = [
        Opinion(str(each["reviewer"]), f"{words[each['kind']]} {plain(each['label'])}".removesuffix(" –"), each["at"])
        for each in (*shown.own, *shown.others)
    ]
    notes = [Opinion(str(each["reviewer"]), f"“{each['text']}”", each["at"]) for each in shown.notes]
    return sorted([*given, *notes], key=lambda each: str(each.at))


def _reasons(explanation: object) -> list[str]:
    listed = explanation if isinstance(explanation, list) else []
    return [
        f"{each.get('code') or each.get('feature')} {each.get('direction', '')} ({each.get('contribution', 0):+.3g})"
        for each in listed
        if isinstance(each, dict)
    ]


ROUTES = (
    PageRoute(
        _LIST,
        queue,
        _SHOW,
        nav=Nav("Review", "v"),
        notices={"nothing-left": "No more cases wait for you.", "labelled": "The decisions are labels now."},
    ),
    PageRoute(_CASE, case, _SHOW, notices={"noted": "The note is written.", "undone": "The answer is withdrawn."}),
    PageRoute(f"{_LIST}/next", take_next, _ANSWER, "POST"),
    PageRoute(f"{_LIST}/labels", make_labels, _ANSWER, "POST"),
    PageRoute(f"{_CASE}/decide", decide, _ANSWER, "POST", notices={"decided": "Your decision is recorded."}),
    PageRoute(f"{_CASE}/skip", skip, _ANSWER, "POST", notices={"skipped": "You left the case to others."}),
    PageRoute(f"{_CASE}/escalate", escalate, _ANSWER, "POST", notices={"escalated": "You escalated the case."}),
    PageRoute(f"{_CASE}/note", note, _ANSWER, "POST"),
    PageRoute(f"{_CASE}/undo", undo, _ANSWER, "POST"),
)
