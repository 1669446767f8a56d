"""The Black Friday story: its folder, and what it says of a run that kept no promise."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cumulant.core.errors import StepFailedError, UsageError
from cumulant.demo.fraud.card_windows import begin_card_windows, compare, payment_features
from cumulant.demo.fraud.ingestion import Backlog, error_sentence, run_to_end
from cumulant.demo.fraud.money import worth
from cumulant.demo.fraud.project import PROJECT, begin_folder
from cumulant.demo.fraud.recomputation import differs
from cumulant.demo.fraud.report import FlinkReport, OutageReport, SpikeReport
from cumulant.demo.fraud.story import StoryEngines, fraud_story, missed, missed_of_faults, missed_of_flink
from cumulant.demo.fraud.traffic import PaymentDecision, Phase
from cumulant.project.file.loading import load

KEPT = {
    "factor": 5.0,
    "failed_requests": 0,
    "p50_ms": 5.0,
    "p99_ms": 99.0,
    "events_per_second": 100.0,
    "lag_recovered_seconds": 1.0,
    "recomputed": 10,
    "features_compared": 30,
    "mismatches": 0,
}


def test_the_folder_of_an_earlier_story_is_begun_again_and_no_other_one(tmp_path: Path) -> None:
    folder = tmp_path / "fraud"
    begin_folder(folder)
    (folder / "left").touch()
    begin_folder(folder, streams="kafka://127.0.0.1:9", online="valkey://127.0.0.1:9/0")
    assert not (folder / "left").exists()
    with load(folder, environment="live") as project:
        assert project.endpoints.streams == "kafka://127.0.0.1:9"
        assert project.endpoints.online == "valkey://127.0.0.1:9/0"
    other = tmp_path / "other"
    other.mkdir()
    (other / "cumulant.yaml").write_text(PROJECT.replace("# The Black", "# A Black"))
    with pytest.raises(UsageError, match="not this demo's"):
        begin_folder(other)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"p99_ms": 100.1}, "a decision in the spike took 100.1 ms at p99, above 100 ms"),
        ({"mismatches": 2}, "2 of 10 decisions differ from what was computed again"),
        ({"lag_recovered_seconds": None}, "ingestion did not recover from the spike"),
    ],
)
def test_what_was_missed_is_said(changed: dict[str, object], sentence: str) -> None:
    assert missed(SpikeReport(**KEPT), []) == ()  # type: ignore[arg-type]
    assert missed(SpikeReport(**KEPT | changed), []) == (sentence,)  # type: ignore[arg-type]


def test_failed_requests_are_missed_and_count_in_the_times() -> None:
    failed = PaymentDecision(number=2, seconds=2.0, error="429: busy")
    phase = Phase(decisions=(PaymentDecision(number=1, seconds=0.01), failed), begun=10.0, ended=12.0, waited=0)
    assert (phase.per_second, phase.milliseconds(0.99), phase.failed) == (1.0, 2000.0, [failed])
    assert missed(SpikeReport(**KEPT), phase.failed) == ("1 requests failed, the first with 429: busy",)  # type: ignore[arg-type]


def test_frauds_that_were_held_are_money_and_others_that_were_are_false_alarms() -> None:
    import polars as pl

    rows = pl.DataFrame(
        {"TRANSACTION_ID": [1, 2, 3, 4], "TX_FRAUD": [1, 1, 0, 0], "TX_AMOUNT": [100.0, 30.0, 7.0, 9.0]}
    )
    money = worth("v/1", rows, {1, 3})
    assert (money.frauds, money.fraud_amount, money.stopped_amount, money.false_alarms) == (2, 130.0, 100.0, 1)
    assert money.cost == 35.0


def test_a_backlog_is_within_another_by_messages_and_by_batches() -> None:
    level = Backlog(0.0, messages=20, batches=1)
    assert Backlog(1.0, messages=20, batches=1).within(level)
    assert not Backlog(1.0, messages=21, batches=0).within(level)
    assert not Backlog(1.0, messages=0, batches=2).within(level)


@pytest.mark.parametrize(
    ("served", "again", "differing"),
    [
        ({"n": 3, "mean": 0.1 + 0.2, "share": None}, {"n": 3, "mean": 0.3, "share": float("nan"), "row": 9.5}, False),
        ({"n": 3, "mean": 20.0}, {"n": 3, "mean": 20.0001}, True),
        ({"n": 3}, {"n": 4}, True),
        ({"share": 0.0}, {"share": None}, True),
        ({"share": None}, {"share": 0.0}, True),
        ({"n": 3}, {}, True),
        ({"channel": "web"}, {"channel": "shop"}, True),
        ({"channel": "web"}, {"channel": "web"}, False),
    ],
)
def test_a_decision_differs_by_any_of_its_features(
    served: dict[str, object], again: dict[str, object], *, differing: bool
) -> None:
    assert differs(served, again) is differing


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"exit_code": 0, "committed": 4}, "ended with exit code 0 and 4 rows in place of an error and none"),
        ({"recovered": 9}, "10 messages became 9 rows afterwards"),
    ],
)
def test_ingestion_that_went_on_or_lost_rows_is_missed(changed: dict[str, object], sentence: str) -> None:
    kept = {"fault": "a full disk", "sent": 10, "exit_code": 4, "answer": "no", "committed": 0, "recovered": 10}
    unplayed = OutageReport(fault="a full disk", sent=10, exit_code=None, answer="not played", committed=0)
    assert missed_of_faults([OutageReport(**kept), unplayed], 0) == ()  # type: ignore[arg-type]
    (said,) = missed_of_faults([OutageReport(**kept | changed)], 0)  # type: ignore[arg-type]
    assert said.endswith(sentence)
    assert missed_of_faults([], 2) == ("2 decisions have no logged features to compare",)


def test_results_of_flink_are_compared_by_payment() -> None:
    message = b'{"TRANSACTION_ID":7,"card_n_1d":2,"card_mean_1d":4.5,"fingerprint":"044afe5502de"}'
    number, values = payment_features(message)
    assert (number, values) == (7, {"card_n_1d": 2, "card_mean_1d": 4.5})
    again = {7: values | {"terminal_n_1d": 3}, 8: values | {"card_n_1d": 3}, 9: values}
    # 6 was not computed again, 9 has no result, and nobody asked for 5
    results = {5: values, 6: values, 7: values, 8: values}
    assert compare(results, [6, 7, 8, 9], again) == (2, 4, 1)


def test_what_flink_did_not_keep_is_missed() -> None:
    kept = {"topic": "t", "features": ("n",), "refused": "", "results": 5, "repeated": 0, "missing": 0}
    kept |= {"events": 5, "compared": 5, "mismatches": 0, "behind_seconds": 1.0}

    def said(**changed: int) -> tuple[str, ...]:
        return missed_of_flink(FlinkReport(**kept | changed))  # type: ignore[arg-type]

    assert said() == missed_of_flink(None) == ()
    assert said(missing=2) == ("2 payments have no features of Flink",)
    assert said(repeated=1) == ("1 results of Flink are of payments that had one",)
    assert said(mismatches=3) == ("features of Flink differ in 3 of 5 payments",)
    assert said(events=0) == ("features of Flink differ in 0 of 0 payments",)


def test_flink_computes_the_windows_of_the_card_as_the_model_has_them(tmp_path: Path) -> None:
    begin_card_windows(
        tmp_path / "card", streams="kafka://127.0.0.1:9", engine="flink://127.0.0.1:9?checkpoints=s3://f"
    )
    template = (Path(__file__).parents[3] / "examples/fraud/features.py").read_text()
    text = (tmp_path / "card" / "features.py").read_text()
    own = {line for line in text.splitlines() if re.match(r"\w+ = ", line)}
    assert own <= {*template.splitlines()}
    assert {"card_n = card.count(window=windows)", 'amount_ratio = col("TX_AMOUNT") / card_mean["30d"]'} <= own
    with load(tmp_path / "card", environment="live") as project:
        assert project.policies.source("tx").spec.stream == "payments"
    with pytest.raises(UsageError, match="reads the topic from Kafka"):
        fraud_story(tmp_path / "fraud", engines=StoryEngines(stream_engine="flink://127.0.0.1:9?checkpoints=s3://f"))
    assert not (tmp_path / "fraud").exists()


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        ("tx: 5 messages\nerror: the disk is full\n  subject tx\n", "the disk is full"),
        ("Traceback\nKeyError: 1\n", "Traceback\nKeyError: 1"),
    ],
)
def test_what_a_command_says_of_its_error_is_taken_from_its_output(printed: str, sentence: str) -> None:
    assert error_sentence(printed) == sentence


def test_a_command_that_does_not_end_is_ended_and_said() -> None:
    ended = run_to_end(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "out\n", "err\n")
    with pytest.raises(StepFailedError, match=r"`sleep 600` did not end in 0\.1 s"):
        run_to_end(["sleep", "600"], longest=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="a child is told of the end of its parent on Linux")
def test_a_command_ends_with_the_demo_that_runs_it(tmp_path: Path) -> None:
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    script = f"trap 'touch {ended}; exit' TERM; touch {ready}; while :; do sleep 0.05; done"
    demo = f"from cumulant.demo.fraud.ingestion import run_to_end; run_to_end(['sh', '-c', {script!r}])"
    parent = subprocess.Popen([sys.executable, "-c", demo])
    try:
        await_file(ready)
    finally:
        parent.kill()
        parent.wait()
    await_file(ended)


def await_file(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)
