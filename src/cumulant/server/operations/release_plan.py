"""The forecast of a release."""

from __future__ import annotations

import msgspec

from cumulant.flows.release.plan.release_plan import ReleasePlan, plan_release
from cumulant.server.operation import ApiCall, get


class ReleasePlanQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`requests`: traffic, such as 200/s; empty: as the prediction log shows. `errors`: share that fails today."""

    requests: str = ""
    errors: float = 0.005


@get("/release-plan", action="release.plan")
def show(call: ApiCall, query: ReleasePlanQuery) -> ReleasePlan:
    """Forecast how long each stage takes, the smallest harm it detects, and what cannot be decided in time."""
    return plan_release(call.project, principal=call.principal, requests=query.requests or None, errors=query.errors)


OPERATIONS = (show,)
