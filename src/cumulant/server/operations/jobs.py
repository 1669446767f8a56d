"""Jobs: long operations that this server runs."""

from __future__ import annotations

import msgspec

from cumulant.core.errors import not_found
from cumulant.flows.ledger.actions import check, permits
from cumulant.server.jobs import KIND, Job, Jobs
from cumulant.server.operation import ApiCall, ListPage, PageQuery, get, post
from cumulant.server.operations import find_operation
from cumulant.server.pages import paginate


@get("/jobs", action="runs.show")
def list_(call: ApiCall, query: PageQuery) -> ListPage[Job]:
    """List jobs, newest first; results are those of operations that the caller may do, without rows that may be
    personal.
    """
    call.check()
    jobs = [_as_listed(call, job) for job in _jobs(call).list_all(call.project.journal())]
    return paginate(jobs, query, lambda job: (job.id,), newest=True)


@get("/jobs/{job}", action="runs.show")
def show(call: ApiCall, job: str) -> Job:
    """Show a job: what it does now, or its result, to callers who may do its operation."""
    shown = _as_seen(call, _own_or_permitted(call, job))
    if shown.result is not None and shown.principal != call.principal.id and _is_personal(shown):
        _record_read(call, shown)
    return shown


class CancelBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


@post("/jobs/{job}/cancel", action="runs.cancel")
def cancel(call: ApiCall, job: str, body: CancelBody) -> Job:
    """Cancel a running job; its finished steps are kept."""
    del body
    running = _own_or_permitted(call, job)
    _jobs(call).cancel(call.project.journal(), running, by=call.principal.id)
    return _as_seen(call, running)


def _own_or_permitted(call: ApiCall, identity: str) -> Job:
    """A job is its principal's, by any token that is good for its operation. Raises ForbiddenError, NotFoundError."""
    journal = call.project.journal()
    job = _jobs(call).find(journal, identity)
    if job is None or job.principal != call.principal.id or not _may_do(call, job):
        call.check()
    if job is None:
        raise not_found("job", identity, [row.key for row in journal.rows(KIND)])
    return job


def _as_seen(call: ApiCall, job: Job) -> Job:
    """A job without its result and its error where the caller may not do its operation."""
    return job if _may_do(call, job) else msgspec.structs.replace(job, result=None, error=None)


def _record_read(call: ApiCall, job: Job) -> None:
    """An event of a read by another principal than the job's, whose own one the operation has recorded."""
    of_model = not permits(call.project, call.principal, job.action)
    check(call.project, call.principal, job.action, model="" if of_model else None, personal=True)


def _as_listed(call: ApiCall, job: Job) -> Job:
    seen = _as_seen(call, job)
    return msgspec.structs.replace(seen, result=None) if _is_personal(seen) else seen


def _is_personal(job: Job) -> bool:
    try:
        return find_operation(job.operation).personal
    except (KeyError, ModuleNotFoundError):  # of another version, which may have had one that is
        return True


def _may_do(call: ApiCall, job: Job) -> bool:
    return any(permits(call.project, call.principal, job.action, model=model) for model in (None, ""))


def _jobs(call: ApiCall) -> Jobs:
    assert call.jobs is not None
    return call.jobs


OPERATIONS = (list_, show, cancel)
