"""Environments of a project whose registry is the same schema of a database, so that they share versions and aliases.

A journal, a store and the online state are divided by scope; names in MLflow's tables are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from cumulant.core.errors import join_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cumulant.project.file.project_file import ProjectFile

_DATABASES = ("mlflow+postgresql", "postgresql")
#: the driver's default
_SCHEMA = "mlflow"


def shared_registry_warnings(file: ProjectFile, environment: str) -> list[str]:
    """A warning where other environments, as the project's files declare them, have the registry of this one."""
    own = _place(file.environment.tracking_uri)
    names = sorted({name for name, url in _declared(file) if name != environment and own and _place(url) == own})
    if not names:
        return []
    whose = f"environment {names[0]} has" if len(names) == 1 else f"environments {join_names(names)} have"
    text = (
        f"{whose} the same registry as {environment}: versions and the aliases candidate and champion are shared, so "
        "that a release of one can take a model of the other; add &schema=NAME to `tracking_uri`, another one in each"
    )
    return [text]


def _declared(file: ProjectFile) -> Iterator[tuple[str, object]]:
    """The name and `tracking_uri` of each environment."""
    for document in file.layers.documents:
        environments = None if document.environment else document.root.get("environments")
        known = None if environments is None else environments.value
        for name, entry in known.items() if isinstance(known, dict) else ():
            url = entry.get("tracking_uri")
            if url is not None:
                yield name, url.value


def _place(url: object) -> tuple[str, str] | None:
    """Server and database without the user, and the schema; None where it is not such a URL."""
    scheme, _, rest = str(url).partition("://")
    if scheme.lower() not in _DATABASES:
        return None
    address, _, query = rest.partition("?")
    return address.rpartition("@")[2].lower(), dict(parse_qsl(query)).get("schema", _SCHEMA)
