"""Port `traffic`: how two versions of a model share the requests, and the gateway of this machine that does it.

A client of this port is one of possibly many: gateways and the journal store what is in force, not the client, so that
a controller can end and start again without a request noticing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from cumulant.core.traffic import Certificates, Exchange, Routes


class ListenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway listens. Addresses are `HOST:PORT`; port 0 takes a free one."""

    http: str = "127.0.0.1:8080"
    #: of `/metrics`, health and what the driver needs itself
    admin: str = "127.0.0.1:0"
    #: towards callers; None: plain
    tls: Certificates | None = None
    #: key of the hashes that stand for the callers' keys in the log, a file; None: keys are not logged
    key_file: str | None = None
    #: file of the key that tokens for servers are made with, see `core.network.gateway_token`; None: none are sent
    gateway_key_file: str | None = None
    #: where spans of requests are sent: the URL of a collector of OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`
    traces: str | None = None
    #: whether an agent reports with `Gateway.keep_ready` that the gateway is ready
    agent: bool = False


class GatewayAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where callers and administration reach a running gateway."""

    url: str
    admin: str
    pid: int


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The health of one server, as the gateway measures it. `ejected`: it takes no requests for now."""

    url: str
    arm: str
    ready: bool
    ejected: bool = False
    active: int = 0


class Traffic(Protocol):
    """The routes of a project's gateways, wherever they run."""

    def apply(self, routes: Routes) -> None:
        """Make these routes the ones in force, all at once and durably; also while no gateway runs.

        Returns when every gateway that is ready works by them. No request fails by a change.

        Raises:
            LeaseHeldError: the revision in force is higher, or these are other routes of the same: of two who change
                what they read, the second must read again.
            EngineUnavailableError: a running gateway does not take them.
            UsageError: an arm's `authority` is no file of certificates.
            StorageError: they cannot be stored, such as on a full disk; those before stay.
        """
        ...

    def in_force(self, model: str) -> Routes | None:
        """The routes that were applied last; of a single gateway, read back from it while it runs."""
        ...

    def lagging(self, model: str) -> Sequence[str]:
        """Names of the ready gateways that do not work by the routes in force yet, as after an interrupted `apply`.

        Raises:
            EngineUnavailableError: a running gateway does not take them.
        """
        ...

    def health(self, model: str) -> Sequence[EndpointHealth]: ...

    def active(self, model: str, arm: str) -> int:
        """Requests of an arm under way: 0 once it is drained."""
        ...

    def close(self) -> None: ...


class ExchangeSource(Protocol):
    """The requests that gateways answered."""

    def exchanges(self, after: str = "", *, limit: int = 100_000) -> tuple[list[Exchange], str]:
        """Exchanges since the cursor `after` (empty: all that are stored), and the next cursor.

        Each is returned once, those of one gateway in the order of writing, whether a gateway or the reader was killed
        between. Fewer than `limit` are all that there are.
        """
        ...

    def erase_names(self, keys: Collection[str], requests: Collection[str]) -> int:
        """Empty key and names of the exchanges that have one of these keys or are one of these requests; how many there
        were. They still count, and cursors stay valid. Cut off, it is done again.

        Raises:
            StorageError: the log cannot be written.
            LeaseHeldError: another process maintains the log.
        """
        ...


class Gateway(Traffic, ExchangeSource, Protocol):
    """The gateway of this machine: made as `Client(url)`, whose path is its folder: such as `envoy:///…/gateway`."""

    def command(self, opening: ListenOptions) -> list[str]:
        """The command that runs the gateway in the foreground until SIGTERM, which drains it.

        Whoever starts it supervises it. It writes its `GatewayAddress` into its folder, and starts with the routes in
        force.

        Raises:
            MissingPartError: its engine is not installed.
        """
        ...

    def address(self) -> GatewayAddress | None:
        """Where it listens; None while it does not run."""
        ...

    def share_rates(self, gateways: int) -> None:
        """Let through the share of one of so many gateways of each `limits.rate`; durably, also while it does not run.

        The shares add up to the rate. Each gateway has at least a part of a request a second.

        Raises:
            EngineUnavailableError: it runs and does not take the change.
        """
        ...

    def finish_change(self) -> None:
        """Put the stored routes in force where it runs and works by earlier ones, as after a change that was cut off.

        Does nothing while another process changes them.

        Raises:
            EngineUnavailableError: it does not answer, or does not take them.
            StorageError: its folder cannot be written.
        """
        ...

    def keep_ready(self, seconds: float, reason: str = "") -> None:
        """Let it answer `/ready` for so many seconds; 0: from now on not, for that `reason`.

        For one that was started with an agent. Another one is ready while it has routes.
        """
        ...
