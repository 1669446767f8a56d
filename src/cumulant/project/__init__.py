"""The project file, typed and resolved, and the only place that resolves drivers and reads the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cumulant.project.create import Created, create_from, create_from_frame
    from cumulant.project.drivers import Drivers
    from cumulant.project.identity import Code, PythonEnvironment
    from cumulant.project.loading import load
    from cumulant.project.origins import Origin, ResolvedRow
    from cumulant.project.project import Project
    from cumulant.project.reference import reference_markdown
    from cumulant.project.schema import SCHEMA_FILE, json_schema
    from cumulant.project.spec import EnvironmentSpec, ModelSpec, ProjectSpec
    from cumulant.project.templates import TEMPLATES, create_from_template
    from cumulant.project.workflows import write_workflow

_HOMES = {
    "Code": "identity",
    "Created": "create",
    "Drivers": "drivers",
    "EnvironmentSpec": "spec",
    "ModelSpec": "spec",
    "Origin": "origins",
    "Project": "project",
    "ProjectSpec": "spec",
    "PythonEnvironment": "identity",
    "ResolvedRow": "origins",
    "SCHEMA_FILE": "schema",
    "TEMPLATES": "templates",
    "create_from": "create",
    "create_from_frame": "create",
    "create_from_template": "templates",
    "json_schema": "schema",
    "load": "loading",
    "reference_markdown": "reference",
    "write_workflow": "workflows",
}

__all__ = [
    "SCHEMA_FILE",
    "TEMPLATES",
    "Code",
    "Created",
    "Drivers",
    "EnvironmentSpec",
    "ModelSpec",
    "Origin",
    "Project",
    "ProjectSpec",
    "PythonEnvironment",
    "ResolvedRow",
    "create_from",
    "create_from_frame",
    "create_from_template",
    "json_schema",
    "load",
    "reference_markdown",
    "write_workflow",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
