"""`python -m cumulant.serving DIR... --http HOST:PORT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cumulant.core.errors import CumulantError, RefusedError, RetryableError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; returns the exit code: 0 done, 1 refused, 2 usage, 3 try again, 4 cannot work."""
    options = _parser().parse_args(arguments)
    try:
        _serve(options)
    except CumulantError as error:
        hint = f"; {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
        return _exit_code(error)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cumulant.serving",
        description="Answer for servables over HTTP: Open Inference Protocol v2 and plain JSON rows.",
        epilog="example: python -m cumulant.serving model/ --http 127.0.0.1:8080 --online sqlite:///state/online.db",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", type=Path, help="a servable's folder")
    parser.add_argument(
        "--http", metavar="HOST:PORT", default="127.0.0.1:8080", help="default %(default)s; port 0: any"
    )
    parser.add_argument("--online", metavar="URL", help="the store of the features that plans look up")
    parser.add_argument("--state-table", metavar="NAME", help="the state's name there; default: as the servable says")
    parser.add_argument("--insecure", action="store_true", help="allow an address that others can reach")
    parser.add_argument("--body-limit", metavar="SIZE", default="8MiB", help="default %(default)s")
    parser.add_argument("--drain", metavar="TIME", default="10s", help="time to finish at the end; default %(default)s")
    parser.add_argument("--ready-file", metavar="FILE", type=Path, help="also write the ready line to this file")
    return parser


def _serve(options: argparse.Namespace) -> None:
    # After the arguments are read, so that --help needs none of the engines.
    from cumulant.serving import server

    def announce(ready: server.Ready) -> None:
        if options.ready_file:
            server.write_ready(options.ready_file, ready)
        server.say(ready)

    host, port = server.split_address(options.http)
    server.serve(
        options.folders,
        host,
        port,
        online=options.online,
        table=options.state_table,
        insecure=options.insecure,
        body_limit=options.body_limit,
        drain=options.drain,
        announce=announce,
    )


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
    sys.exit(main())
