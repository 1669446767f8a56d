"""The log process: takes entries from all workers of one server and writes them to rotating Parquet files."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec

from cumulant.core.errors import CumulantError, StorageError
from cumulant.core.plan import Field
from cumulant.serving.prediction_log.confirmations import Confirmations, Workers
from cumulant.serving.prediction_log.entry import (
    DESCRIBE,
    ENTRY,
    GOODBYE,
    HELLO,
    LIKE,
    PATTERN,
    PATTERNS,
    Hello,
    LogEntry,
    PatternEntry,
)
from cumulant.serving.prediction_log.losses import LogLosses, reason_of
from cumulant.serving.prediction_log.maintenance import LogMaintenance
from cumulant.serving.prediction_log.personal_values import PersonalValueMask
from cumulant.serving.prediction_log.row_streams import PatternStream
from cumulant.serving.prediction_log.storage import log_folder
from cumulant.serving.prediction_log.storage.log_folder import WorkerLife
from cumulant.serving.prediction_log.storage.part_writer import LogPart, LogParts
from cumulant.serving.prediction_log.storage.recovery import newest_number, recover
from cumulant.serving.prediction_log.worker_connection import GarbageError, WorkerConnection, open_listener

_CONNECTIONS = 256
_DRAIN_SECONDS = 2.0
_FAULTS = (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgspec.MsgspecError)


class LogProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes."""

    socket: Path
    folder: Path
    #: URL of the log that sealed parts are uploaded to; None: `folder` is the log
    upload: str | None = None
    keep: timedelta | None = timedelta(days=90)
    key: bytes = b""
    personal: Mapping[str, list[Field]] = {}
    #: of workers that name none
    region: str = ""
    #: rows are visible this long after they came
    visible: float = 1.0
    #: small files are merged when they are this old, or fill one of `file_size`
    file_age: float = 300.0
    file_size: int = 64 * 1024 * 1024
    #: of frames that are not complete
    memory: int = 128 * 1024 * 1024
    #: ends when this is no longer its parent
    parent: int | None = None


class LogProcess:
    """State of the log process. `run` returns after a stop signal, once all entries are written."""

    def __init__(self, settings: LogProcessSettings, *, say: Callable[[str], object] = sys.stderr.write) -> None:
        self.losses = LogLosses(say)
        self.parts = LogParts(
            settings.folder,
            hiding := PersonalValueMask(settings.key, settings.personal),
            file_size=settings.file_size,
            failed=self.losses.record_failure,
        )
        self._settings, self._hiding = settings, hiding
        self._maintenance = LogMaintenance(
            settings.folder,
            settings.upload,
            keep=settings.keep,
            file_size=settings.file_size,
            file_age=settings.file_age,
            say=self.losses.say,
        )
        self._selector = selectors.DefaultSelector()
        self._connections: dict[int, WorkerConnection] = {}
        self._lives: list[WorkerLife] = []
        self._entry = msgspec.msgpack.Decoder(LogEntry).decode
        self._like = msgspec.msgpack.Decoder(PatternEntry).decode
        self._pattern = msgspec.msgpack.Decoder(tuple[int, LogEntry]).decode
        self._hello = msgspec.msgpack.Decoder(Hello).decode
        self._described = msgspec.msgpack.Decoder(tuple[str, list[Field]]).decode
        #: of workers whose requests wait for the disk
        self._workers = Workers()
        self._publishing: threading.Thread | None = None
        self.ending = False

    def run(self, listener: socket.socket, wake: socket.socket) -> None:
        """Process entries until `ending` is set; a byte on `wake` wakes the loop."""
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(wake, selectors.EVENT_READ, lambda: wake.recv(4096))
        self._recover()
        due = time.monotonic() + self._settings.visible
        while not self._ends():
            self._step(min(1.0, max(0.0, due - time.monotonic())), listener)
            if time.monotonic() >= due:
                self._publish_rows()
                self._maintenance.start_upload()
                due = time.monotonic() + self._settings.visible
            self._start_upkeep()
            self.losses.report()
        self._finish(listener)

    def _ends(self) -> bool:
        parent = self._settings.parent
        return self.ending or (parent is not None and os.getppid() != parent)

    def _step(self, seconds: float, listener: socket.socket) -> bool:
        events = self._selector.select(seconds)
        for key, _ in events:
            if isinstance(key.fileobj, WorkerConnection):
                self._read(key.fileobj)
            elif key.fileobj is listener:
                self._accept(listener)
            else:
                key.data()
        self._confirm()
        return bool(events)

    def _accept(self, listener: socket.socket) -> bool:
        """Accept the next connection, if any waits."""
        try:
            channel, _ = listener.accept()
        except OSError:
            return False
        if len(self._connections) >= _CONNECTIONS:
            channel.close()
            return True
        channel.setblocking(False)  # noqa: FBT003
        connection = WorkerConnection(channel)
        self._connections[connection.fileno()] = connection
        self._selector.register(connection, selectors.EVENT_READ)
        return True

    def _read(self, connection: WorkerConnection) -> None:
        try:
            more = connection.receive()
            for kind, payload in connection.frames():
                self._take(connection, kind, payload)
        except GarbageError:
            self.losses.garbage += 1
            more = False
        if not more or self._exceeds_memory(connection):
            self._disconnect(connection)

    def _exceeds_memory(self, connection: WorkerConnection) -> bool:
        """Whether incomplete frames hold too much, and this connection holds one."""
        incomplete = sum(other.incomplete_bytes for other in self._connections.values())
        return incomplete > self._settings.memory and connection.incomplete_bytes > 0

    def _take(self, connection: WorkerConnection, kind: int, payload: memoryview) -> None:
        if connection.hello is None or kind == HELLO:
            self._greet(connection, kind, payload)
            return
        if connection.confirmations is not None and kind in (ENTRY, LIKE):
            self._take_durable(connection, connection.confirmations, kind, payload)
            return
        try:
            if kind == LIKE:
                like = self._like(payload)
                self.parts.add_like(like, connection.streams[like.pattern])
            elif kind == ENTRY:
                hello = connection.hello
                self.parts.add(self._entry(payload), hello.worker, hello.region or self._settings.region)
            elif kind == PATTERN:
                self._learn(connection, connection.hello, *self._pattern(payload))
            elif kind == DESCRIBE:
                self._hiding.describe(*self._described(payload))
            elif kind == GOODBYE:
                connection.closed = True
            else:
                raise GarbageError
        except _FAULTS:
            self.losses.garbage += 1

    def _take_durable(self, connection: WorkerConnection, known: Confirmations, kind: int, payload: memoryview) -> None:
        """Take an entry of a worker with durable logging.

        Raises:
            GarbageError: it has no number that could be refused.
        """
        hello = connection.hello
        assert hello is not None
        try:
            if kind == LIKE:
                like = self._like(payload)
                entry = connection.streams[like.pattern].whole(like)
            else:
                entry = self._entry(payload)
        except _FAULTS:
            raise GarbageError from None
        if not known.is_new(entry.sequence):
            return
        try:
            self.parts.add_durable(entry, hello.worker, hello.region or self._settings.region)
        except _FAULTS as error:
            self.losses.garbage += 1
            known.refuse(f"the values of an entry do not fit its description: {error}", entry.sequence)

    def _confirm(self) -> None:
        """Commit the entries of all workers at once and send confirmations.

        Entries of disconnected workers are included, as these may reconnect and send them again.
        """
        waiting = self._workers.waiting()
        try:
            self.parts.commit()
        except OSError as error:
            self.losses.record_refusal(error, sum(known.refuse(reason_of(error)) for known in waiting))
        frames = {known: known.frames() for known in waiting}
        for connection in list(self._connections.values()):
            known = connection.confirmations
            if known in frames and not connection.send(frames[known]):
                self._disconnect(connection)

    def _greet(self, connection: WorkerConnection, kind: int, payload: memoryview) -> None:
        if kind != HELLO or connection.hello is not None:
            raise GarbageError
        try:
            hello = self._hello(payload)
        except _FAULTS:
            raise GarbageError from None
        connection.hello = hello
        if hello.durable:
            newest = partial(newest_number, self._settings.folder)
            connection.confirmations = self._workers.connect(hello.worker, newest)
        for model, fields in hello.personal.items():
            self._hiding.describe(model, fields)
        for number, entry in enumerate(hello.patterns):
            self._learn(connection, hello, number, entry)
        self._write_lives([WorkerLife(worker=hello.worker, started=hello.started_us)])

    def _learn(self, connection: WorkerConnection, hello: Hello, number: int, entry: LogEntry) -> None:
        if not 0 <= number < PATTERNS:
            raise ValueError("a pattern that no worker sends")
        connection.streams[number] = PatternStream(entry, hello.worker, hello.region or self._settings.region)

    def _disconnect(self, connection: WorkerConnection) -> None:
        self._selector.unregister(connection)
        del self._connections[connection.fileno()]
        self._note_end(connection)
        if connection.closed and connection.hello is not None:
            self._workers.forget(connection.hello.worker)
        connection.close()

    def _note_end(self, connection: WorkerConnection) -> None:
        hello, last = connection.hello, connection.last()
        if hello is not None and last is not None:
            life = WorkerLife(worker=hello.worker, started=hello.started_us, last=last, closed=connection.closed)
            self._lives.append(life)

    # Disk -------------------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        """Recover rows from journals of a killed process; workers may send the last of them again."""
        with contextlib.suppress(OSError):  # as upkeep
            recover(self._settings.folder, self._workers.record_recovered, say=self.losses.say)

    def _publish_rows(self) -> None:
        """Publish the rows so far, and then the ends of workers, on a thread of its own."""
        if self._publishing is not None and self._publishing.is_alive():
            return
        lives, self._lives = self._lives, []
        self._publishing = threading.Thread(target=self._publish, args=(self.parts.take(), lives))
        self._publishing.start()

    def _publish(self, parts: list[LogPart], lives: list[WorkerLife]) -> None:
        self.parts.publish(parts)
        self._write_lives(lives)

    def _write_lives(self, lives: Iterable[WorkerLife]) -> None:
        for life in lives:
            try:
                known = log_folder.read_life(self._maintenance.log, life.worker)
                if known is not None:
                    life.forgotten = known.forgotten
                    if life.last is None:
                        continue
                log_folder.write_life(self._maintenance.log, life)
            except CumulantError:
                self._lives.append(life)

    def _start_upkeep(self) -> None:
        now = time.monotonic()
        if self._maintenance.start_upkeep(now):
            known = (connection.hello for connection in self._connections.values())
            self._workers.expire({hello.worker for hello in known if hello is not None}, now)

    def _finish(self, listener: socket.socket) -> None:
        """Process pending frames, write all rows, and end."""
        self._selector.unregister(listener)
        until = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < until and (self._accept(listener) or self._step(0.0, listener)):
            pass
        for connection in list(self._connections.values()):
            if connection.closed:
                self._note_end(connection)
            self._selector.unregister(connection)
            connection.close()
        if self._publishing is not None:
            self._publishing.join()
        lives, self._lives = self._lives, []
        self._publish(self.parts.take(), lives)
        self._maintenance.finish()
        self.losses.report()


def run(settings: LogProcessSettings) -> None:
    """Run the log process until SIGTERM or SIGINT.

    Raises:
        PortInUseError: another log process serves the socket.
        UsageError: the socket's path is too long or no socket.
        StorageError: the folder cannot be made.
    """
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder of the prediction log cannot be made: {error.strerror}",
            subject=str(settings.folder),
            hint="check the path and its permissions",
        ) from error
    log = LogProcess(settings)
    # The signals first: whoever finds the socket may end the process at once, and what was sent by then is written.
    with _signals(log) as wake, open_listener(settings.socket) as listener:
        log.run(listener, wake)


@contextmanager
def _signals(log: LogProcess) -> Iterator[socket.socket]:
    """Stop the log on SIGTERM and SIGINT; a byte on the yielded socket wakes its loop."""

    def end(*_: object) -> None:
        log.ending = True

    wake, wakes = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003
    wakes.setblocking(False)  # noqa: FBT003
    before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield wake
    finally:
        signal.set_wakeup_fd(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        wake.close()
        wakes.close()
