"""What a project needs of its drivers, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import UsageError
from cumulant.ports.driver import Need
from cumulant.project.endpoints import KEYS
from cumulant.project.file.document import Problem, YamlEntry, file_error
from cumulant.project.file.text_values import masked
from cumulant.project.notifiers import driver_url
from cumulant.project.sources import files_base

if TYPE_CHECKING:
    from cumulant.project.project import Project


def check_drivers(project: Project, needs: Iterable[Need] = ()) -> None:
    """Refuse drivers that are missing or cannot do what the project needs.

    Nothing is opened or imported beyond the drivers' light records.

    Raises:
        ProjectFileError: every problem found, with file and line where a file names the driver.
    """
    problems: list[Problem] = []
    declared = list(needs)
    for port, key in KEYS.items():
        for url, entry in _named(project, port, key):
            try:
                project.drivers.driver(url, port, setting=None if key == "data" else key)
                project.drivers.check_url(url, port)
                project.drivers.require(url, port, [need for need in declared if need.url in (None, url)])
                _check_file(project, url, port)
            except UsageError as error:
                # Two ports may be one key's, with the same fault.
                problems.append((*_place(project, entry), error.full_text))
    problems += _optional_problems(project, "audit", "objects", project.endpoints.audit)
    problems += _optional_problems(project, "schemas", "schemas", project.endpoints.schemas)
    problems += _optional_problems(project, "history", "history", project.endpoints.history)
    problems += _optional_problems(project, "stream_engine", "stream_engine", project.endpoints.stream_engine)
    problems += _notify_problems(project)
    if problems:
        raise file_error(list(dict.fromkeys(problems)))


def _optional_problems(project: Project, key: str, port: str, url: str | None) -> Iterator[Problem]:
    """What is wrong with the URL of a key that an environment need not have."""
    if url is None:
        return
    try:
        project.drivers.driver(url, port, setting=key)
        project.drivers.check_url(url, port)
    except UsageError as error:
        yield (*_place(project, project.file.layers.chosen.get(key)), error.full_text)


def _check_file(project: Project, url: str, port: str) -> None:
    """Refuse a file of secrets that an environment names and that is not there: nothing would be read from it."""
    path = project.drivers.path(url) if port == "secrets" and project.file.environment.secrets else None
    if path is not None and path != Path() and not path.exists():
        hint = "write the lines NAME=value to it with mode 0600, or write env:// for variables and .cumulant/secrets"
        raise UsageError(f"secrets names a file that does not exist: {path}", subject=str(path), hint=hint)


def _notify_problems(project: Project) -> Iterator[Problem]:
    for number, url in enumerate(project.file.spec.monitoring.notify):
        seen = driver_url(url)
        if seen is None:
            continue  # its scheme is a secret too
        try:
            project.drivers.driver(seen, "notifier")
        except UsageError as error:
            text = masked(error.message)
            text = f"monitoring.notify: {text}; {error.hint}" if error.hint else text
            yield (*_place(project, project.file.layers.project.at(("monitoring", "notify", number))), text)


def _place(project: Project, entry: YamlEntry | None) -> tuple[str, int | None]:
    return (project.file.path.name, None) if entry is None else (entry.place.file, entry.place.line)


def _named(project: Project, port: str, key: str) -> list[tuple[str, YamlEntry | None]]:
    """The URLs of a port, each with what names it."""
    layers, spec = project.file.layers, project.file.spec
    if port == "traffic" and project.file.environment.traffic is None:
        return []  # the default is built in
    if port == "streams" and not project.reads_streams:
        return []
    if port != "files":
        return [(project.endpoints.of(port), layers.chosen.get(key))]
    return [
        (files_base(source.path, project.root), layers.project.at(("data", name, "path")))
        for name, source in spec.data.items()
        if source.stream is None
    ]
