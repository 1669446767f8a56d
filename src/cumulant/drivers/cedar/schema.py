"""The Cedar schema of principals, resources and the declared actions.

A role is an action group, so that a policy writes `action in Action::"viewer"`.
"""

from __future__ import annotations

import json

from cumulant.core.roles import ROLES, ROLES_OF

_TYPES = """
entity Group;
// the id is `user:ada`, `service:ci` or `anonymous`; tags are the claims
entity Principal in [Group] { tenant: String, via: String } tags String;
// tags are the labels; author: of the release that an approval is for
entity Project, Model, Server {
  tenant: String, project: String, environment: String, region: String, author?: Principal
} tags String;
"""


def schema_text() -> str:
    """The schema, in Cedar's own format."""
    lines = [_TYPES, *(f"action {json.dumps(role)};" for role in ROLES)]
    for action, roles in ROLES_OF.items():
        groups = ", ".join(f"Action::{json.dumps(role)}" for role in roles)
        lines.append(
            f"action {json.dumps(action)} in [{groups}]"
            " appliesTo { principal: [Principal], resource: [Project, Model, Server] };"
        )
    return "\n".join(lines) + "\n"
