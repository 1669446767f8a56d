"""A small registry for tests of what stands around one, without MLflow's start. Its driver is `noted://`."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from cumulant.ports.driver import Driver
from cumulant.ports.registry import ModelVersion

DRIVER = Driver(clients={"registry": "e2e_registry:Noted"})


class Noted:
    """Aliases and verdicts in the file NOTED; it has every version that is asked for."""

    tracking_uri = "noted://"

    def __init__(self, url: str) -> None:
        del url
        self._path = Path(os.environ["NOTED"])

    def resolve(self, uri: str) -> ModelVersion:
        name, _, rest = uri.replace("@", "/").partition("/")
        version = self._noted().get(rest, rest)
        return ModelVersion(name=name, version=version, uri=uri, run_id=None, created=datetime.now(UTC))

    def alias(self, name: str, alias: str, version: str | None) -> None:
        del name
        self._note(alias, version or "")

    def tag(self, name: str, version: str, tags: dict[str, str | None]) -> None:
        self._note(f"{name}/{version}", str(tags["cumulant.release.verdict"]))

    def close(self) -> None:
        """Nothing is open."""

    def _noted(self) -> dict[str, str]:
        with suppress(FileNotFoundError):
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        return {}

    def _note(self, name: str, value: str) -> None:
        draft = self._path.with_name(f".noted.{os.getpid()}")
        draft.write_bytes(msgspec.json.encode(self._noted() | {name: value}))
        draft.replace(self._path)
