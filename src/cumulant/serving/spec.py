"""The section `serving` of the project file.

A setting is declared here once. `extra` gives the form of its text and, where a server takes it on its command line,
its option: `serving.options` derives the options of both commands and what one hands to the other.
"""

from typing import Annotated, Any, Literal

import msgspec


def option(name: str, metavar: str, text: str | None = None) -> dict[str, Any]:
    """The `extra` of a setting with an option: its value's name in the help, and the form of its text."""
    return {"option": name, "metavar": metavar} | ({} if text is None else {"text": text})


class LogSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prediction log."""

    keep: Annotated[
        str,
        msgspec.Meta(
            description="How long predictions are kept, such as `90d` or `400d`.",
            extra=option("log-keep", "TIME", "duration"),
        ),
    ] = "90d"
    write: Annotated[
        Literal["durable", "background"],
        msgspec.Meta(
            description="When an answer is sent. `durable`: after its record is on the disk; `background`: at once, and"
            " a kill of the process that writes the log loses at most about a second of records.",
            extra=option("log-write", "durable|background"),
        ),
    ] = "background"


class FallbackSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is answered when the model has more to do than it can do in time, tried in this order; marked `degraded`."""

    cached: Annotated[bool, msgspec.Meta(description="The model's own answer to the same input, however old.")] = False
    servable: Annotated[
        str | None, msgspec.Meta(description="Folder of a cheaper servable with the same inputs and outputs.")
    ] = None
    constant: Annotated[
        dict[str, str | int | float | bool] | None,
        msgspec.Meta(description="The same answer for every row, such as `{prediction: false, probability: 0.0}`."),
    ] = None


class ReasonsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a row was answered so. Training writes it into the servable, with the reference values it needs."""

    method: Annotated[
        Literal["occlusion"],
        msgspec.Meta(
            description="How contributions are found. `occlusion`: the change of the score when one feature alone is"
            " put to its reference value, the median or the commonest value of the training rows."
        ),
    ] = "occlusion"
    count: Annotated[int, msgspec.Meta(ge=1, description="Reasons a row, where the request does not say how many.")] = 3
    when: Annotated[
        Literal["always", "asked", "decision"],
        msgspec.Meta(
            description="Rows with reasons where the request does not say: all, none, or those predicted true."
        ),
    ] = "asked"
    codes: Annotated[dict[str, str], msgspec.Meta(description="Reason text by feature.")] = {}


class ServingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is served."""

    http: Annotated[
        str,
        msgspec.Meta(
            description="Address and port to listen on. Port 0 takes a free one.", extra=option("http", "HOST:PORT")
        ),
    ] = "127.0.0.1:8080"
    body_limit: Annotated[
        str,
        msgspec.Meta(
            description="The largest request body that is read; a larger one is answered with 413.",
            extra=option("body-limit", "SIZE", "size"),
        ),
    ] = "8MiB"
    drain: Annotated[
        str,
        msgspec.Meta(
            description="How long a server that is asked to end may finish what it has accepted.",
            extra=option("drain", "TIME", "duration"),
        ),
    ] = "10s"
    workers: Annotated[
        int,
        msgspec.Meta(
            ge=1,
            description="Processes that answer on the port; as many as there are cores to give.",
            extra=option("workers", "N"),
        ),
    ] = 1
    grpc: Annotated[
        str | None,
        msgspec.Meta(
            description="Address and port of the protocol over gRPC. Default: none.", extra=option("grpc", "HOST:PORT")
        ),
    ] = None
    queue: Annotated[
        str,
        msgspec.Meta(
            description="How long a request may wait; one that would wait longer gets 429 at once.",
            extra=option("queue", "TIME", "duration"),
        ),
    ] = "40ms"
    cache: Annotated[
        Literal["auto", "on", "off"],
        msgspec.Meta(description="Answers kept for equal requests; `auto`: while that saves more time than it costs."),
    ] = "auto"
    shared_cache: Annotated[
        str | None,
        msgspec.Meta(
            description="Cache that servers share: `valkey://HOST:PORT/DB`, `redis://` or `rediss://`; its password is in `CUMULANT_CACHE_PASSWORD`. Default: none."  # noqa: E501 - one sentence of the reference
        ),
    ] = None
    cache_budget: Annotated[
        str,
        msgspec.Meta(
            description="The longest that a request may wait for the shared cache.",
            extra=option("cache-budget", "TIME", "duration"),
        ),
    ] = "5ms"
    scored: Annotated[
        Literal["durable", "background", "off"],
        msgspec.Meta(
            description="When a scored row enters the windows of later rows: before its answer goes, soon after,"
            " never.",
            extra=option("scored", "durable|background|off"),
        ),
    ] = "durable"
    clock_skew: Annotated[
        str | None,
        msgspec.Meta(
            description="Rows dated later than this after the server's clock are answered and never stored. Default:"
            " all are stored; a row of the future counts from its own time on and drops nothing, and posted corrections"
            " and deletions are taken in up to 1 second before their known time.",
            extra=option("clock-skew", "TIME", "duration"),
        ),
    ] = None
    invalid: Annotated[
        Literal["warn", "refuse"],
        msgspec.Meta(
            description="Requests with values that break the rules of the training source (`min`, `max`, `in`, `pattern`, `nulls: 0`). `warn`: answered, with a warning in the answer, a count in `/metrics` and the rule in the prediction log; `refuse`: 422. Also for files that `cumulant predict` scores here.",  # noqa: E501 - one sentence of the reference
            extra=option("invalid", "warn|refuse"),
        ),
    ] = "warn"
    fallback: Annotated[
        FallbackSpec, msgspec.Meta(description="Instead of a refusal when there is too much to do. Default: refuse.")
    ] = FallbackSpec()
    labels_size: Annotated[
        str,
        msgspec.Meta(
            description="How much of posted labels may wait to be taken in; a post beyond it is answered with 429.",
            extra=option("labels-size", "SIZE", "size"),
        ),
    ] = "1GiB"
    reasons: Annotated[ReasonsSpec | None, msgspec.Meta(description="Reasons of answers. Default: none.")] = None
    hosts: Annotated[
        list[Annotated[str, msgspec.Meta(extra={"text": "host"})]],
        msgspec.Meta(
            description="Names by which callers reach a server on loopback that needs no token, such as that of a proxy in front; pages of these sites may call it. `*`: any name. Default: those of loopback.",  # noqa: E501 - one sentence of the reference
            extra=option("allow-host", "NAME"),
        ),
    ] = []
    log: Annotated[LogSpec, msgspec.Meta(description="The prediction log.")] = LogSpec()
    access_log: Annotated[
        bool,
        msgspec.Meta(
            description="A line of JSON a request on standard error, without payloads.",
            extra=option("access-log", ""),
        ),
    ] = False
