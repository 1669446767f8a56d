"""The section `serving` of the project file."""

from typing import Annotated, Literal

import msgspec


class LogSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prediction log."""

    keep: Annotated[str, msgspec.Meta(description="How long predictions are kept, such as `90d` or `400d`.")] = "90d"
    write: Annotated[
        Literal["durable", "background"],
        msgspec.Meta(
            description="When an answer is sent. `durable`: after its record is on the disk; `background`: at once, and"
            " a kill of the process that writes the log loses at most about a second of records."
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

    http: Annotated[str, msgspec.Meta(description="Address and port to listen on. Port 0 takes a free one.")] = (
        "127.0.0.1:8080"
    )
    body_limit: Annotated[
        str, msgspec.Meta(description="The largest request body that is read; a larger one is answered with 413.")
    ] = "8MiB"
    drain: Annotated[
        str, msgspec.Meta(description="How long a server that is asked to end may finish what it has accepted.")
    ] = "10s"
    workers: Annotated[
        int, msgspec.Meta(ge=1, description="Processes that answer on the port; as many as there are cores to give.")
    ] = 1
    grpc: Annotated[
        str | None, msgspec.Meta(description="Address and port of the protocol over gRPC. Default: none.")
    ] = None
    queue: Annotated[
        str,
        msgspec.Meta(description="How long a request may wait; one that would wait longer gets 429 at once."),
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
        str, msgspec.Meta(description="The longest that a request may wait for the shared cache.")
    ] = "5ms"
    scored: Annotated[
        Literal["durable", "background", "off"],
        msgspec.Meta(
            description="When a scored row enters the windows of later rows: before its answer goes, soon after, never."
        ),
    ] = "durable"
    clock_skew: Annotated[
        str | None,
        msgspec.Meta(
            description="Rows dated later than this after the server's clock are answered and never stored. Default:"
            " all are stored; a row of the future counts from its own time on and drops nothing, and posted corrections"
            " and deletions are taken in up to 1 second before their known time.",
            extra={"text": "duration"},
        ),
    ] = None
    invalid: Annotated[
        Literal["warn", "refuse"],
        msgspec.Meta(
            description="Requests with values that break the rules of the training source (`min`, `max`, `in`, `pattern`, `nulls: 0`). `warn`: answered, with a warning in the answer, a count in `/metrics` and the rule in the prediction log; `refuse`: 422. Also for files that `cumulant predict` scores here."  # noqa: E501 - one sentence of the reference
        ),
    ] = "warn"
    fallback: Annotated[
        FallbackSpec, msgspec.Meta(description="Instead of a refusal when there is too much to do. Default: refuse.")
    ] = FallbackSpec()
    labels_size: Annotated[
        str,
        msgspec.Meta(
            description="How much of posted labels may wait for ingestion; a post beyond it is answered with 429."
        ),
    ] = "1GiB"
    reasons: Annotated[ReasonsSpec | None, msgspec.Meta(description="Reasons of answers. Default: none.")] = None
    hosts: Annotated[
        list[Annotated[str, msgspec.Meta(extra={"text": "host"})]],
        msgspec.Meta(
            description="Names by which callers reach a server on loopback that needs no token, such as that of a proxy in front; pages of these sites may call it. `*`: any name. Default: those of loopback."  # noqa: E501 - one sentence of the reference
        ),
    ] = []
    log: Annotated[LogSpec, msgspec.Meta(description="The prediction log.")] = LogSpec()
    access_log: Annotated[
        bool, msgspec.Meta(description="A line of JSON a request on standard error, without payloads.")
    ] = False
