"""`cumulant monitor watch` of every kind of model, and its loop: what passes is told, and it looks again."""

import json
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from e2e_support import opened, run, start
from test_e2e_kinds import MARKS, make, visits

from cumulant.core.errors import UsageError
from cumulant.flows.monitoring.run import run_monitoring
from cumulant.flows.serving.predict import predict
from cumulant.flows.training.train import train

pytestmark = pytest.mark.slow

QUICK = {"trials": 1, "trainers": ["linear"]}
ASKED = 500


def served(folder, frame, target, *, timed, **training):
    """A project whose last rows were answered, and whose labels came three hours later; when all of them were known.

    As many rows again stand in the log under the name of another model.
    """
    source = {"event_time": "at"} if timed else {}
    make(folder, frame, target=target, source=source, training={**QUICK, **training})
    with opened(folder) as project:
        train(project, principal=project.principal())
        asked = frame.tail(ASKED).drop(target)
        answers = predict(project, "kind", asked, principal=project.principal())
    sent = asked.with_columns(
        pl.format("v{}", "visit").alias("id"),
        pl.col("at").alias("moment"),
        pl.lit("1").alias("version"),
        *answers.get_columns(),
        pl.lit("kind").alias("model"),
    )
    other = sent.with_columns(pl.format("o{}", "visit").alias("id"), pl.lit("other").alias("model"))
    pl.concat([sent, other]).write_parquet(folder / "sent.parquet")
    parts = "id=id,time=moment,event_time=moment,prediction=prediction,version=version,model=model"
    if "probabilities" in answers.columns:
        parts += ",score=probability,probabilities=probabilities"
    run(folder, "labels", "import-predictions", str(folder / "sent.parquet"), "--map", parts)
    labels = frame.tail(ASKED).select(
        pl.format("v{}", "visit").alias("id"), target, (pl.col("at") + timedelta(hours=3)).alias("known_time")
    )
    labels.write_parquet(folder / "known.parquet")
    run(folder, "labels", "ingest", str(folder / "known.parquet"))
    return frame["at"].max() + timedelta(days=2)


def look(folder, at):
    with opened(folder) as project:
        return run_monitoring(project, principal=project.principal(), at=at)


@pytest.mark.parametrize(("coded", "timed"), [(False, True), (True, False)], ids=["texts", "numbers-without-times"])
def test_several_classes_are_held_to_their_test_rows_and_to_recent_refits(tmp_path, coded, timed):
    frame, target = visits(), "grade"
    if coded:
        frame, target = frame.with_columns(pl.col("grade").replace_strict(MARKS).alias("mark")).drop("grade"), "mark"
    at = served(tmp_path / "kind", frame, target, timed=timed, task="multiclass")
    judged = look(tmp_path / "kind", at).evaluation
    assert 0 < judged.reference_loss < 2
    questions = [one.question for one in judged.harm.findings]
    assert questions == ["refit", "skill"]
    assert judged.harm.word != "worse"
    assert judged.fresh == len(judged.windows) > 10
    assert sum(one.rows for one in judged.windows) == sum(one.labelled for one in judged.windows) == ASKED
    losses, refits = ([getattr(one, name) for one in judged.windows] for name in ("loss", "refit"))
    assert sum(losses) / len(losses) == pytest.approx(judged.reference_loss, rel=0.3)
    # Rows that lack a value are not found again among the sources, so that some windows have too few to be asked.
    assert any(one is not None for one in refits) is timed


def test_numbers_without_times_are_held_to_their_test_rows_and_not_to_another_models(tmp_path):
    at = served(tmp_path / "kind", visits(), "score", timed=False)
    judged = look(tmp_path / "kind", at).evaluation
    assert judged.reference_loss > 0
    assert judged.harm is not None
    assert judged.notes == (
        "loss is not estimated: 240 rows with labels are too few to learn a loss from; 500 are needed",
    )
    assert judged.fresh == len(judged.windows) > 10
    assert sum(one.rows for one in judged.windows) == ASKED
    assert sum(one.labelled for one in judged.windows) == ASKED
    # A window that has not ended, or whose labels are to come, would be judged and never again.
    with pytest.raises(UsageError, match="is to come"):
        look(tmp_path / "kind", datetime.now(UTC) + timedelta(days=1))


def test_the_loop_tells_what_passes_and_goes_on_and_ctrl_c_ends_it(tmp_path):
    folder = tmp_path / "kind"
    served(folder, visits(), "score", timed=True)
    file = folder / "cumulant.yaml"
    whole = file.read_text()
    process = start(folder, "monitor", "watch", "--every", "1s", "--no-retrain")
    said, told, looks = threading.Event(), [], threading.Semaphore(0)

    def errors():
        for line in process.stderr:
            told.append(line)
            if "the next look is in 1s" in line:
                said.set()

    def documents():
        for line in process.stdout:
            if '"version"' in line:
                looks.release()

    threads = [threading.Thread(target=one, daemon=True) for one in (errors, documents)]
    for thread in threads:
        thread.start()
    try:
        assert looks.acquire(timeout=120), "no look was told"
        file.write_text("version: 1\nmodel: [")
        assert said.wait(60), "".join(told)
        file.write_text(whole)
        while looks.acquire(blocking=False):
            pass
        assert looks.acquire(timeout=60), "".join(told)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        if process.poll() is None:
            process.kill()
    for thread, pipe in zip(threads, (process.stderr, process.stdout), strict=True):
        thread.join(10)
        pipe.close()
    assert "interrupted" in "".join(told)
    assert "next look in" not in "".join(told), "programs read documents alone"


def test_people_read_when_the_next_look_is_and_how_to_stop(tmp_path):
    folder = tmp_path / "kind"
    served(folder, visits(), "score", timed=True)
    words = ("monitor", "watch", "--no-retrain", "--project", str(folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "cumulant.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    stop = threading.Timer(120, process.kill)
    stop.start()
    try:
        told = []
        for line in process.stderr:
            told.append(line.strip())
            if "next look" in line:
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, told
    finally:
        stop.cancel()
        process.kill()
        process.wait()
        process.stderr.close()
    assert "next look in 10m (Ctrl-C stops it; --once looks once)" in told
    once = subprocess.run(
        [sys.executable, "-m", "cumulant.cli", *words, "--once"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert once.returncode in (0, 1), once.stderr
    assert "next look" not in once.stdout + once.stderr


def test_a_first_look_that_can_not_be_ends_the_loop(tmp_path):
    make(tmp_path / "kind", visits(60), target="score")
    process = start(tmp_path / "kind", "monitor", "watch")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "no prediction log yet" in json.loads(out)["error"]["error"]
