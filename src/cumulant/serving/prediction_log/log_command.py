"""The command line of the log process."""

from __future__ import annotations

import sys
from pathlib import Path


def log_command(
    socket: str | Path,
    folder: str | Path,
    *,
    upload: str | None = None,
    keep: str = "90d",
    key_file: str | Path | None = None,
    key_env: str | None = None,
    key_stdin: bool = False,
    personal: str | Path | None = None,
    region: str = "",
    visible: str = "1s",
    nice: int = 0,
    parent: int | None = None,
) -> list[str]:
    """Command line of the log process of `folder`, which listens on `socket`.

    `upload` is the URL of the log that its parts go to, where that is not the folder.
    `key_file` or `key_env` name the secret of the keyed hashes, with `key_stdin` it is read from standard input;
    without one all personal values are `#hidden`. With `parent`, the process ends when that is no longer its parent.
    """
    line = [
        sys.executable,
        "-P",
        "-m",
        "cumulant.serving.prediction_log",
        "--socket",
        str(socket),
        "--dir",
        str(folder),
    ]
    line += ["--keep", keep, "--visible", visible, "--nice", str(nice)]
    given = {
        "--upload": upload,
        "--key-file": key_file,
        "--key-env": key_env,
        "--personal": personal,
        "--region": region or None,
    }
    for option, value in {**given, "--parent": parent}.items():
        line += [option, str(value)] if value is not None else []
    return [*line, "--key-stdin"] if key_stdin else line
