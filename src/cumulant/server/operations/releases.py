"""Releases: history, one in detail, and what a person may do to the one under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from cumulant.flows.release.controller.rollback_outbox import list_rollbacks
from cumulant.flows.release.release_queries import (
    current_release,
    find_release,
    release_history,
    release_looks,
    waiting_candidate,
)
from cumulant.flows.release.rollback import RollbackResult, roll_back
from cumulant.flows.release.views import ReleaseVerdict, ReleaseView, verdict, view
from cumulant.release.look_history import LookHistory
from cumulant.release.state import Release
from cumulant.server.operation import ApiCall, ListPage, PageQuery, get, post
from cumulant.server.pages import paginate

#: what a journal takes as a key
_ModelName = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f/]{0,200}$")]


class ReleaseOfModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: that of external servers; empty: the project's."""

    model: _ModelName = ""


class ReleaseQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: that of external servers; empty: the project's."""

    model: _ModelName = ""


@get("/releases", action="release.show")
def list_(call: ApiCall, query: ReleaseQuery) -> ListPage[ReleaseView]:
    """List releases, newest first."""
    releases = release_history(call.project, principal=call.principal, model=query.model)
    page = paginate(releases, query, lambda release: (release.begun.isoformat(), release.id), newest=True)
    return ListPage([_view(call, release) for release in page.items], page.next)


class WaitingCandidate(msgspec.Struct, frozen=True):
    """`candidate`: a version that waits until the release under way is over; null: none."""

    candidate: str | None


@get("/releases/waiting", action="release.show")
def waiting(call: ApiCall) -> WaitingCandidate:
    """Show the version that waits for the release under way."""
    call.check()
    return WaitingCandidate(waiting_candidate(call.project))


@get("/releases/{release}", action="release.show")
def show(call: ApiCall, release: str, query: ReleaseOfModel) -> ReleaseView:
    """Show a release, by its id or `latest`: its stages, metrics and what it lacks."""
    return _view(call, _find(call, release, query.model))


@get("/releases/{release}/verdict", action="release.show")
def verdict_(call: ApiCall, release: str, query: ReleaseOfModel) -> ReleaseVerdict:
    """Show the verdict for automation, such as the web metric of Argo Rollouts: `value` is 1 once it is promoted."""
    current = _find(call, release, query.model)
    return verdict(current, list_rollbacks(call.project, current.model, call.note))


@get("/releases/{release}/looks", action="release.show")
def looks(call: ApiCall, release: str, query: ReleaseOfModel) -> LookHistory:
    """Show the looks of a release: the evidence on each metric as its controller recorded it."""
    identity = _find(call, release, query.model).id
    history = release_looks(call.project, identity, principal=call.principal, model=query.model)
    return history or LookHistory(release=identity, steps=(), alpha=0.0)


class StartBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model`: the version, such as `flight-late/3`; empty: the newest candidate. `approval`: it waits for one.
    `override_slo`: why it begins and goes on whatever the objectives of the served model are; empty: it does not.
    `within`: how long to wait for the candidate's server, in seconds.
    """

    model: str = ""
    approval: bool = False
    override_slo: str = ""
    within: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 60.0


class StartedRelease(msgspec.Struct, frozen=True, kw_only=True):
    """`waits_for`: the release under way that it waits for, with `release` null."""

    release: ReleaseView | None
    waits_for: str | None
    notes: tuple[str, ...]


@post("/releases", action="release.start", long=True)
def start(call: ApiCall, body: StartBody) -> StartedRelease:
    """Begin to release a version."""
    from cumulant.flows.release.start.start import start_release  # loads numpy

    started = start_release(
        call.project,
        body.model,
        principal=call.principal,
        approval=body.approval,
        override_slo=body.override_slo.strip(),
        ready_within=body.within,
        progress=call.progress,
    )
    release = None if started.release is None else _view(call, started.release)
    return StartedRelease(release=release, waits_for=started.waits_for, notes=started.notes)


class ReasonBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reason`: why, for the events; `model`: that of external servers; empty: the project's."""

    reason: str
    model: _ModelName = ""


class OptionalReasonBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As `ReasonBody`."""

    reason: str = ""
    model: _ModelName = ""


def _steered(
    call: ApiCall,
    step: Literal["pause", "resume", "promote", "abort", "approve", "override_objectives"],
    body: ReasonBody | OptionalReasonBody,
) -> ReleaseView:
    from cumulant.flows.release import actions  # loads numpy, which commands that read do not need

    steer: Callable[..., Release] = getattr(actions, step)
    return _view(call, steer(call.project, principal=call.principal, reason=body.reason, model=body.model))


@post("/releases/current/pause", action="release.steer")
def pause_(call: ApiCall, body: OptionalReasonBody) -> ReleaseView:
    """Pause the release under way; its weight stays."""
    return _steered(call, "pause", body)


@post("/releases/current/resume", action="release.steer")
def resume_(call: ApiCall, body: OptionalReasonBody) -> ReleaseView:
    """Resume the paused release."""
    return _steered(call, "resume", body)


@post("/releases/current/promote", action="release.steer")
def promote_(call: ApiCall, body: ReasonBody) -> ReleaseView:
    """Promote the candidate now, without waiting for evidence."""
    return _steered(call, "promote", body)


@post("/releases/current/abort", action="release.steer")
def abort_(call: ApiCall, body: ReasonBody) -> ReleaseView:
    """Abort the release under way: all requests go to the champion."""
    return _steered(call, "abort", body)


@post("/releases/current/approve", action="release.approve")
def approve_(call: ApiCall, body: OptionalReasonBody) -> ReleaseView:
    """Approve the release that waits for it."""
    return _steered(call, "approve", body)


@post("/releases/current/override-slo", action="release.steer")
def override_slo(call: ApiCall, body: ReasonBody) -> ReleaseView:
    """Let the release under way go on to its end, whatever the objectives of the served model are."""
    return _steered(call, "override_objectives", body)


class RollbackBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`to`: a version; empty: the one before. `reason`: why, for the events. `model`: empty: the project's. `within`:
    how long to wait for a server that has to be started, in seconds.
    """

    reason: str
    to: str = ""
    model: _ModelName = ""
    within: Annotated[float, msgspec.Meta(ge=0, le=600)] = 60.0


@post("/rollback", action="release.rollback")
def roll_back_(call: ApiCall, body: RollbackBody) -> RollbackResult:
    """Send all requests to a version that was served before."""
    return roll_back(
        call.project,
        body.model or call.project.name,
        principal=call.principal,
        reason=body.reason,
        to=body.to,
        ready_within=body.within,
    )


def _find(call: ApiCall, release: str, model: str) -> Release:
    if release == "latest":
        return current_release(call.project, principal=call.principal, model=model)
    return find_release(call.project, release, principal=call.principal, model=model)


def _view(call: ApiCall, release: Release) -> ReleaseView:
    return view(release, list_rollbacks(call.project, release.model, call.note))


OPERATIONS = (
    list_,
    waiting,
    show,
    verdict_,
    looks,
    start,
    pause_,
    resume_,
    promote_,
    abort_,
    approve_,
    override_slo,
    roll_back_,
)
