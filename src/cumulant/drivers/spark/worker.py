"""What Python workers of Spark run: functions of this program by name, over blocks of bytes by key.

A worker imports this module, so that what is sent to it is a reference and texts.
"""

from __future__ import annotations

import importlib
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cumulant.core.errors import CumulantError, MissingPartError, StorageError
from cumulant.core.version import __version__
from cumulant.ports.compute import BlockFunction, WorkerBlock

if TYPE_CHECKING:
    import pyarrow as pa

#: columns of what Spark moves
SCHEMA = "key bigint, `order` bigint, data binary"
#: begins the text of an error that is one of this program
ERROR = "cumulant-error "
#: blocks that are handed back at a time, at most
_BATCH = 64


class StageFunction(msgspec.Struct, frozen=True):
    """A stage as Spark calls it, once a partition. `packages`: the versions that a worker has to have."""

    function: str
    arguments: str
    packages: dict[str, str]

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._run(batches)
        except CumulantError as error:
            # Spark hands on texts alone
            raise RuntimeError(f"{ERROR}{msgspec.json.encode(error.as_dict()).decode()}") from None

    def _run(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        check_packages(self.packages)
        os.environ.setdefault("POLARS_MAX_THREADS", "1")  # Spark has a worker for each core
        module, _, name = self.function.partition(":")
        compute: BlockFunction = getattr(importlib.import_module(module), name)(msgspec.json.decode(self.arguments))
        blocks = (block for batch in batches for block in _blocks(batch))
        results = (
            result
            for key, of_key in groupby(blocks, key=lambda block: block.key)
            for result in compute(key, list(of_key))
        )
        while batch := list(islice(results, _BATCH)):
            yield batch_of(batch)


def batch_of(blocks: Sequence[WorkerBlock]) -> pa.RecordBatch:
    import pyarrow as pa

    keys, orders, data = zip(*blocks, strict=True)
    columns = [pa.array(keys, pa.int64()), pa.array(orders, pa.int64()), pa.array(data, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, ["key", "order", "data"])


def _blocks(batch: pa.RecordBatch) -> Iterator[WorkerBlock]:
    keys, orders, data = (batch.column(place) for place in range(3))
    for key, order, value in zip(keys.to_pylist(), orders.to_pylist(), data, strict=True):
        yield WorkerBlock(key, order, value.as_py())


def packages() -> dict[str, str]:
    """The versions of what both sides need alike; empty where it is missing. Hashes of keys are those of Polars."""
    return {"cumulant": __version__, "polars": _version("polars")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def install_hint(needed: dict[str, str]) -> str:
    pinned = " ".join(f"{name}=={version}" for name, version in needed.items())
    return f"install in the Python of Spark's workers, on every machine: pip install {pinned} numpy pyarrow"


def check_packages(needed: dict[str, str]) -> None:
    """
    Raises:
        MissingPartError: this process has not the versions that are needed.
    """
    differing = [f"{name} {version or 'missing'}" for name, version in packages().items() if version != needed[name]]
    if differing:
        raise MissingPartError(
            f"a worker of Spark on {socket.gethostname()} has {', '.join(differing)}",
            subject="history",
            hint=install_hint(needed),
        )


def check_folder(arguments: dict[str, str]) -> BlockFunction:
    """A stage that says whether a worker may write and rename files of the folder, as stages do with their results.

    What the system says of permissions is not asked: some mounts, such as those of buckets, cannot rename.
    """
    folder = Path(arguments["folder"])

    def check(key: int, _blocks: Sequence[WorkerBlock]) -> Iterator[WorkerBlock]:
        temporary = folder / f"{uuid.uuid4().hex}.tmp"
        try:
            temporary.write_bytes(b"-")
            temporary.replace(temporary.with_suffix(".tried"))
            temporary.with_suffix(".tried").unlink()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise StorageError(
                f"a worker of Spark on {socket.gethostname()} does not see {folder.parent}, or may not write and rename"
                f" files there: {error.strerror or error}",
                subject="history",
                hint="name a staging folder that Spark's machines see at the same path, on a file system that renames"
                " files, and run both as one user: what is handed over is private to that user",
            ) from error
        yield WorkerBlock(key, 0, b"")

    return check
