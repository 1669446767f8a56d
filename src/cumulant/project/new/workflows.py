"""Workflow files for continuous integration: plan, validate, train, gate, report."""

from __future__ import annotations

from pathlib import Path

from cumulant import datasets
from cumulant.core.errors import StorageError, UsageError, not_found
from cumulant.project.file.layers import FILE

#: service to the place of its workflow file in a project
SERVICES = {"github": ".github/workflows/cumulant.yml", "gitlab": ".gitlab-ci.yml"}


def check_service(service: str) -> None:
    """Raises NotFoundError where there is no workflow file for such a service."""
    if service not in SERVICES:
        raise not_found("service", service, SERVICES)


def workflow_text(service: str) -> str:
    """The workflow file of a service: every command of the loop; those that change what others see on main only."""
    return (datasets.WORKFLOWS / f"{service}.yml.tmpl").read_text(encoding="utf-8")


def write_workflow(folder: Path, service: str) -> Path:
    """Write the workflow file of a service into a project's folder; returns its path.

    Raises:
        NotFoundError: no such service.
        UsageError: the folder holds no project, or such a file is there already.
        StorageError: it cannot be written.
    """
    check_service(service)
    if not (folder / FILE).is_file():
        hint = "`cumulant new NAME --ci github` makes one with it"
        raise UsageError(f"there is no project in {folder}", subject=str(folder), hint=hint)
    path = folder / SERVICES[service]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(workflow_text(service))
    except FileExistsError:
        hint = "move it away, or copy the steps that you want into it by hand"
        raise UsageError(f"{path} is there already", subject=str(path), hint=hint) from None
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", subject=str(path)) from None
    return path
