"""Cases answered by a program: rules, a replay, a demo."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cumulant.core.clock import Clock
from cumulant.flows.ledger.actions import verb
from cumulant.flows.review.service import decide, next_case
from cumulant.flows.review.views import CaseView

if TYPE_CHECKING:
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project


@verb("review.answer", personal=True)
def answer_open(
    project: Project,
    truth: Callable[[CaseView], object],
    *,
    most: int,
    principal: Principal,
    clock: Clock | None = None,
) -> int:
    """Take cases and decide them as `truth` does (None: skip), until none is left or `most` are; their number.

    Raises:
        UsageError, LeaseHeldError, NotFoundError: as `decide`.
    """
    answered, passed = 0, list[str]()
    while answered < most and (case := next_case(project, principal=principal, passed=passed, clock=clock)) is not None:
        label = truth(case)
        if label is None:
            passed.append(case.id)
            continue
        decide(project, case.id, label, principal=principal, clock=clock)
        answered += 1
    return answered
