"""From a folder to a project: read, put together, check everything, type."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec
from msgspec import inspect

from cumulant.core.errors import UsageError, did_you_mean
from cumulant.ports.access import Via
from cumulant.ports.plugins import Drivers
from cumulant.project.file.checking import Checker
from cumulant.project.file.document import Place, Problem, YamlEntry, file_error
from cumulant.project.file.layers import FILE, LOCAL, Layers, Overrides, read_layers
from cumulant.project.file.project_file import ProjectFile
from cumulant.project.file.rules import secrets_problems, section_problems
from cumulant.project.file.spec import EnvironmentSpec, ProjectSpec
from cumulant.project.project import Project
from cumulant.project.residency import residency_problems, step_problems
from cumulant.project.sign_in_section import sign_in_problems


def load(
    directory: Path | str = ".",
    *,
    environment: str = LOCAL,
    overrides: Overrides = (),
    drivers: Drivers | None = None,
    variables: Mapping[str, str] | None = None,
    via: Via = "service",
) -> Project:
    """The project in `directory` (or the one whose `cumulant.yaml` this is), resolved for one environment.

    `overrides` are `section.key=value` texts, or a mapping of such paths to values. Nothing is opened beyond the
    project's files: drivers are imported when a client is first used. `via`: what establishes who acts.

    Raises:
        ProjectFileError: every fault of the files at once, each with file and line.
        NotFoundError: no such environment.
        UsageError: no project here, or an override that cannot be read.
    """
    root = project_folder(Path(directory))
    drivers = drivers or Drivers.installed()
    layers = read_layers(root, environment=environment, overrides=overrides, drivers=drivers)
    return project_of_layers(root, layers, environment=environment, drivers=drivers, variables=variables, via=via)


def project_of_layers(
    root: Path,
    layers: Layers,
    *,
    environment: str,
    drivers: Drivers | None = None,
    variables: Mapping[str, str] | None = None,
    via: Via = "service",
) -> Project:
    """The project in `root` as its files were when they were read. Raises ProjectFileError: every fault of them."""
    spec, own = check_layers(layers)
    return Project(
        root,
        file=ProjectFile(spec, own, layers),
        environment=environment,
        drivers=drivers or Drivers.installed(),
        variables=os.environ if variables is None else variables,
        via=via,
    )


def project_folder(directory: Path) -> Path:
    """The absolute folder that holds `cumulant.yaml`.

    Raises:
        UsageError: there is none.
    """
    folder = directory.parent if directory.name == FILE and not directory.is_dir() else directory
    folder = folder.expanduser().absolute()
    if (folder / FILE).is_file():
        return Path(os.path.normpath(folder))
    if not folder.is_dir():
        raise UsageError(f"there is no folder {directory}", subject=str(directory), hint="check --project")
    raise UsageError(f"there is no {FILE} in {folder}", subject=str(folder), hint=_elsewhere(folder))


def _elsewhere(folder: Path) -> str:
    """Where the project file may be instead, or how to make one."""
    above = next((str(parent) for parent in folder.parents if (parent / FILE).is_file()), None)
    if above is not None:
        return f"there is one in {above}: add --project {above}"
    inside = sorted(folder.iterdir()) if os.access(folder, os.R_OK | os.X_OK) else []
    files = [path.name for path in inside if path.is_file()]
    near = did_you_mean(FILE, files)
    if near is not None:
        return f"a file there has another name; {near}"
    below = [path.name for path in inside if (path / FILE).is_file()]
    if below:
        return f"there is one in {', '.join(below[:5])}: add --project {shlex.quote(below[0])}, or work in that folder"
    return "start a project: cumulant new NAME --from FILE --target COLUMN"


def check_layers(layers: Layers) -> tuple[ProjectSpec, EnvironmentSpec]:
    """The checked specs of the project and of its environment.

    Raises:
        ProjectFileError: every fault found.
    """
    checker = Checker(sections())
    for document in layers.documents:
        # Each file by itself first, so that a mistake is found even where another layer hides it.
        checker.check(document.root, _type(EnvironmentSpec if document.environment else ProjectSpec), partial=True)
    project = checker.check(layers.project, _type(ProjectSpec))
    own = checker.check(layers.chosen, _type(EnvironmentSpec), ("environment",))
    if checker.problems:
        raise file_error(_in_order(checker.problems, layers))
    try:
        spec, environment = msgspec.convert(project, ProjectSpec), msgspec.convert(own, EnvironmentSpec)
    except msgspec.ValidationError as error:
        raise file_error([_own_problem(error, layers.project)]) from None
    broken = section_problems(spec, layers.project) + secrets_problems(layers.chosen.get("secrets"))
    broken += residency_problems(environment, layers.chosen)
    broken += sign_in_problems(environment.sign_in, layers.chosen)
    broken += step_problems(spec.resources.steps, environment.residency, layers.project)
    if broken:
        raise file_error(broken)
    return spec, environment


@cache
def sections() -> dict[str, inspect.Field]:
    """The fields of the whole project file, by key."""
    return {field.encode_name: field for field in _type(ProjectSpec).fields}


@cache
def _type(spec: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(spec)
    assert isinstance(info, inspect.StructType)
    return info


def _in_order(problems: list[Problem], layers: Layers) -> list[Problem]:
    """By file, in the order they were read, then by line."""
    files = {document.root.place.file: number for number, document in enumerate(layers.documents)}
    return sorted(problems, key=lambda problem: (files.get(problem[0], len(files)), problem[1] or 0))


_AT = re.compile(r"(.*) - at `\$?\.?(.*)`$", re.DOTALL)


def _own_problem(error: msgspec.ValidationError, project: YamlEntry) -> Problem:
    """The fault that a section's own check found, at its line."""
    match = _AT.match(str(error))
    text, path = (match[1], match[2]) if match else (str(error), "")
    place = _nearest(project, re.findall(r"[^.\[\]]+", path))
    return place.file, place.line, f"{path}: {text}" if path else text


def _nearest(entry: YamlEntry, path: list[str]) -> Place:
    for length in range(len(path), 0, -1):
        ancestor = entry.at(tuple(int(part) if part.isdigit() else part for part in path[:length]))
        if ancestor is not None:
            return ancestor.place
    return entry.place
