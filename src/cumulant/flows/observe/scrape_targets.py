"""Where Prometheus reaches the processes of a stack, in files that it watches: versions and ports come and go."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from cumulant.core.errors import CumulantError
from cumulant.core.system.atomic_files import replace_file
from cumulant.flows.identities.api_address import running_url
from cumulant.flows.observe.programs import API_TOKEN, FOLDER
from cumulant.flows.observe.scrape_token import TokenRenewal
from cumulant.flows.release.controller.metrics_server import read_address
from cumulant.flows.stack.desired_state import FOLDER as STACK
from cumulant.flows.stack.status import Status

if TYPE_CHECKING:
    from cumulant.ports.traffic import Gateway
    from cumulant.project.project import Project


class TargetGroup(msgspec.Struct, frozen=True):
    """Addresses that are scraped, with labels of their series."""

    targets: tuple[str, ...]
    labels: dict[str, str]


class ScrapeTargets:
    """Writes the targets by the supervisor's status, each file only where it changes."""

    def __init__(self, project: Project) -> None:
        self._project, self._folder = project, project.state / FOLDER
        self._stack = project.state / STACK
        self._gateway: Gateway = project.gateway()
        self._labels = {"project": project.name, "environment": project.environment}
        self._written: dict[str, bytes] = {}
        self._renewal = TokenRenewal(project, self._folder / API_TOKEN)

    def __call__(self, status: Status) -> None:
        servers = [child for child in status.children if child.kind == "server" and child.url]
        groups = {
            "servers": [self._group(child.url or "", process=child.name) for child in servers],
            "gateway": [self._group(url) for url in self._gateway_urls()],
            "controller": [self._group(address.url) for address in [read_address(self._stack)] if address],
            "api": [self._group(url) for url in self._api_urls(status)],
        }
        for kind, targets in groups.items():
            content = msgspec.json.encode(targets)
            if self._written.get(kind) != content:
                with suppress(OSError):  # a full disk: the next time
                    replace_file(self._folder / f"{kind}.json", content, durable=False)
                    self._written[kind] = content

    def close(self) -> None:
        """End what is under way, before the project is closed."""
        self._renewal.close()

    def _group(self, url: str, **labels: str) -> TargetGroup:
        return TargetGroup((urlsplit(url).netloc,), {**self._labels, **labels})

    def _api_urls(self, status: Status) -> list[str]:
        """Where the API serves the project: as that of the stack, or of `cumulant api`, has noted it."""
        if not (self._folder / API_TOKEN).exists():
            return []
        self._renewal()
        if running := running_url(self._project):
            return [running]
        return [child.url for child in status.children if child.kind == "console" and child.url]

    def _gateway_urls(self) -> list[str]:
        with suppress(CumulantError):
            address = self._gateway.address()
            return [] if address is None else [address.admin]
        return []
