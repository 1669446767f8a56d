"""The callers of a server of one or more projects: by the token of a request, or by the session of its browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from cumulant.core.clock import Clock, SystemClock
from cumulant.core.errors import CumulantError
from cumulant.core.ids import short
from cumulant.core.network.hosts import Hosts
from cumulant.flows.identities.last_use import LastUse
from cumulant.flows.identities.records import principal_of, secret_hash
from cumulant.flows.identities.sessions import Sessions
from cumulant.flows.identities.tokens import (
    USE_INTERVAL,
    USES,
    find_token,
    find_token_at_once,
    follow_groups,
    lookup_token,
)
from cumulant.flows.ledger.decisions import ANONYMOUS, record_refused_request
from cumulant.ports.journal import ReadAtOnce
from cumulant.project.redaction import redaction_of
from cumulant.server.sign_in.cookies import Cookies
from cumulant.server.sign_in.form_answers import FormError
from cumulant.server.sign_in.log import log_failure

if TYPE_CHECKING:
    from starlette.requests import Request

    from cumulant.ports.access import Principal
    from cumulant.project.project import Project

#: `unconfirmed`: it is good, but for its user's sign-in, which is too long ago
TokenFault = Literal["unknown", "other project", "unconfirmed"]
_PROJECT_PATHS = ("/v1/projects/", "/projects/")


class CallerIdentity(NamedTuple):
    """`secret` and `session`, its id, are empty for a token. `project`: whose token it is; empty for a session."""

    principal: Principal
    secret: str = ""
    session: str = ""
    project: str = ""


class Identities:
    """Who may send requests.

    Sessions are of the first project, by whose `sign_in` the server goes; a token is of one project, and good for its
    paths, and for what `/v1` shows of the server itself.

    Attributes:
        home: the first project.
        local: whether the server listens on loopback alone.
    """

    def __init__(
        self, projects: Mapping[str, Project], *, local: bool, hosts: tuple[str, ...] = (), clock: Clock | None = None
    ) -> None:
        self.projects = projects
        self.home = next(iter(projects.values()))
        self.policy = self.home.sign_in
        self.local = local
        self.clock = clock or SystemClock()
        self.cookies = Cookies(self.policy.url)
        self.sessions = Sessions(self.home.journal(), self.policy.limits)
        declared = (*hosts, self.policy.url.partition("://")[2]) if self.policy.url else hosts
        self.hosts = Hosts(declared, local=local or bool(self.policy.url))
        self._confirmed = None if self.policy.provider is None else self.policy.limits.recheck_tokens
        self._read_at_once: dict[str, ReadAtOnce | None] = {}
        self._uses = {name: LastUse(USES, USE_INTERVAL) for name in projects}

    @property
    def has_links(self) -> bool:
        """Whether users of the machine sign in with one-time links."""
        return self.local and self.policy.provider is None

    def by_token(self, authorization: str, path: str) -> CallerIdentity | None:
        """The caller of a header `Authorization: Bearer TOKEN`."""
        secret = _secret_of(authorization)
        for name in self._projects_of(path):
            journal, now = self.projects[name].journal(), self.clock.now()
            token = find_token(journal, secret, now, self._uses[name], confirmed=self._confirmed)
            if token is not None:
                return CallerIdentity(principal_of(token), project=name)
        return None

    def by_token_at_once(self, authorization: str, path: str) -> CallerIdentity | None:
        """As `by_token`, for an event loop; None also where that has to wait for something."""
        secret = _secret_of(authorization)
        for name in self._projects_of(path):
            journal = self._at_once(name)
            if journal is None:
                continue
            now = self.clock.now()
            token = find_token_at_once(journal, secret, now, self._uses[name], confirmed=self._confirmed)
            if token is not None:
                return CallerIdentity(principal_of(token), project=name)
        return None

    def _at_once(self, name: str) -> ReadAtOnce | None:
        """The journal of a project, where it is read at once; looked up once, as that takes as long as a read."""
        if name not in self._read_at_once:
            journal = self.projects[name].journal()
            self._read_at_once[name] = journal if isinstance(journal, ReadAtOnce) else None
        return self._read_at_once[name]

    def by_session(self, secret: str) -> CallerIdentity | None:
        """The caller whose cookie has this secret."""
        session = self.sessions.find(secret, self.clock.now())
        if session is None:
            return None
        return CallerIdentity(principal_of(session), secret, short(secret_hash(secret)))

    def follow_groups(self, principal: Principal) -> None:
        """Let the user's tokens follow a sign-in by the provider; those of a project whose journal is away have the
        groups of before, until the next one.
        """
        for project in self.projects.values():
            try:
                follow_groups(
                    project.journal(), principal, self.clock.now(), confirmed=self.policy.limits.recheck_tokens
                )
            except CumulantError as error:
                log_failure(error)

    def is_renewable(self, secret: str) -> bool:
        """Whether the session of this cookie has to be checked at the provider before it counts again."""
        return self.policy.provider is not None and self.sessions.is_renewable(secret, self.clock.now())

    def fault_of(self, authorization: str, path: str) -> TokenFault:
        """Why the token of a header is not good for a path."""
        secret, now, own = _secret_of(authorization), self.clock.now(), self._projects_of(path)
        known = (name for name, each in self.projects.items() if lookup_token(each.journal(), secret, now) is not None)
        places = set(known)
        if places.intersection(own):
            return "unconfirmed"
        return "other project" if places and _project_of(path) else "unknown"

    def record_refusal(self, request: Request, reason: Literal["token", "origin"], principal: str = ANONYMOUS) -> None:
        """Make a request that is not let in an event of the first project; equal ones are counted."""
        source = request.client.host if request.client is not None else ""
        record_refused_request(self.home, reason, principal=principal, source=source)

    def redacted(self, error: CumulantError) -> CumulantError:
        """The error without secrets of the projects, which the URL of an engine may hold."""
        for project in self.projects.values():
            error = error.reworded(redaction_of(project))
        return error

    def project_of(self, form: Mapping[str, str]) -> Project:
        """The project that a form names; without a name the first one. Raises FormError."""
        project = self.projects.get(form.get("project", self.home.name))
        if project is None:
            raise FormError("invalid_target")
        return project

    def _projects_of(self, path: str) -> list[str]:
        """Whose tokens are good for a path: pages of several projects need a session."""
        named = _project_of(path)
        if named:
            return [named] if named in self.projects else []
        return list(self.projects) if path.startswith("/v1") or len(self.projects) == 1 else []


def _secret_of(authorization: str) -> str:
    """The token of a header `Authorization: Bearer TOKEN`; empty where it is of another scheme."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _project_of(path: str) -> str:
    """The project that a path names, as routes read it; empty where it names none."""
    for prefix in _PROJECT_PATHS:
        if path.startswith(prefix):
            return path.removeprefix(prefix).partition("/")[0]
    return ""
