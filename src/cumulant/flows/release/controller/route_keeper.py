"""Routes follow the servers of several machines: new ones get requests, those that leave or are lost get none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.traffic import CHAMPION, Arm, Routes
from cumulant.flows.deployment.deployment import deployment_of

if TYPE_CHECKING:
    from cumulant.ports.deploy import ServerState
    from cumulant.ports.traffic import Traffic
    from cumulant.project.project import Project
    from cumulant.release.state import Release


class RouteKeeper:
    """Only the holder of the lease of the model's controller may call it."""

    def __init__(self, project: Project, traffic: Traffic) -> None:
        self._project, self._traffic = project, traffic
        self._deployment = deployment_of(project)

    def with_present_servers(self, release: Release) -> Release:
        """A release under way with the servers that its versions have now, one revision up where they changed."""
        present = self._deployment.present(release.model)
        champion, candidate = (with_endpoints(arm, present) for arm in (release.champion, release.candidate))
        if (champion, candidate) == (release.champion, release.candidate):
            return release
        return msgspec.structs.replace(release, champion=champion, candidate=candidate, revision=release.revision + 1)

    def follow_servers(self) -> None:
        """Apply routes to the servers that there are, where no release is under way.

        Raises:
            CumulantError: the journal or the gateway cannot be reached.
        """
        model = self._project.name
        routes, present = self._traffic.in_force(model), self._deployment.present(model)
        wanted = routes_to_servers(routes, present) if routes is not None else self._first_routes(present)
        if wanted is not None and wanted != routes:
            self._traffic.apply(wanted)

    def _first_routes(self, present: Sequence[ServerState]) -> Routes | None:
        desired = self._deployment.read(self._project.name)
        if desired.champion is None or desired.champion not in desired.versions:
            return None
        champion = with_endpoints(desired.arm(desired.champion, CHAMPION), present)
        if not champion.endpoints:
            return None
        key = self._project.policies.release.key
        return Routes(model=self._project.name, revision=1, champion=champion, key=key)


def with_endpoints(arm: Arm, present: Sequence[ServerState]) -> Arm:
    """The arm with the servers that its version has: a new one once it is ready, a present one until it is gone.

    Where none is left it keeps those that it had: requests fail there until one is back, and nowhere else sooner. An
    arm of servers that are not ours stays.
    """
    if "://" in arm.version:
        return arm
    servers = {server.endpoint: server.ready for server in present if server.version == arm.version}
    stay = [url for url in arm.endpoints if url in servers]
    new = sorted(url for url, ready in servers.items() if ready and url not in arm.endpoints)
    return msgspec.structs.replace(arm, endpoints=(*stay, *new) or arm.endpoints)


def routes_to_servers(routes: Routes, present: Sequence[ServerState]) -> Routes:
    """The routes with the servers that there are, one revision up where they changed."""
    champion = with_endpoints(routes.champion, present)
    candidate = None if routes.candidate is None else with_endpoints(routes.candidate, present)
    if (champion, candidate) == (routes.champion, routes.candidate):
        return routes
    return msgspec.structs.replace(routes, champion=champion, candidate=candidate, revision=routes.revision + 1)
