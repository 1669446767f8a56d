"""`python -m cumulant.serving DIR... --http HOST:PORT`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cumulant.core.errors import CumulantError, RefusedError, RetryableError, UsageError, did_you_mean
from cumulant.core.network.hosts import host_name
from cumulant.core.system.stderr import lossy_stderr
from cumulant.serving.options import add_options
from cumulant.serving.options import options as server_options

if TYPE_CHECKING:
    from cumulant.serving.cache.shared_cache import SharedCacheConfig
    from cumulant.serving.settings import FallbackConfig, Settings


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
    add_options(parser)
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
    from cumulant.serving.access.bindings_file import read_bindings
    from cumulant.serving.access.callers import read_holders
    from cumulant.serving.cache.answer_cache import Caching
    from cumulant.serving.models.passed_checks import passed_checks_folder
    from cumulant.serving.scheduling.runner import Scheduling
    from cumulant.serving.settings import Settings
    from cumulant.serving.sockets import split_address

    numbers = _numbers(options)
    mode, sharing = _cache(options.cache, numbers["cache_budget"])
    host, port = split_address(options.http)
    grpc_host, grpc_port = split_address(options.grpc) if options.grpc else ("127.0.0.1", None)
    converted = {
        "folders": tuple(map(str, options.folders)),
        "host": host,
        "port": port,
        "grpc_host": grpc_host,
        "grpc_port": grpc_port,
        "table": options.state_table,
        "control": options.model_control == "explicit",
        "tokens": read_holders(options.token_file, os.environ),
        "bindings": read_bindings(options.access_bindings),
        "hosts": tuple(map(host_name, options.allow_host)),
        "gateway_key": _gateway_key(options.gateway_key_file, expected=options.behind_gateway),
        "scheduling": Scheduling(queue=numbers["queue"], caching=Caching(mode=mode)),
        "sharing": sharing,
        "fallback": _fallback(options.fallback),
        "passed": passed_checks_folder(os.environ),
        "traces": _traces(options.traces),
    }
    unchanged = {name: value for name, value in numbers.items() if name in Settings.__struct_fields__}
    return Settings(**(unchanged | converted))


def _numbers(options: argparse.Namespace) -> dict[str, Any]:
    """The values by option, sizes in bytes, durations in seconds and shares from 0 to 1."""
    from cumulant.core.units import duration, share, size

    read: dict[str | None, Callable[[str], float]] = {
        "duration": lambda text: duration(text).total_seconds(),
        "size": size,
        "share": share,
    }
    values: dict[str, Any] = {}
    for item in server_options():
        value = getattr(options, item.key)
        try:
            values[item.key] = read[item.text](value) if item.text in read and value is not None else value
        except UsageError as error:
            raise UsageError(f"{item.name}: {error.message}", subject=item.name, hint=error.hint) from None
    return values


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


def _cache(declared: Sequence[str], budget: float) -> tuple[Literal["auto", "on", "off"], SharedCacheConfig | None]:
    """What `--cache` declares."""
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
    return mode, SharedCacheConfig(url=url, password=password, budget=budget)


def _fallback(declared: Sequence[str]) -> FallbackConfig:
    """Fallback that `--fallback` declares."""
    import msgspec

    from cumulant.serving.settings import FallbackConfig

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
