"""The port `traffic` over a gateway's folder and its admin address."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import EngineUnavailableError, missing_part
from cumulant.core.network.authorities import check_authority
from cumulant.core.traffic import Exchange, Routes
from cumulant.drivers.local.gateway.exchange_log import read
from cumulant.drivers.local.gateway.state import Folder
from cumulant.drivers.local.location import locate
from cumulant.ports.traffic import Door, EndpointHealth, Opening

_PROGRAM = "cumulant.drivers.local.gateway"
_PATIENCE = 10.0


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    routes: Routes
    endpoints: tuple[EndpointHealth, ...]
    active: dict[str, int]


_decode = msgspec.json.Decoder(dict[str, _Told]).decode


class LocalTraffic:
    """`local:///path/gateway`: a gateway of this machine, for it alone. Several processes may use one folder."""

    def __init__(self, url: str) -> None:
        self._folder = Folder(locate(url).path.absolute())

    def program(self, opening: Opening) -> list[str]:
        if importlib.util.find_spec("httptools") is None:
            raise missing_part("httptools", "serve")
        command = [sys.executable, "-m", _PROGRAM, str(self._folder.path)]
        command += ["--http", opening.http, "--admin", opening.admin]
        if opening.tls is not None:
            command += ["--certificate", opening.tls.certificate, "--private-key", opening.tls.private_key]
            if opening.tls.authority is not None:
                command += ["--authority", opening.tls.authority]
        if opening.key_file is not None:
            command += ["--key-file", opening.key_file]
        if opening.gateway_key_file is not None:
            command += ["--gateway-key-file", opening.gateway_key_file]
        return command

    def door(self) -> Door | None:
        return self._folder.door()

    def apply(self, routes: Routes) -> None:
        for arm in routes.arms:
            check_authority(arm.authority)
        self._folder.put(routes)
        told = self._asked("POST", "/reload")
        if told is None:
            return
        found = told.get(routes.model)
        if found is None or found.routes.revision < routes.revision:
            raise EngineUnavailableError(
                f"the gateway does not work by revision {routes.revision} of the routes of {routes.model}",
                subject=routes.model,
                hint=f"see whether the gateway of {self._folder.path} reads that folder",
            )

    def in_force(self, model: str) -> Routes | None:
        told = self._asked("GET", "/state")
        if told is None:
            return self._folder.routes().get(model)
        return told[model].routes if model in told else None

    def health(self, model: str) -> Sequence[EndpointHealth]:
        told = self._asked("GET", "/state") or {}
        return told[model].endpoints if model in told else ()

    def active(self, model: str, arm: str) -> int:
        told = self._asked("GET", "/state") or {}
        return told[model].active.get(arm, 0) if model in told else 0

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        return read(self._folder.log, after, limit)

    def close(self) -> None:
        """Nothing is held between calls."""

    def _asked(self, method: str, path: str) -> dict[str, _Told] | None:
        """What the running gateway answers; None where none runs.

        Raises:
            EngineUnavailableError: it runs and does not answer.
        """
        door = self._folder.door()
        if door is None:
            return None
        try:
            return _decode(_call(door, method, path))
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            if self._folder.door() != door:
                return None  # it ended meanwhile; the next one starts by what is kept
            raise EngineUnavailableError(
                f"the gateway at {door.admin} does not answer: {error}",
                subject=str(self._folder.path),
                hint="what was applied is kept; the gateway works by it when it is started again",
            ) from error


def _call(door: Door, method: str, path: str) -> bytes:
    where = urlsplit(door.admin)
    with contextlib.closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=_PATIENCE)) as one:
        one.request(method, path, headers={"Connection": "close"})
        answer = one.getresponse()
        body = answer.read()
    if answer.status != 200:
        raise http.client.HTTPException(f"it answered {answer.status} {body[:200].decode(errors='replace')}")
    return body
