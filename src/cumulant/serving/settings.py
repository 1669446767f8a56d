"""Settings of a server and its workers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from cumulant.ports.access import RoleBinding
from cumulant.serving.access.callers import CallerToken
from cumulant.serving.cache.shared_cache import SharedCacheConfig
from cumulant.serving.content_pins import Pin
from cumulant.serving.options import OPEN_ACCESS
from cumulant.serving.scheduling.runner import Scheduling


class FallbackConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fallback of a server's models, tried in this order; every answer of one names it."""

    #: the model's own answer to the same input, however old
    cached: bool = False
    #: folder of a cheaper servable with the same inputs and outputs
    servable: str | None = None
    #: outputs by name: the same for every row
    constant: dict[str, Any] | None = None

    @property
    def is_declared(self) -> bool:
        return self.cached or self.servable is not None or self.constant is not None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    #: servables, or folders that hold servables; models are loaded from inside these only
    folders: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8080
    #: of gRPC; port None: no gRPC
    grpc_host: str = "127.0.0.1"
    grpc_port: int | None = None
    workers: int = 1
    #: the store of the features that plans look up, the name of their state there and the scope that it is in, and
    #: where the secret is looked up that the store's URL names
    online: str | None = None
    table: str | None = None
    scope: str | None = None
    secrets: str = "env://"
    body_limit: int = 8 * 1024 * 1024
    drain: float = 10.0
    #: name of the server
    name: str = "cumulant"
    #: models may be loaded and unloaded by request
    control: bool = False
    #: whose tokens callers send as `Authorization: Bearer TOKEN`; empty: nobody needs one
    tokens: tuple[CallerToken, ...] = ()
    #: URL of the driver that decides what callers may do
    access: str = OPEN_ACCESS
    #: who has which role, for that driver
    bindings: tuple[RoleBinding, ...] = ()
    #: names of this server beside loopback's, where it needs no token: of a proxy in front; `*`: any
    hosts: tuple[str, ...] = ()
    #: key of the gateway in front, whose headers are trusted; None: no gateway
    gateway_key: bytes | None = None
    scheduling: Scheduling = Scheduling()
    #: the cache that servers share; None: each has its own only
    sharing: SharedCacheConfig | None = None
    fallback: FallbackConfig = FallbackConfig()
    #: the content of the fallback's servable; set by the process that starts the server
    fallback_pin: Pin | None = None
    #: how scored rows enter the online state: `durable`, `background` or `off`
    scored: Literal["durable", "background", "off"] = "durable"
    #: seconds by which rows may be dated after now and still enter the stored state; None: any
    clock_skew: float | None = None
    #: handling of rows that break the data contract of their model
    invalid: Literal["warn", "refuse"] = "warn"
    #: folder of the prediction log; None: no log
    log: str | None = None
    #: URL of the log that parts are uploaded to; None: the folder is the log
    log_upload: str | None = None
    log_keep: float = 90 * 86_400.0
    #: an answer waits until its record is on the disk, or goes at once
    log_write: Literal["durable", "background"] = "background"
    #: share of the requests whose stored features are logged
    log_features: float = 0.01
    #: of the salt that personal values in the log are hashed with; the salt itself is no setting
    salt_fingerprint: str = ""
    #: for the keys of stored features. Settings reach workers on their standard input, and are never written or shown
    salt: bytes = b""
    #: where the log process listens; set by the process that starts it
    log_socket: str | None = None
    #: folder of the copies that are served; set by the process that starts the workers
    artifacts: str | None = None
    #: folder of passed load checks; None: a model is checked at each start
    passed: str | None = None
    #: folder or URL of the log of posted labels; None: none are taken
    labels: str | None = None
    #: folder or URL of the log of refused requests; None: they are counted only
    refusals: str | None = None
    #: bytes of posted labels that wait for ingestion
    labels_size: int = 1024 * 1024 * 1024
    #: folders that could not be loaded at the start, and why
    left_out: dict[str, str] = {}
    region: str = ""
    #: a line of JSON a request on standard error
    access_log: bool = False
    #: base address of the collector of OpenTelemetry spans; empty: by its variables; None: no spans
    traces: str | None = None
    #: folder of the state of sequences; None: one for as long as the server lives, made by the process that starts it
    sequences: str | None = None
    sequence_count: int = 10_000
    sequence_bytes: int = 256 * 1024 * 1024
    #: the process at whose end the server ends too
    parent: int | None = None
