"""Records of the Black Friday story: what its document shows."""

from __future__ import annotations

import msgspec


class PhaseReport(msgspec.Struct, frozen=True, kw_only=True):
    """A phase of traffic. `waiting`: the most messages of the topic that were not ingested; times in milliseconds."""

    name: str
    seconds: float
    events_per_second: float
    decisions: int
    failed_requests: int
    p50_ms: float
    p99_ms: float
    waiting: int
    #: payments that waited for the answer to the same card's payment before
    same_card: int


class SpikeReport(msgspec.Struct, frozen=True, kw_only=True):
    """The spike. `factor`: times the payments a day of the week before. `lag_recovered_seconds`: from the end of the
    spike until no more messages waited, and no more batches were missing in the stored features, than in the ordinary
    week; None: not within the demo.

    `recomputed` decisions of all phases were computed again from the stored history, with `features_compared` values
    of the stored features that they were served with; `mismatches` differ by more than 1e-9 in a value or in the
    probability.
    """

    factor: float
    failed_requests: int
    p50_ms: float
    p99_ms: float
    events_per_second: float
    lag_recovered_seconds: float | None
    recomputed: int
    features_compared: int
    mismatches: int


class FlinkReport(msgspec.Struct, frozen=True, kw_only=True):
    """The job of Flink that computed `features` of the topic while it was written, into the topic `topic`. `results`:
    its messages, of which `repeated` were of payments that had one; `missing`: payments of the ordinary week, the spike
    and the days after that got none. `behind_seconds`: from the end of the spike until the features of all its payments
    could be read.

    `events`: those payments that were also computed again from the stored history, with `compared` values;
    `mismatches` of them differ by more than 1e-9 in any.

    `refused`: what Flink answers where it is to compute the features of the model.
    """

    topic: str
    features: tuple[str, ...]
    refused: str
    results: int
    repeated: int
    missing: int
    events: int
    compared: int
    mismatches: int
    behind_seconds: float


class FaultReport(msgspec.Struct, frozen=True, kw_only=True):
    """Messages that something is wrong with: how many were refused, and how many became rows."""

    fault: str
    messages: int
    refused: int
    rows: int


class OutageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What ingestion could not go on with. `sent`: messages that the command had to read; `exit_code` and `answer`: how
    it ended; `committed`: what it stored of them; `recovered`: rows that they became afterwards, None where no message
    of that kind can. `exit_code` None: not played, and `answer` says why.
    """

    fault: str
    sent: int
    exit_code: int | None
    answer: str
    committed: int
    recovered: int | None = None


class RebuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """An online store that was emptied while everything ran; `restarted`: the server, without its data. `seconds` until
    decisions had stored features again; of `requests` meanwhile `refused` had no decision, the first with the text
    `answer`.
    """

    restarted: bool
    seconds: float
    requests: int
    refused: int
    answer: str


class MoneyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions of a version are worth. Amounts in the currency of the payments; a false alarm costs 5."""

    version: str
    payments: int
    frauds: int
    fraud_amount: float
    stopped_amount: float
    false_alarms: int

    @property
    def cost(self) -> float:
        """What missed frauds and false alarms cost."""
        return round(self.fraud_amount - self.stopped_amount + 5 * self.false_alarms, 2)


class RetrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What monitoring decided with the labels, and what both versions are worth in the week after."""

    labels: int
    decision: str
    version: str
    #: what became of the release that monitoring began; empty where it began none
    release: str
    before: MoneyReport
    after: MoneyReport


class FraudStory(msgspec.Struct, frozen=True, kw_only=True):
    """The result. `speed`: how many times faster than the clock days passed. `history`: payments before the first day.
    `live`: what decisions of the ordinary week, the spike and the days after were worth. `faults`: bad messages;
    `outages`: what ingestion could not go on with; `rebuild`: an online store that was emptied. The phase `after
    faults` follows these, and `topic gone` the last of the outages.
    `engines`: where topics and stored features were, and what computed features of streams beside; `flink`: null
    without. `missed`: what the story promises and this run did not keep.
    """

    folder: str
    engines: dict[str, str]
    speed: float
    history: int
    phases: tuple[PhaseReport, ...]
    spike: SpikeReport
    live: MoneyReport
    faults: tuple[FaultReport, ...]
    outages: tuple[OutageReport, ...]
    rebuild: RebuildReport
    retraining: RetrainingReport
    url: str
    seconds: float
    flink: FlinkReport | None = None
    missed: tuple[str, ...] = ()
