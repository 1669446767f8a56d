"""What a project on a server does not have of a local one, and why: so that its absence is explained."""

from __future__ import annotations

from collections.abc import Mapping

_PROCESSES = "it starts or ends processes of the project's machine"
_FILE = "it names a file of the project's machine"

#: reasons by the name of the group of methods, empty for the project itself, and that of the method
LOCAL_ONLY: Mapping[str, Mapping[str, str]] = {
    "": {
        "root": "it names a folder of the project's machine",
        "tracking_uri": "it names a store that the project's machine reaches",
        "rows": "it reads tables in place, all rows, personal values too; `preview(source)` has the first rows",
        "serve": "it starts a process of this machine",
        "assumptions": "it is of a project that was just created",
    },
    "stack": {
        "gateway_key_file": _FILE,
        "check": "it looks at what is installed on this machine",
        "spans_machines": "it is a part of `up`",
        "up": _PROCESSES,
        "down": _PROCESSES,
        "reset": _PROCESSES,
        "champion": "it has the command line of a process; `status()` has the versions that serve",
        "champion_url": "it is an address within the project's network",
    },
    "outcomes": {
        "past_requests": "it reads all rows of a period",
        "replay": "it sends requests from the project's machine",
        "ingest_replayed_labels": "it is a part of `replay`",
    },
    "streams": {
        "produce": "it writes to the broker or the folder that the project's machine reaches",
        "status": "it asks the broker that the project's machine reaches",
    },
    "reviews": {"used_for_training": "it reads rows of the journal that no operation shows"},
}


def missing_method(group: str, name: str, *, url: str) -> AttributeError:
    """The error of a method that a project on a server has not."""
    place = f"{group}.{name}" if group else name
    reason = LOCAL_ONLY.get(group, {}).get(name)
    if reason is None:
        return AttributeError(f'a project has no "{place}"', name=name)
    return AttributeError(
        f"`project.{place}` is of local projects only: {reason}. This project is at {url}; "
        "`cumulant.open(DIR)` on its machine has it.",
        name=name,
    )
