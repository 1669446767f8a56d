"""The scope of everything that is stored: whose it is, of which project, in which environment and region."""

from __future__ import annotations

import msgspec


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Resolved once, when a project is loaded; every client of a port is made with it.

    Stores that several projects share keep each project's keys below `prefix`, so that none sees those of another.
    Artefacts are named by their content, so that the environments of a project may share them; journal rows, events and
    logs also belong to one environment.
    """

    tenant: str = "default"
    project: str = "default"
    environment: str = "local"
    region: str = "local"

    @property
    def prefix(self) -> str:
        """The beginning of every key of this project in a shared store: `TENANT/PROJECT/`."""
        return f"{self.tenant}/{self.project}/"
