"""Roles, and which of them may do which action.

The one table: policies, hints and the documentation are made from it, and a test compares it with the declared actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Role = Literal["viewer", "developer", "operator", "approver", "reviewer", "auditor", "admin"]

ROLES: Mapping[Role, str] = {
    "viewer": "sees models, runs, releases, alerts and events, without rows that may be personal",
    "developer": "reads data, trains, evaluates and starts releases",
    "operator": "serves, steers releases, rolls back, answers alerts, backs up and erases",
    "approver": "agrees to releases that wait for it",
    "reviewer": "sees and decides cases of the review queue",
    "auditor": "sees who did what, verifies and exports the events, finds what is stored of a subject",
    "admin": "manages access, tokens of others and the project, without rows that may be personal",
}

_EVERY: tuple[Role, ...] = tuple(ROLES)
_DEVELOPER: tuple[Role, ...] = ("developer",)
_OPERATOR: tuple[Role, ...] = ("operator",)
_BOTH: tuple[Role, ...] = ("developer", "operator")
_REVIEWER: tuple[Role, ...] = ("reviewer",)

#: the roles that may do an action. No row of personal data for viewers and admins: a test holds it
ROLES_OF: Mapping[str, tuple[Role, ...]] = {
    "access.show": ("auditor", "admin"),
    "alerts.observe": _BOTH,  # a part of monitor.run
    "alerts.show": _EVERY,
    "alerts.steer": _OPERATOR,
    "alerts.test": ("operator", "admin"),
    "data.cost": ("developer", "operator", "admin"),
    "data.infer": _DEVELOPER,
    "data.ingest": _BOTH,
    "data.quarantine": _DEVELOPER,
    "data.show": _DEVELOPER,
    "data.validate": _BOTH,
    "events.checkpoint": ("operator", "auditor", "admin"),
    "events.export": ("auditor", "admin"),
    "events.post": _OPERATOR,
    "events.show": _EVERY,
    "events.verify": _EVERY,
    "features.compute": _BOTH,
    "features.forget": _OPERATOR,
    "features.materialize": _BOTH,
    "features.read": _BOTH,
    "features.run_job": _OPERATOR,
    "features.show": _DEVELOPER,
    "features.show_key": _DEVELOPER,
    "features.status": _EVERY,
    "features.verify": _BOTH,
    "identities.manage": ("admin",),
    "identities.session_link": _EVERY,
    "identities.session_list": _EVERY,
    "identities.session_revoke": _EVERY,
    "identities.token_create": _EVERY,
    "identities.token_list": _EVERY,
    "identities.token_revoke": _EVERY,
    "labels.ingest": _BOTH,
    "labels.post": _OPERATOR,
    "labels.show": _DEVELOPER,
    "lineage.show": _EVERY,
    "model.alias": _OPERATOR,
    "model.evaluate": _DEVELOPER,
    "model.load": _OPERATOR,
    "model.package": _DEVELOPER,
    "model.predict": _BOTH,
    "model.register": _DEVELOPER,
    "model.reproduce": ("developer", "auditor"),
    "model.serve": _BOTH,
    "model.show": _EVERY,
    "model.tag": _DEVELOPER,
    "model.train": _DEVELOPER,
    "monitor.backtest": _DEVELOPER,
    "monitor.run": _BOTH,
    "monitor.show": _EVERY,
    "predictions.import": _BOTH,
    "predictions.show": _DEVELOPER,
    "project.backup": _OPERATOR,
    "project.clean": ("operator", "admin"),
    "project.overview": _EVERY,
    "project.plan": _EVERY,
    "project.report": _EVERY,
    "project.serve": _OPERATOR,
    "project.tick": _OPERATOR,
    "release.approve": ("approver",),
    "release.plan": _EVERY,
    "release.rollback": _OPERATOR,
    "release.show": _EVERY,
    "release.simulate": _EVERY,
    "release.start": _BOTH,
    "release.steer": _OPERATOR,
    "replay.run": _OPERATOR,
    "review.answer": _REVIEWER,
    "review.assign": _OPERATOR,
    "review.fill": _OPERATOR,
    "review.import": _OPERATOR,
    "review.show": _REVIEWER,
    "runs.cancel": _BOTH,
    "runs.show": _EVERY,
    "server.show": _EVERY,
    "stack.down": _OPERATOR,
    "stack.show": _EVERY,
    "stack.up": _OPERATOR,
    "steps.run": _OPERATOR,
    "subjects.admit": _OPERATOR,
    "subjects.erase": _OPERATOR,
    "subjects.find": ("operator", "auditor"),
}


def actions_of(role: str) -> tuple[str, ...]:
    """The actions of a role, sorted."""
    return tuple(sorted(action for action, roles in ROLES_OF.items() if role in roles))
