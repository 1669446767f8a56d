"""The gateway as a program: `python -m cumulant.drivers.local.gateway FOLDER --http HOST:PORT --admin HOST:PORT`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from cumulant.core.errors import CumulantError
from cumulant.core.system.stderr import lossy_stderr
from cumulant.core.traffic import Certificates
from cumulant.drivers.local.gateway.running import run
from cumulant.ports.traffic import Opening


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM; 0 once all is answered, 3 where another try may help, 2 where it cannot start as asked."""
    parser = argparse.ArgumentParser(prog="python -m cumulant.drivers.local.gateway", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--http", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--admin", default="127.0.0.1:0", metavar="HOST:PORT")
    for name in ("--certificate", "--private-key", "--authority", "--key-file", "--gateway-key-file"):
        parser.add_argument(name, metavar="FILE")
    given = parser.parse_args(arguments)
    if (given.certificate is None) != (given.private_key is None):
        parser.error("--certificate and --private-key go together")
    tls = None
    if given.certificate is not None:
        tls = Certificates(certificate=given.certificate, private_key=given.private_key, authority=given.authority)
    opening = Opening(
        http=given.http, admin=given.admin, tls=tls, key_file=given.key_file, gateway_key_file=given.gateway_key_file
    )
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(run(given.folder.absolute(), opening))
    except CumulantError as error:
        sys.stderr.write(f"{error.full_text}\n")
        return 3 if error.retryable else 2
    return 0


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
