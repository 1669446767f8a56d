"""Damaged files of a stack that is down, set aside: they are made again from the registry and from each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import CumulantError, IntegrityError
from cumulant.runtime.stack.book import read_book
from cumulant.runtime.stack.status import read_status

if TYPE_CHECKING:
    from cumulant.project import Project

#: where the gateway keeps its routes, if the environment names no other folder
_GATEWAY = "gateway"


def set_aside(project: Project) -> list[Path]:
    """Rename the book, the status and the gateway's files that cannot be read; the new names.

    Nothing is deleted. Nobody may run them meanwhile.

    Raises:
        CumulantError: the gateway's files are not in the project's state.
    """
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return [path.rename(path.with_name(f"{path.name}.damaged-{now}")) for path in _damaged(project)]


def _damaged(project: Project) -> Iterator[Path]:
    readers: tuple[Callable[[], object], ...] = (
        lambda: read_book(project.state, project.name),
        lambda: read_status(project.state),
    )
    for read in readers:
        try:
            read()
        except IntegrityError as error:
            yield Path(str(error.subject))
    try:
        project.traffic().in_force(project.name)
    except CumulantError:
        found = list((project.state / _GATEWAY).glob("*.json"))
        if not found:
            raise
        yield from found
