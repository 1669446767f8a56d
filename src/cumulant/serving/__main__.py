"""`python -m cumulant.serving DIR... --http HOST:PORT`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cumulant.core.errors import CumulantError, RefusedError, RetryableError, UsageError, did_you_mean
from cumulant.core.network.hosts import host_name
from cumulant.core.system.stderr import lossy_stderr

if TYPE_CHECKING:
    from cumulant.serving.cache.shared_cache import SharedCacheConfig
    from cumulant.serving.models.fallback_config import FallbackConfig
    from cumulant.serving.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; returns the exit code: 0 done, 1 refused, 2 usage, 3 try again, 4 cannot work."""
    options = parse_options(arguments)
    try:
        _serve(options)
    except CumulantError as error:
        sys.stderr.write(f"error: {error.full_text}\n")
        return _exit_code(error)
    return 0


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed options; ends the process with a message where an option is unknown."""
    parser = _parser()
    options, others = parser.parse_known_args(arguments)
    if others:
        wrong = next((word for word in others if word.startswith("-")), others[0])
        near = did_you_mean(wrong.partition("=")[0], re.findall(r"--[a-z-]+", parser.format_usage()))
        parser.error(f"unrecognized arguments: {' '.join(others)}" + (f"; {near}" if near else ""))
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cumulant.serving",
        description="Answer for servables over HTTP: Open Inference Protocol v2 and plain JSON rows.",
        epilog="example: python -m cumulant.serving model/ --http 127.0.0.1:8080 --online sqlite:///state/online.db",
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a servable's folder, or one that holds some"
    )
    add = parser.add_argument
    add("--http", metavar="HOST:PORT", default="127.0.0.1:8080", help="default %(default)s; port 0: any")
    add("--grpc", metavar="HOST:PORT", help="answer over gRPC there as well; port 0: any")
    add("--workers", metavar="N", type=int, default=1, help="processes that answer on the port; default %(default)s")
    add("--name", metavar="NAME", default="cumulant", help="what the server calls itself; default %(default)s")
    add("--online", metavar="URL", help="the store of the features that plans look up")
    add("--state-table", metavar="NAME", help="the state's name there; default: as the servable says")
    add("--model-control", choices=("none", "explicit"), default="none", help="explicit: load and unload by request")
    add(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="callers must send the token in it; CUMULANT_TOKEN does the same",
    )
    add(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which callers reach this server on loopback, as that of a proxy in front; also its pages may "
        "call; *: any name; may be repeated",
    )
    add(
        "--behind-gateway",
        action="store_true",
        help="a gateway is in front: with its token, the headers by which it names arm, copy and request are logged",
    )
    add(
        "--gateway-key-file",
        metavar="FILE",
        type=Path,
        help="holds the key that the gateway makes its token with; goes with --behind-gateway",
    )
    add("--insecure", action="store_true", help="allow an address that others can reach, without a token")
    add("--body-limit", metavar="SIZE", default="8MiB", help="default %(default)s")
    add("--drain", metavar="TIME", default="10s", help="time to finish at the end; default %(default)s")
    add("--queue", metavar="TIME", default="40ms", help="how long a request may wait for its turn; default %(default)s")
    add(
        "--fallback",
        metavar="KIND",
        action="append",
        default=[],
        help='when there is no time: cached, servable=DIR, constant={"prediction": false}; may be repeated',
    )
    add(
        "--sequences",
        metavar="DIR",
        help="keep the state of sequences there, also when the server ends; default: as long as it lives",
    )
    add("--sequence-count", metavar="N", type=int, default=10_000, help="most sequences; default %(default)s")
    add("--sequence-bytes", metavar="SIZE", default="256MiB", help="most bytes of their state; default %(default)s")
    add("--log", metavar="DIR", help="keep a prediction log there")
    add("--labels", metavar="DIR", help="accept posted labels, and store them there until they are ingested")
    add("--labels-size", metavar="SIZE", default="1GiB", help="most bytes of them; default %(default)s")
    add("--log-keep", metavar="TIME", default="90d", help="default %(default)s")
    add(
        "--log-write",
        choices=("durable", "background"),
        default="background",
        help="an answer waits until its record is on the disk, or goes at once; default %(default)s",
    )
    add(
        "--salt-file",
        metavar="FILE",
        type=Path,
        help="holds the key of the hashes of personal values in the log; CUMULANT_SALT does the same; without one they "
        "are hidden",
    )
    add("--region", metavar="NAME", default="", help="as it stands in the log")
    add(
        "--scored",
        choices=("durable", "background", "off"),
        default="durable",
        help="when scored rows enter the windows of later ones: before the answer, soon after it, never",
    )
    add(
        "--clock-skew",
        metavar="DURATION",
        help="rows dated later than this after the server's clock are answered and not stored; default: all are "
        "stored, but for corrections that are posted more than 1 second before their known time",
    )
    add(
        "--invalid",
        choices=("warn", "refuse"),
        default="warn",
        help="rows that break the data contract of their model: answer them with a warning, or refuse the request; "
        "default %(default)s",
    )
    add("--access-log", action="store_true", help="write a line of JSON a request to standard error, without payloads")
    add(
        "--traces",
        metavar="URL",
        help="send OpenTelemetry spans there (OTLP over HTTP); default: OTEL_EXPORTER_OTLP_ENDPOINT, else none",
    )
    add(
        "--cache",
        metavar="auto|on|off|URL",
        action="append",
        default=[],
        help="answers kept for equal requests; valkey://HOST:PORT/DB, redis:// or rediss://: shared with other servers "
        "too, the password in CUMULANT_CACHE_PASSWORD; default auto; may be repeated",
    )
    add(
        "--cache-budget", metavar="TIME", default="5ms", help="the longest wait for a shared cache; default %(default)s"
    )
    add("--parent", metavar="PID", type=int, help="end when that process is no longer the parent of this one")
    add("--ready-file", metavar="FILE", type=Path, help="also write the ready line to this file")
    return parser


def _serve(options: argparse.Namespace) -> None:
    # After the arguments are read, so that --help needs none of the engines.
    from cumulant.serving.prediction_log.salt import read_salts
    from cumulant.serving.workers import server

    def announce(ready: server.Ready) -> None:
        if options.ready_file:
            server.write_ready(options.ready_file, ready)
        server.print_ready(ready)

    salts = read_salts(options.salt_file, os.environ)
    server.run(_settings(options), insecure=options.insecure, announce=announce, salts=salts)


def _settings(options: argparse.Namespace) -> Settings:
    from cumulant.core.units import duration, size
    from cumulant.serving.access_token import read_token
    from cumulant.serving.models.passed_checks import passed_checks_folder
    from cumulant.serving.scheduling.answer_cache import Caching
    from cumulant.serving.scheduling.runner import Scheduling
    from cumulant.serving.settings import Settings
    from cumulant.serving.workers.sockets import split_address

    mode, sharing = _cache(options.cache, options.cache_budget)
    host, port = split_address(options.http)
    grpc_host, grpc_port = split_address(options.grpc) if options.grpc else ("127.0.0.1", None)
    return Settings(
        folders=tuple(map(str, options.folders)),
        host=host,
        port=port,
        grpc_host=grpc_host,
        grpc_port=grpc_port,
        workers=options.workers,
        online=options.online,
        table=options.state_table,
        body_limit=size(options.body_limit),
        drain=duration(options.drain).total_seconds(),
        name=options.name,
        control=options.model_control == "explicit",
        token=read_token(options.token_file, os.environ),
        hosts=tuple(map(host_name, options.allow_host)),
        gateway_key=_gateway_key(options.gateway_key_file, expected=options.behind_gateway),
        scheduling=Scheduling(queue=duration(options.queue).total_seconds(), caching=Caching(mode=mode)),
        sharing=sharing,
        fallback=_fallback(options.fallback),
        sequences=options.sequences,
        sequence_count=options.sequence_count,
        sequence_bytes=size(options.sequence_bytes),
        log=options.log,
        log_keep=options.log_keep,
        log_write=options.log_write,
        passed=passed_checks_folder(os.environ),
        labels=options.labels,
        labels_size=size(options.labels_size),
        invalid=options.invalid,
        region=options.region,
        access_log=options.access_log,
        traces=_traces(options.traces),
        parent=options.parent,
        scored=options.scored,
        clock_skew=None if options.clock_skew is None else duration(options.clock_skew).total_seconds(),
    )


def _gateway_key(path: Path | None, *, expected: bool) -> bytes | None:
    """The key of the gateway in front, where there is one."""
    from cumulant.core.network.gateway_token import read_key

    if expected != (path is not None):
        text = (
            "--behind-gateway and --gateway-key-file go together: a gateway's headers are trusted with its token only"
        )
        raise UsageError(
            text, hint="`cumulant up` gives both; a gateway of your own starts with --gateway-key-file too"
        )
    return None if path is None else read_key(path)


def _cache(declared: Sequence[str], budget: str) -> tuple[Literal["auto", "on", "off"], SharedCacheConfig | None]:
    """Cache mode and shared cache that `--cache` declares."""
    from cumulant.core.units import duration
    from cumulant.serving.cache.shared_cache import SharedCacheConfig

    mode: Literal["auto", "on", "off"] = "auto"
    url: str | None = None
    for option in declared:
        match option:
            case "auto" | "on" | "off":
                mode = option
            case _ if "://" in option and url is None:
                url = option
            case _:
                hint = "write auto, on or off, and at most one URL such as valkey://127.0.0.1:6379/0"
                raise UsageError(f'"{option}" is no cache', subject=option, hint=hint)
    if url is None:
        return mode, None
    if mode == "off":
        raise UsageError("the cache is off and shared at once", hint="leave out one of the two --cache")
    password = os.environ.get("CUMULANT_CACHE_PASSWORD") or None
    return mode, SharedCacheConfig(url=url, password=password, budget=duration(budget).total_seconds())


def _fallback(declared: Sequence[str]) -> FallbackConfig:
    """Fallback that `--fallback` declares."""
    import msgspec

    from cumulant.serving.models.fallback_config import FallbackConfig

    fields: dict[str, object] = {}
    for option in declared:
        kind, equals, value = option.partition("=")
        if (kind, bool(equals)) not in {("cached", False), ("servable", True), ("constant", True)}:
            hint = 'write cached, servable=DIR or constant={"prediction": false}'
            raise UsageError(f'"{option}" is no fallback', subject=option, hint=hint)
        try:
            fields[kind] = msgspec.json.decode(value, type=dict) if kind == "constant" else value or True
        except msgspec.DecodeError as error:
            raise UsageError(f"the constant of the fallback is no JSON object: {error}", subject=option) from None
    return msgspec.convert(fields, FallbackConfig)


def _traces(url: str | None) -> str | None:
    from cumulant.serving.telemetry.tracing import traces_requested

    if url is None:
        return "" if traces_requested(os.environ) else None
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url} is no address of a collector", subject=url, hint="--traces http://127.0.0.1:4318")
    return url


def _exit_code(error: CumulantError) -> int:
    match error:
        case RefusedError():
            return 1
        case UsageError():
            return 2
        case RetryableError():
            return 3
        case _:
            return 4


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
