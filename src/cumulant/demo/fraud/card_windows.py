"""The windows of the card as a job of Flink: a second project, which reads the same topic, and its results."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

import cumulant
from cumulant.core.errors import CumulantError, DefinitionError, StepFailedError
from cumulant.core.progress import Progress, silent
from cumulant.demo.fraud.ingestion import ingest_once
from cumulant.demo.fraud.project import LIVE, SOURCE, TOPIC
from cumulant.demo.fraud.recomputation import KEY, differs
from cumulant.demo.fraud.report import FlinkReport

if TYPE_CHECKING:
    from cumulant.demo.fraud.recomputation import Recomputation

#: seconds until the results of all payments must be there, on a machine that is busy, and that a read waits
_LONGEST, _READ = 180.0, 0.5
#: seconds between two questions whether the job runs
_CHECK = 10.0
_READ_BYTES = 1 << 20
_PROJECT = f"""\
version: 1
model: {{name: card-windows}}
data:
  {SOURCE}:
    stream: {TOPIC}
    key: TRANSACTION_ID
    event_time: TX_DATETIME
    personal: [CUSTOMER_ID]
    lateness: 1m                        # each partition has payments in the order of time
    idle: 1h                            # longer than anything of the story takes
features: features.py
training: {{target: TX_FRAUD}}
environments:
  {LIVE}:
    streams: STREAMS
    stream_engine: ENGINE
"""
_FEATURES = '''\
"""The windows of the card, as in the model's features.py. Its source has no corrections, which Flink takes back nothing
for: the first message of a payment counts, and an outcome changes nothing that these windows read.
"""

from cumulant.features import col, source

tx = source("tx")
windows = ["1d", "7d", "30d"]

card = tx.by("CUSTOMER_ID")
card_n = card.count(window=windows)
card_mean = card.mean("TX_AMOUNT", window=windows)
amount_ratio = col("TX_AMOUNT") / card_mean["30d"]
'''


class CardWindows:
    """The running job of the second project, whose results are read as they come."""

    def __init__(self, project: cumulant.Project, refused: str) -> None:
        started = project.feature_store.start_job()
        self._project, self._refused, self._topic = project, refused, started.topic
        #: by payment: the values, and when they were read by the monotonic clock
        self._results: dict[int, tuple[dict[str, Any], float]] = {}
        self._repeated = 0
        self._ended = threading.Event()
        self._error: CumulantError | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def await_results(self, payments: Collection[int]) -> None:
        """Wait until all of these have features; what never gets them is missing in the report.

        Raises:
            StepFailedError: the job has ended or fails again and again, or the topic of its results cannot be read.
        """
        deadline, checked = time.monotonic() + _LONGEST, time.monotonic()
        while any(number not in self._results for number in payments):
            if self._error is not None:
                raise StepFailedError(f"results of the job cannot be read: {self._error.message}") from self._error
            if time.monotonic() - checked > _CHECK:
                self._check()
                checked = time.monotonic()
            if time.monotonic() > deadline:
                return
            time.sleep(_READ)

    def _check(self) -> None:
        if faulty := [job.state for job in self._project.feature_store.jobs() if job.faulty]:
            raise StepFailedError(f"the job of the card's windows is {faulty[0].lower()}: see the log of Flink")

    def stop(self) -> None:
        """Stop the job with a savepoint, as an operator does; its last results are read."""
        if self._ended.is_set():
            return
        try:
            self._project.feature_store.stop_job()
        finally:
            self._ended.set()
            self._thread.join()

    def report(
        self, payments: Collection[int], spike: Collection[int], ended: float, again: Recomputation
    ) -> FlinkReport:
        """Compare the results of the live `payments` with those that were computed again. `ended`: when the `spike`
        was over, by the monotonic clock.
        """
        results = {number: values for number, (values, _) in self._results.items()}
        events, compared, mismatches = compare(results, payments, again.features_of)
        last = max((self._results[number][1] for number in spike if number in self._results), default=ended)
        return FlinkReport(
            topic=self._topic,
            features=tuple(sorted({name for values in results.values() for name in values})),
            refused=self._refused,
            results=len(results) + self._repeated,
            repeated=self._repeated,
            missing=sum(number not in results for number in payments),
            events=events,
            compared=compared,
            mismatches=mismatches,
            behind_seconds=round(max(0.0, last - ended), 1),
        )

    def _follow(self) -> None:
        streams = self._project.loaded.streams()
        try:
            with streams.consume(self._topic, dict.fromkeys(streams.partitions(self._topic), 0)) as consumer:
                over = False
                while not over:
                    over = self._ended.is_set()  # what came before that is still read
                    for part in consumer.read(_READ_BYTES, _READ):
                        self._take([value for value in part.values if value is not None])
        except CumulantError as error:
            self._error = error

    def _take(self, messages: Collection[bytes]) -> None:
        at = time.monotonic()
        for message in messages:
            number, values = payment_features(message)
            self._repeated += number in self._results
            self._results.setdefault(number, (values, at))


def payment_features(message: bytes) -> tuple[int, dict[str, Any]]:
    """The payment and the features of a result of the job."""
    values = msgspec.json.decode(message, type=dict[str, Any])
    return values[KEY], {name: value for name, value in values.items() if name not in {KEY, "fingerprint"}}


def compare(
    results: Mapping[int, Mapping[str, Any]], payments: Collection[int], again: Mapping[int, Mapping[str, Any]]
) -> tuple[int, int, int]:
    """How many payments with how many values were compared with those that were computed again, and how many of the
    payments differ in any.
    """
    both = [number for number in payments if number in results and number in again]
    values = sum(len(results[number]) for number in both)
    return len(both), values, sum(differs(results[number], again[number]) for number in both)


def begin_card_windows(folder: Path, *, streams: str, engine: str) -> None:
    """The second project, in an empty folder."""
    folder.mkdir(parents=True)
    text = _PROJECT.replace("STREAMS", streams).replace("ENGINE", engine)
    (folder / "cumulant.yaml").write_text(text, encoding="utf-8")
    (folder / "features.py").write_text(_FEATURES, encoding="utf-8")


@contextmanager
def card_windows(project: cumulant.Project, progress: Progress = silent) -> Iterator[CardWindows | None]:
    """The job, which is stopped in the end at the latest; None where the environment of the story has no engine.

    Raises:
        StepFailedError: the engine takes what it is known to refuse.
        EngineUnavailableError: it does not answer.
    """
    endpoints = project.loaded.endpoints
    if endpoints.stream_engine is None:
        yield None
        return
    progress("the job of Flink starts")
    refused = _refusal(project)
    folder = project.root / "consumers" / "card-windows"
    begin_card_windows(folder, streams=endpoints.streams, engine=endpoints.stream_engine)
    with cumulant.open(folder, env=LIVE, progress=progress) as consumer:
        ingest_once(consumer)  # definitions are checked against rows
        job = CardWindows(consumer, refused)
        try:
            yield job
        finally:
            job.stop()


def _refusal(project: cumulant.Project) -> str:
    """What Flink says of the model's own features: those of the terminal need corrections."""
    try:
        project.feature_store.start_job()
    except DefinitionError as error:
        return error.message
    raise StepFailedError("Flink computes the features of the model, and the story expects that it refuses them")
