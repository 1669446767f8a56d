"""The section `serving` of the project file.

A setting is declared here once. `extra` gives the form of its text and, where a server takes it on its command line,
its option: `serving.options` derives the options of both commands and what one hands to the other.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

#: the form of a value's text, by its name in the help
_TEXTS = {"TIME": "duration", "SIZE": "size", "SHARE": "share"}


def setting(option: str, description: str, *, sections: str | None = None, ge: int | None = None) -> Meta:
    """A setting with its option on a server's command line, such as `log-keep TIME`.

    `sections`: those of the project file that the option overrides, where that is not the setting itself.
    """
    name, _, metavar = option.partition(" ")
    extra = {"option": name, "metavar": metavar}
    if metavar in _TEXTS:
        extra["text"] = _TEXTS[metavar]
    if sections is not None:
        extra["sections"] = sections
    return Meta(description=description, extra=extra, ge=ge)


class LogSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The prediction log."""

    keep: Annotated[str, setting("log-keep TIME", "How long predictions are kept, such as `90d` or `400d`.")] = "90d"
    write: Annotated[
        Literal["durable", "background"],
        setting(
            "log-write durable|background",
            "When an answer is sent. `durable`: after its record is on the disk; `background`: at once, and"
            " a kill of the process that writes the log loses at most about a second of records.",
        ),
    ] = "background"
    features: Annotated[
        str,
        setting(
            "log-features SHARE",
            "Share of the requests whose stored features are logged, for `cumulant features verify`; `0%`: none.",
        ),
    ] = "1%"


class FallbackSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is answered when the model has more to do than it can do in time, tried in this order; marked `degraded`."""

    cached: Annotated[bool, Meta(description="The model's own answer to the same input, however old.")] = False
    servable: Annotated[
        str | None, Meta(description="Folder of a cheaper servable with the same inputs and outputs.")
    ] = None
    constant: Annotated[
        dict[str, str | int | float | bool] | None,
        Meta(description="The same answer for every row, such as `{prediction: false, probability: 0.0}`."),
    ] = None


class ReasonsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a row was answered so. Training writes it into the servable, with the reference values it needs."""

    method: Annotated[
        Literal["occlusion"],
        Meta(
            description="How contributions are found. `occlusion`: the change of the score when one feature alone is"
            " put to its reference value, the median or the commonest value of the training rows.",
        ),
    ] = "occlusion"
    count: Annotated[int, Meta(description="Reasons a row, unless the request has a number.", ge=1)] = 3
    when: Annotated[
        Literal["always", "requested", "decision"],
        Meta(description="Rows with reasons unless the request has a number: all, none, or those predicted true."),
    ] = "requested"
    codes: Annotated[dict[str, str], Meta(description="Reason text by feature.")] = {}


class LatencyObjectiveSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What share of the answers must come in time."""

    objective: Annotated[
        str | float, Meta(description="Share of the answers that must come in time.", extra={"text": "share"})
    ] = "99%"
    within: Annotated[
        str,
        Meta(
            description="5ms, 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1s or 2500ms, the bounds that are measured.",
            extra={"text": "duration"},
        ),
    ] = "250ms"


class SloSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Service level objectives: how many requests must be answered well."""

    objective: Annotated[
        str | float,
        Meta(description="Share of the requests that must not end with a server error.", extra={"text": "share"}),
    ] = "99.9%"
    window: Annotated[str, Meta(description="Time that the objectives are about.", extra={"text": "duration"})] = "30d"
    latency: Annotated[LatencyObjectiveSpec | None, Meta(description="Default: no objective.")] = None
    fewest: Annotated[
        int, Meta(description="Requests in the long window of a burn rate, below which it raises no alert.", ge=1)
    ] = 100


class ServingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is served."""

    http: Annotated[str, setting("http HOST:PORT", "Address and port to listen on. Port 0 takes a free one.")] = (
        "127.0.0.1:8080"
    )
    body_limit: Annotated[
        str, setting("body-limit SIZE", "The largest request body that is read; a larger one is answered with 413.")
    ] = "8MiB"
    drain: Annotated[str, setting("drain TIME", "How long a stopping server may finish accepted requests.")] = "10s"
    workers: Annotated[
        int, setting("workers N", "Processes that answer on the port; as many as there are cores to give.", ge=1)
    ] = 1
    grpc: Annotated[
        str | None, setting("grpc HOST:PORT", "Address and port of the protocol over gRPC. Default: none.")
    ] = None
    queue: Annotated[
        str, setting("queue TIME", "How long a request may wait; one that would wait longer gets 429 at once.")
    ] = "40ms"
    cache: Annotated[
        Literal["auto", "on", "off"],
        Meta(description="Answers kept for equal requests; `auto`: while that saves more time than it costs."),
    ] = "auto"
    shared_cache: Annotated[
        str | None,
        Meta(
            description="Cache that servers share: `valkey://HOST:PORT/DB`, `redis://` or `rediss://`; its password is"
            " in `CUMULANT_CACHE_PASSWORD`. Default: none.",
        ),
    ] = None
    cache_budget: Annotated[
        str, setting("cache-budget TIME", "The longest that a request may wait for the shared cache.")
    ] = "5ms"
    scored: Annotated[
        Literal["durable", "background", "off"],
        setting(
            "scored durable|background|off",
            "When a scored row enters the windows of later rows: before its answer goes, soon after, never.",
        ),
    ] = "durable"
    clock_skew: Annotated[
        str | None,
        setting(
            "clock-skew TIME",
            "Rows dated later than this after the server's clock are answered and never stored. Default:"
            " all are stored; a row of the future counts from its own time on and drops nothing, and posted corrections"
            " and deletions are stored up to 1 second before their known time.",
        ),
    ] = None
    invalid: Annotated[
        Literal["warn", "refuse"],
        setting(
            "invalid warn|refuse",
            "Requests with values that break the rules of the training source (`min`, `max`, `in`, `pattern`,"
            " `nulls: 0`). `warn`: answered, with a warning in the answer, a count in `/metrics` and the rule in"
            " the prediction log; `refuse`: 422. Also for files that `cumulant predict` scores here.",
        ),
    ] = "warn"
    fallback: Annotated[
        FallbackSpec, Meta(description="Instead of a refusal when there is too much to do. Default: refuse.")
    ] = FallbackSpec()
    labels_size: Annotated[
        str,
        setting(
            "labels-size SIZE",
            "How much of posted labels may wait for ingestion; a post beyond it is answered with 429.",
        ),
    ] = "1GiB"
    reasons: Annotated[ReasonsSpec | None, Meta(description="Reasons of answers. Default: none.")] = None
    hosts: Annotated[
        list[Annotated[str, Meta(extra={"text": "host"})]],
        setting(
            "allow-host NAME",
            "Names by which callers reach a server on loopback that needs no token, such as that of a proxy in"
            " front; pages of these sites may call it. `*`: any name. Default: those of loopback.",
        ),
    ] = []
    token_file: Annotated[
        str | None,
        setting(
            "token-file FILE",
            "Holds the tokens of callers, one a line: TOKEN, TOKEN NAME or TOKEN NAME GROUP,GROUP; `CUMULANT_TOKEN`"
            " holds a single one.",
        ),
    ] = None
    log: Annotated[LogSpec, Meta(description="The prediction log.")] = LogSpec()
    access_log: Annotated[
        bool, setting("access-log", "A line of JSON a request on standard error, without payloads.")
    ] = False
    slo: Annotated[SloSpec | None, Meta(description="Service level objectives. Default: none.")] = None
