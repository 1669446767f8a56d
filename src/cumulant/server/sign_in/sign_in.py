"""The sign-in of a server: its middleware and its routes, by the `sign_in` of its first project."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.routing import Route

from cumulant.server.sign_in.authentication import Authentication
from cumulant.server.sign_in.device import DevicePages
from cumulant.server.sign_in.identities import Identities
from cumulant.server.sign_in.proxy_headers import ProxyHeaders
from cumulant.server.sign_in.routes import SignInPages

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from cumulant.core.clock import Clock
    from cumulant.project.project import Project
    from cumulant.server.sign_in.exchange import TokenExchange
    from cumulant.server.sign_in.provider_login import ProviderLogin


class SignIn:
    """Who may call a server of these projects.

    Args:
        projects: by name; the first one's `sign_in` counts, and its journal has the sessions.
        local: the server listens on loopback alone.
        hosts: further names by which it is reached.

    Raises:
        UsageError: a name is none of a host, or a scope in `sign_in.trusted` names no action.
        NotFoundError: the secret of the client, or of the salt, does not exist.
    """

    def __init__(
        self, projects: Mapping[str, Project], *, local: bool, hosts: tuple[str, ...] = (), clock: Clock | None = None
    ) -> None:
        self._identities = Identities(projects, local=local, hosts=hosts, clock=clock)
        self._devices = DevicePages(self._identities)
        self._exchange = _token_exchange(self._identities)
        self._pages = SignInPages(self._identities, _provider_login(self._identities.home))

    @property
    def has_links(self) -> bool:
        """Whether users of the machine sign in with one-time links: on loopback, where no provider is declared."""
        return self._identities.has_links

    def middleware(self, application: ASGIApp) -> ASGIApp:
        """`application` behind the authentication of its callers."""
        return ProxyHeaders(Authentication(application, self._identities), self._identities.policy.proxies)

    def routes(self) -> list[BaseRoute]:
        """The pages to sign in and out, for the application."""
        routes: list[BaseRoute] = [*self._pages.routes(), *self._devices.routes()]
        if self._exchange is not None:
            routes.append(Route("/v1/sign-in/token", self._exchange.exchange, methods=["POST"]))
        return routes


def _token_exchange(identities: Identities) -> TokenExchange | None:
    if not any(project.sign_in.trusted for project in identities.projects.values()):
        return None
    from cumulant.server.sign_in.exchange import TokenExchange

    return TokenExchange(identities)


def _provider_login(project: Project) -> ProviderLogin | None:
    policy = project.sign_in
    if policy.provider is None:
        return None
    from cumulant.server.sign_in.issuer import Issuer
    from cumulant.server.sign_in.provider_login import ProviderLogin

    reference = policy.provider.client_secret
    return ProviderLogin(
        policy.provider,
        Issuer(policy.provider.issuer),
        url=policy.url,
        secret=None if reference is None else project.vault.reveal(reference),
        key=hmac.digest(project.salt(), b"cumulant sign-in", "sha256"),
        tenant=project.scope.tenant,
    )
