"""The Black Friday story: history, training, an ordinary week, a spike of five times, labels a week later, retraining.

All of it is done as a user would: messages of a topic, `cumulant ingest run`, `cumulant up`, requests to the gateway,
and the commands' flows in the order in which an operator runs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cumulant
from cumulant.core.errors import StepFailedError, UsageError
from cumulant.core.progress import Progress, silent
from cumulant.demo.folder_lock import alone_in
from cumulant.demo.fraud.calendar import (
    AFTER,
    CHECKED,
    END,
    FIRST,
    LAST,
    RETRAINING,
    SPIKE,
    TOPIC_GONE,
    WAITING,
    StorySize,
)
from cumulant.demo.fraud.card_windows import CardWindows, card_windows
from cumulant.demo.fraud.faults import empty_store, send_faults
from cumulant.demo.fraud.generator import payments, spike_factor
from cumulant.demo.fraud.ingestion import Ingestion, ingest_once, ingesting
from cumulant.demo.fraud.messages import (
    REQUEST,
    as_known,
    between,
    by_partition,
    messages,
    requests,
    without_outcomes,
    write_chargebacks,
)
from cumulant.demo.fraud.money import worth
from cumulant.demo.fraud.outages import ingest_on_full_disk, make_topic_anew, read_with_other_schema
from cumulant.demo.fraud.project import LIVE, NAME, TOPIC, add_topic, begin_folder
from cumulant.demo.fraud.recomputation import Recomputation, recompute
from cumulant.demo.fraud.report import (
    FaultReport,
    FlinkReport,
    FraudStory,
    MoneyReport,
    OutageReport,
    PhaseReport,
    RebuildReport,
    RetrainingReport,
    SpikeReport,
)
from cumulant.demo.fraud.traffic import PaymentDecision, Phase, send_phase

if TYPE_CHECKING:
    import polars as pl

    from cumulant.api.stack import RunningStack

#: of a decision in the spike, milliseconds; above it the story says that it was missed
PROMISED_P99 = 100.0
#: lines of the history that are written at once
_AT_ONCE = 20_000


class StoryEngines(NamedTuple):
    """URLs of a broker whose topic `payments` exists, and of an online store; default: embedded. And of a gateway of
    Flink, which computes features of that broker; default: none.

    Commands that delete that topic and create it anew, and that restart the store without its data: without them the
    story does the first with files alone, and removes the store's tables in place of the second.
    """

    streams: str = ""
    online: str = ""
    replace_topic: str = ""
    restart_online: str = ""
    stream_engine: str = ""


def fraud_story(
    folder: Path,
    *,
    size: StorySize | None = None,
    engines: StoryEngines | None = None,
    http: str = "127.0.0.1:0",
    progress: Progress = silent,
    then: Callable[[FraudStory], None] = lambda _: None,
) -> FraudStory:
    """Play the story in a new folder. `then` is called with the result while everything still runs.

    Raises:
        UsageError: the folder holds something else, or there is an engine of streams without a broker.
        LeaseHeldError: another demo runs there.
        MissingPartError: no gateway is installed.
        StepFailedError: ingestion or the job of Flink ended, a command failed, or nothing was retrained.
        EngineUnavailableError: the broker, the online store or Flink does not answer.
    """
    engines = engines or StoryEngines()
    streams, online = engines.streams, engines.online
    if engines.stream_engine and not streams:
        hint = "name a broker too: --streams kafka://HOST:9092"
        raise UsageError("the job of Flink reads the topic from Kafka", subject="--stream-engine", hint=hint)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        begin_folder(folder, streams=streams, online=online, stream_engine=engines.stream_engine)
    environment = LIVE if streams or online else "local"
    with alone_in(folder), cumulant.open(folder, env=environment, progress=progress) as project:
        project.stack.check()  # before anything that takes time
        if not streams:
            add_topic(Path(project.loaded.endpoints.streams.partition("://")[2]))
        return _Story(project, size or StorySize(), engines, progress).play(http, then)


class _Sent(NamedTuple):
    """A phase that is over, and its first moment."""

    name: str
    since: datetime
    phase: Phase


class _Outcome(NamedTuple):
    """What the parts of the story came to; `history` is a number of payments."""

    history: int
    faults: list[FaultReport]
    outages: list[OutageReport]
    rebuild: RebuildReport
    recomputation: Recomputation
    retraining: RetrainingReport
    job: CardWindows | None


class _Story:
    def __init__(self, project: cumulant.Project, size: StorySize, engines: StoryEngines, progress: Progress) -> None:
        self._project, self._size, self._engines, self._progress = project, size, engines, progress
        self._begun, self._since = time.monotonic(), datetime.now(UTC)
        progress("payments are invented")
        self._payments = payments(size.scenario)
        self._sent: list[_Sent] = []

    def play(self, http: str, then: Callable[[FraudStory], None]) -> FraudStory:
        history = between(self._payments, self._size.scenario.begin, FIRST)
        self._produce(as_known(history, FIRST))
        self._progress("history is ingested")
        ingest_once(self._project)
        with card_windows(self._project, self._progress) as job:
            trained = self._project.train(as_of=FIRST)
            return self._served(f"{NAME}/{trained.model.version}", history.height, http, job, then)

    def _served(
        self, model: str, history: int, http: str, job: CardWindows | None, then: Callable[[FraudStory], None]
    ) -> FraudStory:
        with self._project.stack.up(model, http=http) as running, ingesting(self._project) as ingestion:
            self._live(running, ingestion)
            self._skip(ingestion)
            if job is not None:
                self._progress("the last features of the job of Flink, which is then stopped")
                job.await_results(self._numbers(FIRST, LAST))
                job.stop()  # a clock that is 50 years ahead, as comes next, would move its watermark
            faults, outages, rebuild = self._faults(running, ingestion)
            retraining = self._retrain(model, ingestion)
            outages.append(self._replace_topic(running, ingestion))
            self._progress("decisions are computed again from the stored history")
            recomputation = recompute(self._project, self._payments, self._decisions(), self._since)
            outcome = _Outcome(history, faults, outages, rebuild, recomputation, retraining, job)
            story = self._result(running, ingestion, outcome)
            then(story)
        return story

    # --- live traffic

    def _live(self, running: RunningStack, ingestion: Ingestion) -> None:
        self._phase("ordinary week", FIRST, SPIKE, running)
        self._deliver(SPIKE, ingestion)
        self._phase("spike", SPIKE, AFTER, running)
        self._phase("after", AFTER, LAST, running)
        ingestion.await_features()

    def _phase(
        self, name: str, since: datetime, until: datetime, running: RunningStack, *, to_topic: bool = True
    ) -> None:
        seconds = (until - since).total_seconds() / self._size.speed
        self._progress(f"{name}: {since:%d %b} to {until:%d %b}, {seconds:g} s")
        sent = requests(between(self._payments, since, until), since, self._size.speed)
        phase = send_phase(self._project, running.client(), sent, seconds, to_topic=to_topic)
        self._sent.append(_Sent(name, since, phase))

    def _deliver(self, moment: datetime, ingestion: Ingestion) -> None:
        """The outcomes of that Friday's delivery, as messages; no payment is made meanwhile."""
        import polars as pl

        self._progress(f"outcomes of {moment:%d %b} are delivered")
        self._produce(self._payments.filter(pl.col("CHARGEBACK_AT") == moment))
        ingestion.await_features()

    def _produce(self, frame: pl.DataFrame) -> None:
        for part in frame.iter_slices(_AT_ONCE):
            for partition, values in by_partition(part):
                self._project.streams.produce(TOPIC, values, partition=partition)

    # --- after it

    def _skip(self, ingestion: Ingestion) -> None:
        """Payments of days that are not played: they come to the topic alone. The outcomes of Black Friday, too."""
        self._produce(without_outcomes(between(self._payments, LAST, WAITING)))
        for friday in (SPIKE + timedelta(days=7), RETRAINING):
            self._deliver(friday, ingestion)

    def _faults(
        self, running: RunningStack, ingestion: Ingestion
    ) -> tuple[list[FaultReport], list[OutageReport], RebuildReport]:
        """Bad messages, repeated ones, what ingestion ends by, and an online store that is emptied; then traffic again,
        to compare.
        """
        self._progress("bad messages, and repeated ones")
        faults = send_faults(self._project, ingestion, between(self._payments, SPIKE, AFTER), RETRAINING)
        self._progress("a consumer with another schema, and a full disk")
        outages = [read_with_other_schema(self._project)]
        ingestion.stop()
        waiting = between(self._payments, WAITING, RETRAINING)
        self._produce(without_outcomes(waiting))
        outages.append(ingest_on_full_disk(self._project, ingestion, waiting.height))
        self._progress("an emptied online store")
        rebuild = empty_store(self._project, running.client(), RETRAINING, self._engines.restart_online)
        self._phase("after faults", RETRAINING, CHECKED, running)
        ingestion.await_features()
        return faults, outages, rebuild

    def _replace_topic(self, running: RunningStack, ingestion: Ingestion) -> OutageReport:
        """The topic is gone, and another one has its name; decisions go on, from the stored features."""
        self._progress("the topic is deleted and made anew")
        later = messages(without_outcomes(between(self._payments, TOPIC_GONE, END)))
        outage = make_topic_anew(self._project, ingestion, self._engines.replace_topic, later)
        self._phase("topic gone", TOPIC_GONE, END, running, to_topic=False)
        return outage

    def _numbers(self, since: datetime, until: datetime) -> list[int]:
        numbers: list[int] = between(self._payments, since, until)["TRANSACTION_ID"].to_list()
        return numbers

    def _decisions(self) -> list[PaymentDecision]:
        return [decision for sent in self._sent for decision in sent.phase.decisions]

    def _retrain(self, model: str, ingestion: Ingestion) -> RetrainingReport:
        """Two weeks later: labels of the live payments, monitoring, a new version, and the week after it."""
        import polars as pl

        delivered = between(self._payments, FIRST, LAST).filter(pl.col("CHARGEBACK_AT") <= RETRAINING)
        labels = write_chargebacks(delivered, self._project.root / "data" / "chargebacks" / f"{RETRAINING:%F}.csv")
        self._project.outcomes.ingest_labels()
        self._progress(f"monitoring, {RETRAINING:%d %b}")
        result = self._project.monitoring.run(at=RETRAINING)
        request = self._project.monitoring.retrain(as_of=RETRAINING)
        if request is None or request.candidate is None:
            reason = result.action.sentence if request is None else request.message
            raise StepFailedError(f"monitoring trained no new version: {reason}")
        week = between(self._payments, RETRAINING, END)
        self._produce(without_outcomes(between(week, CHECKED, END)))
        ingestion.await_features()
        self._progress("both versions score the week after")
        return RetrainingReport(
            labels=labels,
            decision=result.action.sentence,
            version=request.candidate,
            release=self._project.releases.current().status if request.release is not None else "",
            before=self._worth(week, model),
            after=self._worth(week, request.candidate),
        )

    def _worth(self, week: pl.DataFrame, model: str) -> MoneyReport:
        rows = week.select(REQUEST)
        on_hold = self._project.predict(rows, model=model)["prediction"] == 1
        return worth(model, week, rows.filter(on_hold)["TRANSACTION_ID"].to_list())

    # --- the result

    def _result(
        self,
        running: RunningStack,
        ingestion: Ingestion,
        outcome: _Outcome,
    ) -> FraudStory:
        phases = {sent.name: sent for sent in self._sent}
        ordinary, spike = (phases[name].phase for name in ("ordinary week", "spike"))
        level = ingestion.most(ordinary.begun, ordinary.ended)
        report = SpikeReport(
            factor=round(spike_factor(self._payments, SPIKE, AFTER), 2),
            failed_requests=len(spike.failed),
            p50_ms=spike.milliseconds(0.5),
            p99_ms=spike.milliseconds(0.99),
            events_per_second=spike.per_second,
            lag_recovered_seconds=ingestion.recovered(spike.ended, level),
            recomputed=outcome.recomputation.decisions,
            features_compared=outcome.recomputation.features,
            mismatches=outcome.recomputation.mismatches,
        )
        live = between(self._payments, FIRST, LAST)
        on_hold = [decision.number for decision in self._decisions() if decision.hold]
        environment = self._project.loaded.endpoints
        urls = {"streams": environment.streams, "online": environment.online, "features": environment.stream_engine}
        flink = None
        if outcome.job is not None:
            payments, peak = self._numbers(FIRST, LAST), self._numbers(SPIKE, AFTER)
            flink = outcome.job.report(payments, peak, spike.ended, outcome.recomputation)
        return FraudStory(
            folder=str(self._project.root),
            engines={name: url.partition(":")[0] for name, url in urls.items() if url},
            speed=self._size.speed,
            history=outcome.history,
            phases=tuple(_phase_report(sent, ingestion) for sent in self._sent),
            spike=report,
            live=worth(outcome.retraining.before.version, live, on_hold),
            faults=tuple(outcome.faults),
            outages=tuple(outcome.outages),
            rebuild=outcome.rebuild,
            retraining=outcome.retraining,
            url=running.url or "",
            seconds=round(time.monotonic() - self._begun, 1),
            flink=flink,
            missed=(
                *missed(report, [error for sent in self._sent for error in sent.phase.failed]),
                *missed_of_faults(outcome.outages, outcome.recomputation.unlogged),
                *missed_of_flink(flink),
            ),
        )


def _phase_report(sent: _Sent, ingestion: Ingestion) -> PhaseReport:
    phase = sent.phase
    return PhaseReport(
        name=sent.name,
        seconds=round(phase.ended - phase.begun, 1),
        events_per_second=phase.per_second,
        decisions=len(phase.decisions),
        failed_requests=len(phase.failed),
        p50_ms=phase.milliseconds(0.5),
        p99_ms=phase.milliseconds(0.99),
        waiting=ingestion.most(phase.begun, phase.ended).messages,
        same_card=phase.waited,
    )


def missed(spike: SpikeReport, failed: Sequence[PaymentDecision]) -> tuple[str, ...]:
    """What the story promises and a run did not keep, one sentence each."""
    sentences = []
    if failed:
        sentences.append(f"{len(failed)} requests failed, the first with {failed[0].error}")
    if spike.p99_ms > PROMISED_P99:
        sentences.append(f"a decision in the spike took {spike.p99_ms:g} ms at p99, above {PROMISED_P99:g} ms")
    if spike.mismatches:
        sentences.append(f"{spike.mismatches} of {spike.recomputed} decisions differ from what was computed again")
    if spike.lag_recovered_seconds is None:
        sentences.append("ingestion did not recover from the spike")
    return tuple(sentences)


def missed_of_faults(outages: Sequence[OutageReport], unlogged: int) -> tuple[str, ...]:
    """What was promised of ingestion that cannot go on: it ends with an error, and loses and invents nothing."""
    sentences = []
    for outage in outages:
        if outage.exit_code == 0 or outage.committed:
            ended = f"ended with exit code {outage.exit_code} and {outage.committed} rows"
            sentences.append(f"{outage.fault}: ingestion {ended} in place of an error and none")
        if outage.recovered not in {None, outage.sent}:
            sentences.append(f"{outage.fault}: {outage.sent} messages became {outage.recovered} rows afterwards")
    if unlogged:
        sentences.append(f"{unlogged} decisions have no logged features to compare")
    return tuple(sentences)


def missed_of_flink(flink: FlinkReport | None) -> tuple[str, ...]:
    """What was promised of the job of Flink: each payment has its features once, and they are those of the history."""
    if flink is None:
        return ()
    sentences = []
    if flink.missing:
        sentences.append(f"{flink.missing} payments have no features of Flink")
    if flink.repeated:
        sentences.append(f"{flink.repeated} results of Flink are of payments that had one")
    if flink.mismatches or not flink.events:
        sentences.append(f"features of Flink differ in {flink.mismatches} of {flink.events} payments")
    return tuple(sentences)
