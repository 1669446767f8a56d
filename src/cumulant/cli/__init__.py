"""The command line: parse, call a flow, render, map errors to exit codes."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command in `sys.argv` and end the process with its exit code (see `cumulant.cli.errors`)."""
    try:
        from cumulant.cli.process_settings import collect_no_more, collect_rarely

        collect_rarely()
        from cumulant.cli.app import run
        from cumulant.cli.encoding import write_lookalikes

        write_lookalikes()
        code = run(sys.argv[1:])
        collect_no_more()
    except KeyboardInterrupt:  # while the modules of the command line are imported: later ones are handled by `run`
        sys.stderr.write("interrupted\n")
        code = 130
    sys.exit(code)


__all__ = ["main"]
