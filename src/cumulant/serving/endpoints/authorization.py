"""The check of an HTTP request before its body is read: who sends it, and whether the policy allows its action."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cumulant.core.errors import EngineUnavailableError
from cumulant.core.network.hosts import Hosts
from cumulant.serving.access.control import AccessControl, Reason, token_needed
from cumulant.serving.errors import HttpError
from cumulant.serving.http.messages import Headers, Request
from cumulant.serving.protocol.paths import find_route, split_path
from cumulant.serving.protocol.probes import OPEN

PREDICT = "model.predict"
_FOREIGN = "call 127.0.0.1, name this server with --allow-host, or give it a token"
#: targets of which the action is kept, and what those that name a model have in common; callers choose targets
_MOST, _OF_MODEL = 256, b"/models/"


class RequestCheck:
    """Checks requests by the action that their path declares; `names` gives the served models."""

    def __init__(self, access: AccessControl, hosts: Hosts, names: Callable[[], Sequence[str]]) -> None:
        self._access, self._callers, self._hosts, self._names = access, access.callers, hosts, names
        self._known: dict[bytes, tuple[str, str | None]] = {}

    def check(self, request: Request) -> None:
        """Return if the request may be answered.

        Raises:
            HttpError: 401 without a known token, 403 of a foreign page or where the policy refuses it.
            EngineUnavailableError: it was refused by its head, so that its body is gone, and is not now.
            CumulantError: the policy cannot be read.
        """
        target = request.target
        if target.startswith(OPEN):
            return
        if not self._callers.guarded:  # a token decides alone: no page of another place has one
            fault = self._hosts.fault(request.headers.get(b"host"), request.headers.get(b"origin"))
            if fault is not None:
                self._record(target, "origin")
                raise HttpError(403, fault, hint=_FOREIGN)
        principal = self._callers.identify(request.headers.get(b"authorization", b""), forwarded=request.forwarded)
        if principal is None:
            self._record(target, "token")
            raise token_needed()
        request.principal = principal.id
        known = self._known.get(target)
        needed = known or self._needed(target)
        if needed is not None and request.method != "OPTIONS":
            self._access.check(principal, *needed)
            if known is None:
                self._remember(target, needed)
        if request.rejected:
            raise EngineUnavailableError(
                "it could not be decided whether this request is allowed", hint="send it again"
            )

    def admitted(self, target: bytes, headers: Headers, *, forwarded: bool = False) -> bool:
        """Whether the body of a request with this head is read; otherwise the request is refused by its head."""
        if target.startswith(OPEN):
            return True
        principal = self._callers.identify(headers.get(b"authorization", b""), forwarded=forwarded)
        try:
            needed = self._known.get(target) or self._needed(target)
            return principal is not None and (needed is None or self._access.allows(principal, *needed))
        except Exception:  # noqa: BLE001 - the edge: the request is handled without its body, which reports the fault
            return False

    def _needed(self, target: bytes) -> tuple[str, str | None] | None:
        """The action of a request to this target, and the model; None where there is nothing to allow."""
        parts = split_path(target)
        route = find_route(parts)
        if route is None or route.action is None:
            return None
        if route.model is None:
            names = self._names() if route.action == PREDICT else ()
            return route.action, names[0] if len(names) == 1 else None
        return route.action, parts[route.model]

    def _remember(self, target: bytes, needed: tuple[str, str | None]) -> None:
        """Keep the action of an allowed request to a served model; the oldest one makes room."""
        if _OF_MODEL in target and b"?" not in target and needed[1] in self._names():
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[target] = needed

    def _record(self, target: bytes, reason: Reason) -> None:
        """Of nobody known: the resource is the server, whatever the path names."""
        needed = self._needed(target)
        if needed is not None:
            self._access.record(self._callers.anonymous, needed[0], None, reason)
