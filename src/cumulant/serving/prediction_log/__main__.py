"""`python -m cumulant.serving.prediction_log --socket PATH --dir DIR`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulant.core import units
from cumulant.core.errors import CumulantError, RetryableError, UsageError
from cumulant.core.plan import Field
from cumulant.core.system.stderr import lossy_stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the log process; returns the exit code: 0 done, 2 usage, 3 try again, 4 cannot work."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except CumulantError as error:
        sys.stderr.write(f"error: {error.full_text}\n")
        return 2 if isinstance(error, UsageError) else 3 if isinstance(error, RetryableError) else 4
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cumulant.serving.prediction_log",
        description="Write the predictions of a server's workers to rotating Parquet files.",
        epilog="example: python -m cumulant.serving.prediction_log --socket run/log.sock --dir predictions/ --keep 90d",
    )
    parser.add_argument("--socket", metavar="PATH", type=Path, required=True, help="where workers connect")
    parser.add_argument("--dir", metavar="DIR", type=Path, required=True, help="the log's folder")
    parser.add_argument("--upload", metavar="URL", help="where parts are uploaded; DIR holds those that are not yet")
    parser.add_argument("--keep", metavar="TIME", default="90d", help="older days are deleted; default %(default)s")
    parser.add_argument("--personal", metavar="FILE", type=Path, help="JSON: {MODEL: [field of its plan, ...]}")
    parser.add_argument("--key-file", metavar="FILE", type=Path, help="the secret of the keyed hashes")
    parser.add_argument("--key-env", metavar="NAME", help="the environment variable that holds it")
    parser.add_argument("--key-stdin", action="store_true", help="it comes on standard input")
    parser.add_argument("--region", metavar="NAME", default="", help="of workers that name none")
    parser.add_argument("--visible", metavar="TIME", default="1s", help="rows are there after; default %(default)s")
    parser.add_argument("--file-size", metavar="SIZE", default="64MiB", help="of merged files; default %(default)s")
    parser.add_argument("--file-age", metavar="TIME", default="5m", help="merge at latest; default %(default)s")
    parser.add_argument("--nice", metavar="N", type=int, default=0, help="added to its nice value; default %(default)s")
    parser.add_argument("--parent", metavar="PID", type=int, help="end when this is no longer the parent")
    return parser


class _WithoutPandas:
    """pyarrow imports pandas where it is installed, for 28 MiB and half a second, and nothing here has a use for it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002 - as importlib asks
        if name == "pandas":
            raise ModuleNotFoundError("the prediction log works without pandas", name=name)


def _run(options: argparse.Namespace) -> None:
    os.nice(options.nice)
    sys.meta_path.insert(0, _WithoutPandas())
    # After the arguments are read, so that --help needs no engine.
    from cumulant.serving.prediction_log.process import LogProcessSettings, run

    run(
        LogProcessSettings(
            socket=options.socket,
            folder=options.dir,
            upload=options.upload,
            keep=units.duration(options.keep),
            key=_key(options),
            personal=_personal(options.personal) if options.personal else {},
            region=options.region,
            visible=units.duration(options.visible).total_seconds(),
            file_size=units.size(options.file_size),
            file_age=units.duration(options.file_age).total_seconds(),
            parent=options.parent,
        )
    )


def _key(options: argparse.Namespace) -> bytes:
    if options.key_file:
        return _read(options.key_file, "the key of the hashes")
    if options.key_stdin:
        return sys.stdin.buffer.read()
    if options.key_env:
        key = os.environ.get(options.key_env, "")
        if not key:
            raise UsageError(f"the variable {options.key_env} is empty", hint="set it to the secret of the hashes")
        return key.encode()
    return b""


def _personal(path: Path) -> dict[str, list[Field]]:
    try:
        return msgspec.json.decode(_read(path, "the list of personal fields"), type=dict[str, list[Field]])
    except msgspec.MsgspecError as error:
        hint = 'write {"MODEL": [{"name": "email", "dtype": "str"}]}'
        raise UsageError(f"the list of personal fields is wrong: {error}", subject=str(path), hint=hint) from None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{what} cannot be read: {error.strerror}", subject=str(path), hint="check the path") from None


if __name__ == "__main__":
    lossy_stderr()
    sys.exit(main())
