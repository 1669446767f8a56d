"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

AsOf = Annotated[
    str | None, typer.Option("--as-of", metavar="TIME", help="Hide what became known later, such as 2013-04-01T06:00Z.")
]
Model = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]",
        help="NAME@ALIAS, NAME/VERSION or NAME; models:/ may stand before it. Default: the newest of this project.",
    ),
]
Detach = Annotated[
    bool,
    typer.Option(
        "--detach", help="With --server: submit, and return; `cumulant jobs follow` shows the rest. Ctrl-C cancels."
    ),
]
