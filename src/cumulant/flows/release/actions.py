"""Actions on a release under way: pause, resume, promote, abort, approve."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cumulant.core.clock import SystemClock
from cumulant.core.errors import LeaseHeldError, NotFoundError, RefusedError, UsageError
from cumulant.core.events import Actor
from cumulant.flows.ledger.actions import check, verb
from cumulant.flows.release import store
from cumulant.release import decide
from cumulant.release.policy import ANYBODY
from cumulant.release.state import Release

if TYPE_CHECKING:
    from cumulant.core.clock import Clock
    from cumulant.ports.access import Principal
    from cumulant.project.project import Project
    from cumulant.release.policy import ApprovalPolicy

#: the controller writes the row at each look; an operator's action goes between two of them
_TRIES = 20
#: what becomes of a release that is held by an objective
OVERRIDDEN = "let go on whatever the objectives are"


@verb("release.steer", of="model")
def pause(project: Project, *, principal: Principal, reason: str, model: str = "") -> Release:
    """Keep the weights as they are; failures and proven harm still roll the release back.

    Raises:
        UsageError: it does not run.
    """
    text = f"paused by {_who(principal)}" + (f": {reason}" if reason else "")
    return _change_release(
        project,
        principal,
        model,
        lambda release: decide.pause(release, text),
        reason=reason,
        word="paused",
    )


@verb("release.steer", of="model")
def resume(project: Project, *, principal: Principal, reason: str = "", model: str = "") -> Release:
    """Continue a paused release.

    Raises:
        UsageError: it is not paused.
    """
    return _change_release(project, principal, model, decide.resume, reason=reason, word="resumed")


@verb("release.steer", of="model")
def promote(
    project: Project, *, principal: Principal, reason: str, model: str = "", clock: Clock | None = None
) -> Release:
    """Send everything to the candidate now, whatever the evidence. An approval that is declared is needed all the same.

    Raises:
        RefusedError: an approval is missing that the principal may not give.
        UsageError: the release is over.
    """
    at = (clock or SystemClock()).now()

    def change(release: Release) -> Release:
        approval = release.policy.approval
        if not release.over and approval is not None and approval.before not in release.approved:
            _check_may_approve(project, release, approval, principal)
        return decide.promote(release, f"promoted by {_who(principal)}" + (f": {reason}" if reason else ""), at=at)

    return _change_release(project, principal, model, change, reason=reason, word="promoted")


@verb("release.steer", of="model")
def abort(
    project: Project, *, principal: Principal, reason: str, model: str = "", clock: Clock | None = None
) -> Release:
    """Send everything back to the champion and end the release.

    Raises:
        UsageError: the release is over.
    """
    at = (clock or SystemClock()).now()
    text = f"aborted by {_who(principal)}" + (f": {reason}" if reason else "")
    return _change_release(
        project,
        principal,
        model,
        lambda release: decide.end_release(release, "rolled_back", text, at=at),
        reason=reason,
        word="aborted",
    )


@verb("release.approve", of="model")
def approve(
    project: Project, *, principal: Principal, reason: str = "", model: str = "", clock: Clock | None = None
) -> Release:
    """Agree to what the release waits for.

    Raises:
        RefusedError: the principal is in none of the groups, or is the author.
        UsageError: it waits for nothing.
    """
    at = (clock or SystemClock()).now()

    def change(release: Release) -> Release:
        approval = release.policy.approval
        if release.status == "awaiting_approval" and approval is not None:
            _check_may_approve(project, release, approval, principal)
        return decide.approve(release, at=at)

    return _change_release(project, principal, model, change, reason=reason, word="approved")


@verb("release.steer", of="model")
def override_objectives(project: Project, *, principal: Principal, reason: str, model: str = "") -> Release:
    """Let the release go on whatever the objectives of the served model are, to its end.

    Raises:
        UsageError: the release is over or goes on so already, or the reason is empty.
    """
    text = override_text(principal, reason)
    if not text:
        raise UsageError("the reason is empty", subject="reason", hint="say why; it is kept in the event")
    return _change_release(
        project,
        principal,
        model,
        lambda release: release if release.slo_override else decide.override_objectives(release, text),
        reason=reason,
        word=OVERRIDDEN,
    )


def override_text(principal: Principal, reason: str) -> str:
    """`overridden by ada: it fixes the failures`; empty without a reason."""
    return f"overridden by {_who(principal)}: {reason.strip()}" if reason.strip() else ""


def _check_may_approve(project: Project, release: Release, approval: ApprovalPolicy, principal: Principal) -> None:
    """The declared approval, and the access policies, which see the author of the release.

    Raises:
        RefusedError: the principal may not approve this release.
    """
    check_may_approve(release, approval, principal)
    check(project, principal, "release.approve", model=release.model, labels={"author": release.author})


def check_may_approve(release: Release, approval: ApprovalPolicy, principal: Principal) -> None:
    """Check that the principal may approve this release.

    Raises:
        RefusedError: the principal may not approve this release.
    """
    wanted = " or ".join(approval.by)
    if not {ANYBODY, *principal.groups} & set(approval.by):
        groups = ", ".join(principal.groups) or "none"
        raise RefusedError(
            f"{principal.id} may not approve the release {release.id}: that takes a member of {wanted}",
            subject=release.id,
            hint=f"groups of {principal.id}: {groups}; CUMULANT_GROUPS names them",
        )
    if approval.excluded == "author" and principal.id == release.author:
        raise RefusedError(
            f"{principal.id} trained version {release.candidate.version}, and an author may not approve",
            subject=release.id,
            hint="ask another person" if ANYBODY in approval.by else f"ask another member of {wanted}",
        )


def _change_release(
    project: Project,
    principal: Principal,
    model: str,
    change: Callable[[Release], Release],
    *,
    reason: str,
    word: str,
) -> Release:
    journal, name = project.journal(), model or project.name
    for attempt in range(_TRIES):
        before, version = store.read_required(journal, name)
        after = change(before)
        if after == before:
            raise _unchanged(before, word)
        try:
            with journal.transaction(actor=Actor(principal.id, reason or None), run=before.id) as transaction:
                store.write(transaction, before, after, expect=version)
        except LeaseHeldError:
            if attempt == _TRIES - 1:
                raise
            continue
        return after
    raise NotFoundError(f"{name} has no release", subject=name)


def _unchanged(release: Release, word: str) -> UsageError:
    status = release.status.replace("_", " ")
    hint = "`cumulant release status` shows it"
    if word == OVERRIDDEN and release.slo_override:
        status = f"{status} and {release.slo_override}"
    if release.over:
        hint = f"it is over; `cumulant release start` begins another, `cumulant rollback {release.model}` goes back"
    because = f" ({release.reason})" if release.reason else ""  # names who was faster
    text = f"the release {release.id} is {status}, so it cannot be {word}{because}"
    return UsageError(text, subject=release.id, hint=hint)


def _who(principal: Principal) -> str:
    return principal.id.removeprefix("user:")
