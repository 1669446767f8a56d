"""The section `access` of the project file as role bindings, and what they may not say."""

from __future__ import annotations

from collections.abc import Iterator

from cumulant.core.errors import did_you_mean
from cumulant.core.roles import ROLES_OF
from cumulant.ports.access import RoleBinding
from cumulant.project.file.access_spec import AccessSpec, BindingSpec


def role_bindings(spec: AccessSpec) -> tuple[RoleBinding, ...]:
    """The bindings, each named by its place in the file."""
    return tuple(_binding(number, binding) for number, binding in enumerate(spec.bindings))


def _binding(number: int, spec: BindingSpec) -> RoleBinding:
    return RoleBinding(
        id=f"access.bindings[{number}]",
        role=spec.role,
        actions=tuple(spec.actions),
        users=tuple(spec.users),
        groups=tuple(spec.groups),
        projects=tuple(spec.projects),
        models=tuple(spec.models),
        environments=tuple(spec.environments),
        regions=tuple(spec.regions),
    )


def binding_faults(spec: AccessSpec) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Why a binding means nothing, each with its path in the file."""
    for number, binding in enumerate(spec.bindings):
        path: tuple[str | int, ...] = ("access", "bindings", number)
        where = f"access.bindings.{number}"
        if (binding.role is None) == (not binding.actions):
            yield path, f"{where}: write a role, or actions, and not both"
        if not binding.users and not binding.groups:
            yield path, f"{where} is for nobody; write users or groups"
        for position, action in enumerate(binding.actions):
            if action not in ROLES_OF:
                near = did_you_mean(action, ROLES_OF) or "`cumulant access roles` lists them"
                yield (*path, "actions", position), f'{where}.actions: there is no action "{action}"; {near}'
