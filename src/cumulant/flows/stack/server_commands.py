"""Commands of the servers by the present settings of the project file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.progress import silent
from cumulant.flows.serving.serve import service_of
from cumulant.flows.stack.desired_state import DesiredState, ServedVersion, change_desired_state
from cumulant.flows.stack.served_versions import folder_of, known_version, online_of, server_line, table_of

if TYPE_CHECKING:
    from cumulant.project.project import Project

#: where the options of a server's command begin: PYTHON -m PROGRAM FOLDER
_OPTIONS = 4
#: options that have another name in messages
_SHOWN_NAMES = {"state-table": "stored features"}


def present_command(project: Project, served: ServedVersion) -> tuple[str, ...]:
    """The present command for a version of the desired state; its servable and its stored features stay."""
    table, line = table_of(served.command), served.command
    service = service_of(project, known_version(project, served), Path(folder_of(line)))
    if table is not None:
        # The table is where it was filled, also after `online` changed: the next release fills one there.
        service = msgspec.structs.replace(service, online=online_of(line), table=table)
    return server_line(service)


def refresh_commands(project: Project, report: Callable[[str], None] = silent) -> DesiredState:
    """Give every version of the desired state the present command; nothing may run. What changes is reported.

    Raises:
        StorageError, IntegrityError: as `change_desired_state`.
    """

    def change(desired: DesiredState) -> DesiredState:
        versions = {
            name: msgspec.structs.replace(version, command=present_command(project, version), generation=0)
            for name, version in desired.versions.items()
        }
        for name, version in versions.items():
            for text in describe_changes(desired.versions[name].command, version.command):
                report(f"version {name}: {text}")
        return msgspec.structs.replace(desired, versions=versions, starting=(), retiring=())

    return change_desired_state(project.state, project.name, change)


def describe_changes(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Differences between two commands, a line an option."""
    old, new = _options(before), _options(after)
    return [
        f"{_SHOWN_NAMES.get(name, name)}: {old.get(name, 'not set')} -> {new.get(name, 'not set')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _options(line: Sequence[str]) -> dict[str, str]:
    """`queue` to `40ms` of `--queue 40ms`; an option that is repeated has all its values."""
    values = defaultdict[str, list[str]](list)
    name = ""
    for word in line[_OPTIONS:]:
        if word.startswith("--"):
            name = word.removeprefix("--")
            values[name] += []
        else:
            values[name].append(word)
    return {"the interpreter": line[0], **{name: ", ".join(words) or "on" for name, words in values.items()}}
