"""Whether the policy in force allows a request. Decisions are kept, so that a request costs a look-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Literal

import msgspec

from cumulant.core.scope import Scope
from cumulant.ports.access import Access, Decision, Principal, Resource
from cumulant.serving.access.callers import Callers
from cumulant.serving.errors import HttpError

#: why a request was refused: by the policy, without a known token, or from a page or a name of another place
Reason = Literal["policy", "token", "origin"]
#: seconds for which a decision is kept: a changed policy is in force after that
KEPT_SECONDS = 10.0
#: decisions that are kept
_MOST = 1024
#: characters of a name that the message of a refusal repeats; callers choose names
_SHOWN = 100
#: stands for a model that is not served
UNKNOWN = "(unknown)"
_BEARER = ((b"www-authenticate", b"Bearer"),)
_ALLOWED = Decision(allowed=True)


class RefusedRequest(msgspec.Struct, frozen=True):
    """One refused request: who may not do what to which resource, and why."""

    principal: str
    action: str
    resource: str
    reason: Reason
    policies: tuple[str, ...] = ()


class AccessControl:
    """The check of every request to a server.

    Args:
        callers: principals of requests.
        access: the driver that decides; None: everything is allowed that `callers` let in.
        scope: whose server it is; resources carry it.
        server: the name of the server, the resource of what concerns no single model.
        refused: is called with every refusal.
    """

    def __init__(
        self,
        callers: Callers | None = None,
        access: Access | None = None,
        *,
        scope: Scope | None = None,
        server: str = "cumulant",
        refused: Callable[[RefusedRequest], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.callers = callers or Callers()
        self._access, self._scope, self._server = access, scope or Scope(), server
        self._refused, self._clock = refused, clock
        #: names of the served models, of which decisions are kept and refusals name; None: every name counts as one
        self.served: Callable[[], Collection[str]] | None = None
        #: numbers of refusals, by action and reason
        self.refused: dict[tuple[str, Reason], int] = {}
        self._decisions: dict[tuple[str, tuple[str, ...], str, str | None], tuple[float, Decision]] = {}

    def allows(self, principal: Principal, action: str, model: str | None = None) -> bool:
        """Whether `principal` may do `action` to a model, or to the server. A refusal is not recorded."""
        return self._decision(principal, action, model).allowed

    def check(self, principal: Principal, action: str, model: str | None = None) -> None:
        """Return if `principal` may do `action` to a model, or to the server; a refusal is recorded.

        Raises:
            HttpError: 403, the principal may not.
            CumulantError: the driver does not decide.
        """
        decision = self._decision(principal, action, model)
        if not decision.allowed:
            self.record(principal, action, model, "policy", decision.policies)
            resource = self._server if model is None else model
            shown = resource if len(resource) <= _SHOWN else f"{resource[:_SHOWN]}..."
            raise HttpError(403, f"{principal.id} may not do {action} to {shown}", hint=decision.hint)

    def record(
        self, principal: Principal, action: str, model: str | None, reason: Reason, policies: tuple[str, ...] = ()
    ) -> None:
        """Record a refusal; its resource is `UNKNOWN` for a model that is not served."""
        self.refused[action, reason] = self.refused.get((action, reason), 0) + 1
        resource = self._server if model is None else model if self._is_served(model) else UNKNOWN
        self._refused(RefusedRequest(principal.id, action, resource, reason, policies))

    def _is_served(self, model: str) -> bool:
        return self.served is None or model in self.served()

    def _decision(self, principal: Principal, action: str, model: str | None) -> Decision:
        if self._access is None:
            return _ALLOWED
        key = (principal.id, principal.groups, action, model)
        known, now = self._decisions.get(key), self._clock()
        if known is not None and now < known[0]:
            return known[1]
        decision = self._decide(self._access, principal, action, model)
        if model is None or self._is_served(model):
            self._decisions.pop(key, None)  # so that the oldest comes first
            if len(self._decisions) >= _MOST:
                del self._decisions[next(iter(self._decisions))]
            self._decisions[key] = (now + KEPT_SECONDS, decision)
        return decision

    def _decide(self, access: Access, principal: Principal, action: str, model: str | None) -> Decision:
        scope = self._scope
        resource = Resource(
            kind="server" if model is None else "model",
            name=self._server if model is None else model,
            tenant=scope.tenant,
            region=scope.region,
            labels={"project": scope.project, "environment": scope.environment},
        )
        return access.check(principal, action, resource)


def token_needed() -> HttpError:
    """The error of a request without a known token."""
    return HttpError(
        401, "this server needs a token", hint="send the header Authorization: Bearer TOKEN", headers=_BEARER
    )
