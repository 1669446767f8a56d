"""The review queue a page at a time, without what is in the log: for lists of thousands of cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from cumulant.core.clock import Clock, SystemClock
from cumulant.flows.ledger.actions import verb
from cumulant.flows.review.case_index import CaseIndex
from cumulant.flows.review.service import open_queue
from cumulant.flows.review.views import CaseLine, case_line

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.review.cases import ReviewCase

ListStatus = Literal["waiting", "done", "expired"]


class CasePage(msgspec.Struct, frozen=True, kw_only=True):
    """`after`: the cursor of the next page; empty on the last one. `unlabelled`: decisions that are no labels yet."""

    cases: tuple[CaseLine, ...]
    after: str
    waiting: int
    done: int
    expired: int
    escalated: int
    unlabelled: int


@verb("review.show")
def case_page(
    project: Project,
    *,
    principal: Principal,
    status: ListStatus = "waiting",
    after: str = "",
    limit: int = 50,
    clock: Clock | None = None,
    index: CaseIndex | None = None,
) -> CasePage:
    """A page of cases: waiting ones in their order, closed ones the newest first. `after`: as the page before says.

    `index`: what a server remembers of the queue.

    Raises:
        UsageError: there is no queue.
    """
    queue, now = open_queue(project, clock=clock), (clock or SystemClock()).now()
    lists = (index or CaseIndex()).lists(project.journal(), queue, now)
    chosen = {"waiting": lists.waiting, "done": lists.done[::-1], "expired": lists.expired[::-1]}[status]
    page, cursor = _cut(chosen, after, limit)
    viewer, blind = principal.id, queue.policy.blind
    return CasePage(
        cases=tuple(case_line(case, viewer=viewer, blind=blind, now=now) for case in page),
        after=cursor,
        waiting=len(lists.waiting),
        done=len(lists.done),
        expired=len(lists.expired),
        escalated=lists.escalated,
        unlabelled=lists.unlabelled,
    )


def _cut(cases: Sequence[ReviewCase], after: str, limit: int) -> tuple[Sequence[ReviewCase], str]:
    """The page behind the case named `after`; from the beginning where that one has left the list."""
    start = next((place + 1 for place, case in enumerate(cases) if case.id == after), 0) if after else 0
    page = cases[start : start + limit]
    return page, page[-1].id if start + limit < len(cases) else ""
