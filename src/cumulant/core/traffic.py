"""How requests are shared between two versions of a model, and what a gateway records of each request.

The assigned arm is what counts in a release: a request that the candidate could not answer and the champion
rescued stays the candidate's, unless it went to a machine that was lost (`flows/release/controller/rescues.py`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cumulant.core.errors import UsageError

CHAMPION, CANDIDATE = "champion", "candidate"
#: requests an arm, from testers to the gateway; such requests are not counted
FORCE_HEADER = "cumulant-force-arm"
#: the assigned arm, from the gateway to the server and on the answer
ARM_HEADER = "cumulant-arm"
#: the arm whose server responds, from the gateway to that server
SERVED_HEADER = "cumulant-served-arm"
#: carries the key that keeps a caller on one version, where the body does not
KEY_HEADER = "cumulant-key"
#: the ID of a request, from the gateway to the server and on the answer; the prediction log keeps the same
REQUEST_HEADER = "cumulant-request-id"
#: the caller's own name of a request, which is passed on, returned, and never used to join anything
CALLER_HEADER = "x-request-id"
#: characters of an id of a request, printable ASCII; a longer one of a caller counts as none
LONGEST_ID = 256
#: shows a server that its request comes from the gateway
TOKEN_HEADER = "cumulant-gateway-token"  # noqa: S105 - the header's name
#: marks a mirrored request, whose answer is never returned
SHADOW_HEADER = "cumulant-shadow"
_OTHER_POSTS, _REPOSITORY = frozenset({"/v1/labels", "/v1/events"}), "/v2/repository/"
#: regular expression of the targets of such requests, for a gateway
NO_PREDICTION = r"(/v1/(labels|events)/?(\?.*)?|/v2/repository/.*)"
_Seconds = Annotated[float, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """Servers of one version. `endpoints` are base URLs such as `http://127.0.0.1:9001`.

    One of https must show a certificate for its name; `authority` is a PEM file of those who may have signed it, None:
    those that the system trusts.
    """

    name: Literal["champion", "candidate"]
    version: str
    endpoints: tuple[str, ...]
    authority: str | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a request and an arm. Times in seconds."""

    deadline: _Seconds = 10.0
    #: again on another endpoint, or the other arm, where no connection was made; never after bytes were sent. Each try
    #: has an equal part of the deadline to connect in, 1 s at most
    retries: Annotated[int, Meta(ge=0, le=100)] = 1
    #: retries at once, in percent of the requests under way
    retry_budget: Annotated[float, Meta(ge=0, le=100)] = 20.0
    connections: _Count = 1024
    pending: _Count = 1024
    #: requests a second, of all gateways together; None: no limit
    rate: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    #: failures in a row after which an endpoint is left alone, and for how long at first
    eject_after: _Count = 5
    eject_for: _Seconds = 5.0
    #: between two health checks of an endpoint
    health_every: _Seconds = 1.0

    def check(self) -> None:
        """Raises UsageError: one is out of its range, which a gateway would refuse with the routes of all models."""
        try:
            msgspec.convert(msgspec.structs.asdict(self), Limits)
        except msgspec.ValidationError as error:
            raise UsageError(f"the limits of requests are not valid: {error}", subject="limits") from None


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files. With `authority`, callers must show a certificate that it signed."""

    certificate: str
    private_key: str
    authority: str | None = None


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway does with the requests of one model: the whole wanted state, applied at once.

    A key that the candidate got at a lower weight it keeps at a higher one: a ramp moves keys in one direction only.
    """

    model: str
    #: counts up with each change; a gateway refuses one below that in force, and other routes of the same
    revision: int
    champion: Arm
    candidate: Arm | None = None
    #: percent of the keys that are assigned to the candidate, 0 to 100
    weight: float = 0.0
    #: percent of the champion's requests that the candidate is sent too, without its answer being returned
    mirror: float = 0.0
    #: a request column: rows with one value stay on one arm; None: each request by itself
    key: str | None = None
    limits: Limits = Limits()
    #: the rollback that put these in force; empty: none did
    rollback: str = ""

    def gives_way_to(self, other: Routes) -> bool:
        """Whether `other` may take the place of these: its revision is above theirs, or they are the same."""
        return other.revision > self.revision or other == self

    def all_to(self, champion: Arm, *, revision: int, rollback: str = "") -> Routes:
        """These with every request to `champion`, and no candidate."""
        return msgspec.structs.replace(
            self, revision=revision, champion=champion, candidate=None, weight=0.0, mirror=0.0, rollback=rollback
        )

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The candidate first, as sticky hashing needs."""
        return (self.candidate, self.champion) if self.candidate else (self.champion,)


def printable_id(value: bytes) -> str:
    """The id of a request in a header, where it is printable ASCII of at most `LONGEST_ID` characters; else nothing."""
    text = value.decode("latin-1")
    return text if len(text) <= LONGEST_ID and text.isascii() and text.isprintable() else ""


def predicts(method: str, target: str) -> bool:
    """Whether a request is for a prediction, rather than one for figures, labels, events or the list of models."""
    path = target.partition("?")[0].rstrip("/")
    return method == "POST" and path not in _OTHER_POSTS and not path.startswith(_REPOSITORY)


class Exchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request that a gateway answered, from its log. Mirrored copies are not here."""

    #: the gateway's own name of it, as in the prediction log
    request: str
    #: microseconds since 1970 UTC, when the answer was done
    time: int
    model: str
    assigned: str
    #: the arm whose server answered; empty where none did
    served: str
    status: int
    duration_us: int
    #: a stand-in of the key, equal for equal keys; empty where requests have none
    key: str = ""
    #: a tester chose the arm
    forced: bool = False
    #: why there is no answer of a server: `timeout`, `connect`, `reset`, `overflow`, `rate`; else empty
    fault: str = ""
    #: the revision of the routes that assigned it
    revision: int = 0
    #: a request for a prediction; probes of health, figures and posted labels do not, and are evidence of no model
    predicts: bool = True
    #: the caller's name of the request; empty where it gave none
    caller_id: str = ""
    #: of several, the gateway whose clock gave the time; empty where there is one. Known from where it was read
    gateway: str = ""

    @property
    def rescued(self) -> bool:
        return self.served not in {"", self.assigned}

    def names(self, keys: Collection[str], requests: Collection[str]) -> bool:
        """Whether its key is one of these, or it is one of these requests."""
        return (self.key != "" and self.key in keys) or (self.request != "" and self.request in requests)

    def without_names(self) -> Exchange:
        """The exchange as it is counted, without the key, and the names that callers may have chosen."""
        return msgspec.structs.replace(self, request="", caller_id="", key="")
