"""The files of a project in one environment: what they say, and where each value was set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cumulant.core.errors import not_found
from cumulant.project.endpoints import KEYS, Endpoints
from cumulant.project.file.document import YamlEntry
from cumulant.project.file.layers import Layers
from cumulant.project.file.origins import ResolvedRow, ValueOrigin, origin_of, rows, without_passwords
from cumulant.project.file.spec import DRIVERS, EnvironmentSpec, ProjectSpec
from cumulant.project.file.text_values import masked, secrets_in

if TYPE_CHECKING:
    from cumulant.data.spec import SourceSpec


@dataclass(frozen=True)
class ProjectFile:
    """What the project file says, put together with the files that it extends, one environment and the command line.

    Attributes:
        spec: the whole file, typed and resolved; references to secrets stay references.
        environment: the environment's own keys.
        layers: the entries that the values come from.
    """

    spec: ProjectSpec
    environment: EnvironmentSpec
    layers: Layers

    @property
    def path(self) -> Path:
        """The project's own file."""
        return self.paths[0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that took part, the project's own first."""
        return tuple(document.path for document in self.layers.documents)

    def source(self, name: str) -> SourceSpec:
        """Raises NotFoundError, with the nearest name."""
        if name not in self.spec.data:
            raise not_found("source", name, self.spec.data)
        return self.spec.data[name]

    def settings(self, *sections: str) -> dict[str, Any]:
        """Resolved sections as builtins, with their defaults and without passwords: what a step's identity holds."""
        plain = msgspec.to_builtins(self.spec)
        return {section: without_passwords(plain[section]) for section in sections}

    def declares(self, section: str) -> bool:
        """Whether a section was written anywhere that counts: a file, the environment, the command line."""
        entry = self.layers.project.get(section)
        return entry is not None and entry.value is not None

    def origin(self, path: str) -> ValueOrigin:
        """Where the value under a dotted path was set: `data.flights.quarantine`."""
        entry: YamlEntry | None = self.layers.project.at(tuple(path.split(".")))
        return origin_of(None if entry is None else entry.place)

    def resolved(self, endpoints: Endpoints) -> list[ResolvedRow]:
        """Every value of the project with its origin, in the order of the file's sections. No secret is in it."""
        plain = msgspec.to_builtins(self.spec)
        sections = {key: value for key, value in plain.items() if key not in ("extends", "environments")}
        resolved_rows = list(rows(sections, self.layers.project))
        resolved_rows += [
            ResolvedRow(f"environment.{name}", getattr(self.environment, name), self._own_origin(name))
            for name in ("tenant", "region", "residency", "deploy")
        ]
        for port, key in KEYS.items():
            if key in DRIVERS:
                url = masked(endpoints.of(port))
                resolved_rows.append(ResolvedRow(f"environment.{port}", url, self._own_origin(key)))
        audit = None if endpoints.audit is None else masked(endpoints.audit)
        resolved_rows.append(ResolvedRow("environment.audit", audit, self._own_origin("audit")))
        for key in ("schemas", "history", "stream_engine"):
            url = getattr(endpoints, key)
            shown = None if url is None else masked(url)
            resolved_rows.append(ResolvedRow(f"environment.{key}", shown, self._own_origin(key)))
        for key in ("audit_key", "salt"):
            secret = getattr(self.environment, key)
            where = secret if secret is None or secrets_in(secret) else "***"
            resolved_rows.append(ResolvedRow(f"environment.{key}", where, self._own_origin(key)))
        return [*resolved_rows, *self._sign_in_rows()]

    def _sign_in_rows(self) -> list[ResolvedRow]:
        if self.layers.chosen.get("sign_in") is None:
            return []
        section = {"sign_in": msgspec.to_builtins(self.environment.sign_in)}
        return [
            msgspec.structs.replace(row, path=f"environment.{row.path}") for row in rows(section, self.layers.chosen)
        ]

    def _own_origin(self, key: str) -> ValueOrigin:
        entry = self.layers.chosen.get(key)
        return origin_of(None if entry is None or entry.value is None else entry.place)
