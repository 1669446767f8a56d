"""The section `access` of the project file: who has which role, and where."""

from typing import Annotated

import msgspec
from msgspec import Meta

from cumulant.core.roles import Role
from cumulant.core.scope import NAME, NAME_SAYS

_Name = Annotated[str, Meta(pattern=NAME, extra={"says": NAME_SAYS})]
_Group = Annotated[str, Meta(min_length=1, max_length=256)]
_User = Annotated[
    str,
    Meta(
        pattern=r"^(\*|anonymous|[a-z]+:[^\x00-\x1f]{1,256})$",
        extra={"says": "a user: write user:NAME, service:NAME, anonymous, or * for everybody"},
    ),
]


class BindingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What users and groups may do: the actions of a role, or single actions."""

    role: Annotated[Role | None, Meta(description="The role that they have; or `actions`.")] = None
    actions: Annotated[
        list[str], Meta(description="Single actions instead of a role, such as `model.predict` for a program.")
    ] = []
    users: Annotated[
        list[_User],
        Meta(description="`user:NAME`, `service:NAME`, `anonymous` (callers without a name), or `*`: everybody."),
    ] = []
    groups: Annotated[list[_Group], Meta(description="Groups whose members have it.")] = []
    projects: Annotated[
        list[_Name], Meta(description="Only in these projects, for a file that projects share. Default: all.")
    ] = []
    models: Annotated[
        list[_Name],
        Meta(description="Only for these models: for actions on a model, not on its project or server. Default: all."),
    ] = []
    environments: Annotated[list[_Name], Meta(description="Only in these environments. Default: all.")] = []
    regions: Annotated[
        list[_Name], Meta(description="Only in these regions; `eu` includes `eu-central-1`. Default: all.")
    ] = []


class AccessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who has which role. It decides where an environment names `access: cedar://`; who is not named may do nothing."""

    bindings: Annotated[list[BindingSpec], Meta(description="Roles of users and groups.")] = []
