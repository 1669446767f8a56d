"""From Envoy's log, line by line, to the exchanges on disk. Keys of callers end here: only hashes are written."""

from __future__ import annotations

import os
import sys
import threading
from typing import IO

import msgspec

from cumulant.core.traffic import Exchange
from cumulant.drivers.envoy.exchanges import Writer
from cumulant.drivers.envoy.told import Line, exchange_of

_CHUNK = 256 * 1024
_decode = msgspec.json.Decoder(Line).decode


class Pump(threading.Thread):
    """Reads `source` to its end. A disk that is full costs lines, which are counted, never requests."""

    def __init__(self, source: IO[bytes], writer: Writer, salt: bytes) -> None:
        super().__init__(name="exchanges", daemon=True)
        self._source = source
        self._writer = writer
        self._salt = salt
        self.lost = 0

    def run(self) -> None:
        rest = b""
        while chunk := os.read(self._source.fileno(), _CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            self._write([exchange for line in lines if (exchange := self._exchange(line)) is not None])
        self._writer.close()

    def _exchange(self, line: bytes) -> Exchange | None:
        try:
            return exchange_of(_decode(line), self._salt)
        except msgspec.DecodeError as error:
            self._lose(1, f"a line of Envoy's log cannot be read: {error}")
            return None

    def _write(self, exchanges: list[Exchange]) -> None:
        if not exchanges:
            return
        try:
            self._writer.write(exchanges)
        except OSError as error:
            self._lose(len(exchanges), f"exchanges cannot be written: {error}")

    def _lose(self, count: int, why: str) -> None:
        if not self.lost:
            sys.stderr.write(f"{why}\n")
        self.lost += count
