"""`cumulant monitor watch`: harm is measured, a training follows by itself, and faults in the data train nothing."""

import json
import re
import shutil
import time
from datetime import datetime, timedelta

import e2e_shop
import httpx
import msgspec
import polars as pl
import pytest
from e2e_support import opened, run, start

from cumulant.flows.serving.predict import predict

pytestmark = pytest.mark.slow

LEARNED, BROKEN, LAST = (e2e_shop.START + timedelta(days=days) for days in (34, 44, 58))
RETRAIN = "monitoring: {retrain: {when: loss_confirmed, cool_down: 1d, history: {window: 18d}}}\n"
PROJECT = (
    e2e_shop.PROJECT.replace("trials: 3", "trials: 1")
    .replace("ensemble: 2", "ensemble: 1\n  trainers: [lightgbm]")
    .replace(
        "gate: {log_loss: {margin: 0.01}}",
        "gate: {log_loss: {margin: 5}, cost: {margin: 5}}\n  clusters: row\n  test: 5d",
    )
)


RELEASE = """
serving: {http: '127.0.0.1:0', log: {keep: 10000d}}  # the log is of 2024
release:
  look: 500ms
  block: 500ms
  stages: {shadow: null, ab: null, canary: {weights: [50%], at_least: 1s, soak: 1s, samples: 10}}
  metrics: {errors: {required: false}, timeouts: {required: false}, latency: {required: false, margin: 50}}
"""


def orders():
    """Twelve thousand orders, for an estimate needs a hundred or more a window; from BROKEN on those come back that would have stayed."""
    table = e2e_shop.orders(12_000)
    return table.with_columns(returned=pl.col("returned") ^ (pl.col("ordered") >= BROKEN))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A project whose champion learned before the change, with everything that it answered since and what became of it."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("watch") / "shop", project=PROJECT)
    table = orders()
    table[:6000].write_parquet(folder / "data" / "orders" / "a.parquet")
    table[6000:].write_parquet(folder / "data" / "orders" / "b.parquet")
    run(folder, "train", "--as-of", LEARNED.isoformat())
    asked = table.filter(pl.col("ordered").is_between(LEARNED, LAST) & (pl.col("amount") >= 0))
    with opened(folder) as project:
        answers = predict(project, project.name, asked.drop("returned"), principal=project.principal())
    sent = asked.drop("returned").with_columns(
        pl.format("r{}", "order").alias("id"),
        pl.col("ordered").alias("moment"),
        pl.lit("1").alias("version"),
        answers["prediction"],
        answers["probability"].alias("p"),
    )
    imported(folder, sent, "sent")
    asked.select(
        pl.format("r{}", "order").alias("id"), "returned", (pl.col("ordered") + timedelta(days=3)).alias("known_time")
    ).write_parquet(folder / "came-back.parquet")
    run(folder, "labels", "ingest", str(folder / "came-back.parquet"))
    return folder


def imported(folder, sent, name):
    sent.write_parquet(folder / f"{name}.parquet")
    parts = "id=id,time=moment,event_time=moment,prediction=prediction,score=p,version=version"
    run(folder, "labels", "import-predictions", str(folder / f"{name}.parquet"), "--map", parts)


def declared(shop, tmp_path, more):
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    # A later training has fewer days that are like those to come.
    (folder / "cumulant.yaml").write_text(PROJECT.replace("test: 5d", "test: 3d") + more)
    return folder


def champion(folder):
    with opened(folder) as project:
        return project.registry().resolve(f"{project.name}@champion").version


def look(folder, at, *words):
    return run(folder, "monitor", "watch", "--once", "--at", at.isoformat(), *words, codes=(0, 1))


def test_harm_that_labels_show_trains_again_and_the_new_model_is_watched_from_its_first_answer(shop, tmp_path):
    folder = declared(shop, tmp_path, RETRAIN)
    before = look(folder, BROKEN)
    assert before["harm"]["word"] != "worse"
    assert before["action"]["do"] == "nothing"
    assert before["retraining"] is None
    # Rows are compared up to then, too.
    with opened(folder) as project:
        (compared,) = project.journal().events(kinds=("monitoring.drift_evaluated",))
    assert compared.data["rows"] == sum(one["rows"] for one in before["windows"])
    # Labels take three days, so that the last windows are not judged; their loss is estimated all the same.
    assert datetime.fromisoformat(before["until"]) == BROKEN - timedelta(days=3)
    late = [one for one in before["windows"] if one["loss"] is None]
    assert len(late) == 3
    assert all(one["estimated"] is not None for one in late), before["notes"]
    assert all(one["refit"] is not None for one in before["windows"] if one["loss"] is not None)
    after = look(folder, LAST)
    assert (after["harm"]["word"], after["action"]["do"], after["action"]["trigger"]) == ("worse", "train", "harm")
    (loss,) = [one for one in after["findings"] if one["feature"] == "loss"]
    assert loss["retrained"]
    assert abs(datetime.fromisoformat(loss["since"]) - BROKEN) <= timedelta(days=3)
    assert loss["loss_measured"] > after["reference_loss"] * 1.5
    # Scores know nothing of a changed truth.
    assert loss["loss_estimated"] < loss["loss_measured"]
    assert (after["retraining"]["stage"], after["retraining"]["candidate"]) == ("released", "returns/2"), after[
        "retraining"
    ]["message"]
    assert champion(folder) == "2"
    # The next look is of the new version, which has answered nothing yet.
    process = start(folder, "monitor", "watch", "--once")
    told = json.loads(process.communicate(timeout=300)[0])
    assert process.returncode == 2
    assert "no prediction of returns/2" in told["error"]["error"]
    fired = run(folder, "alerts", "list")
    assert "loss" in json.dumps(fired)


def test_where_somebody_must_agree_the_alias_moves_by_hand(shop, tmp_path):
    folder = declared(shop, tmp_path, RETRAIN.replace("cool_down", "approval: release, cool_down"))
    found = look(folder, LAST)["retraining"]
    assert (found["stage"], found["candidate"]) == ("offered", "returns/2"), found["message"]
    assert champion(folder) == "1"
    (line,) = re.findall("`cumulant (.*)`", found["message"])
    run(folder, *line.split())
    assert champion(folder) == "2"


def test_where_somebody_must_agree_the_release_waits_though_the_project_asks_for_nobody(shop, tmp_path):
    folder = declared(shop, tmp_path, RETRAIN.replace("cool_down", "approval: release, cool_down") + RELEASE)
    told = run(folder, "up", "--detach")
    try:
        found = look(folder, LAST)["retraining"]
        assert found["stage"] == "released"
        assert "returns/2 is being released; it waits for `cumulant release approve`" in found["message"]
        row = msgspec.json.encode({**orders().row(0, named=True), "returned": None, "order": -1})
        waits = awaited(folder, told["url"], row, "awaiting_approval")
        assert "promote waits for an approval" in waits["reason"]
        assert champion(folder) == "1"
        assert run(folder, "release", "approve", "--reason", "seen")["status"] == "promoted"
        awaited(folder, told["url"], row, "promoted")
    finally:
        run(folder, "down")


def awaited(folder, url, row, status, seconds=90):
    """The release once it has that status, while callers ask."""
    deadline, path = time.monotonic() + seconds, f"{url}/v1/models/returns/predict"
    while True:
        for _ in range(20):
            assert httpx.post(path, content=row, headers={"content-type": "application/json"}).status_code == 200
        found = run(folder, "release", "status")
        if found["status"] == status:
            return found
        assert time.monotonic() < deadline, found


def test_without_a_rule_harm_is_told_and_nothing_is_trained(shop, tmp_path):
    folder = declared(shop, tmp_path, "")
    found = look(folder, LAST)
    assert (found["harm"]["word"], found["action"]["do"], found["retraining"]) == ("worse", "nothing", None)
    assert champion(folder) == "1"
    # A look that has seen nothing new judges no window twice.
    again = look(folder, LAST)
    assert (again["fresh"], again["until"]) == (0, found["until"])
    # What it has seen before holds until there is more: the alert goes on, and so does the exit code.
    assert again["harm"] == found["harm"]
    assert "loss" in [one["rule"] for one in run(folder, "alerts", "list")["alerts"]]
    # What comes after its window was judged is counted and told, not judged.
    assert again["late"] == {"rows": 0, "labels": 0}
    sent = pl.read_parquet(folder / "sent.parquet").head(40).with_columns(pl.format("late-{}", "id").alias("id"))
    imported(folder, sent, "late")
    known = sent.head(10).select("id", pl.lit(value=True).alias("returned"), known_time=pl.lit(LAST))
    known.write_parquet(folder / "known.parquet")
    run(folder, "labels", "ingest", str(folder / "known.parquet"))
    late = look(folder, LAST)
    assert (late["fresh"], late["late"], late["harm"]) == (0, {"rows": 40, "labels": 10}, found["harm"])


def test_a_version_that_comes_back_is_watched_on_from_where_it_was(shop, tmp_path):
    folder = declared(shop, tmp_path, "")
    before = look(folder, LAST)
    assert before["fresh"] > 20
    run(folder, "train", "--as-of", LEARNED.isoformat(), "--trials", "2", codes=(0, 1))
    run(folder, "models", "alias", "returns/2", "champion")
    sent = pl.read_parquet(folder / "sent.parquet").tail(2000)
    sent.with_columns(pl.lit("2").alias("version"), pl.format("again-{}", "id").alias("id")).write_parquet(
        folder / "again.parquet"
    )
    parts = "id=id,time=moment,event_time=moment,prediction=prediction,score=p,version=version"
    run(folder, "labels", "import-predictions", str(folder / "again.parquet"), "--map", parts)
    assert look(folder, LAST)["version"] == "2"
    run(folder, "models", "alias", "returns/1", "champion")
    after = look(folder, LAST)
    # A window is one bet of a test that holds at every look: judged again it would be another one.
    assert (after["version"], after["fresh"], after["until"]) == ("1", 0, before["until"])
    assert after["harm"] == before["harm"]


def test_windows_wait_for_labels_that_are_late(shop, tmp_path):
    folder = declared(shop, tmp_path, "")
    labels, aside = folder / ".cumulant" / "labels", tmp_path / "aside"
    labels.rename(aside)
    found = look(folder, LAST)
    assert (found["fresh"], found["harm"]) == (0, None)
    assert len(found["windows"]) > 20
    assert all(one["loss"] is None for one in found["windows"])
    shutil.rmtree(labels, ignore_errors=True)
    aside.rename(labels)
    later = look(folder, LAST)
    assert later["fresh"] == len(found["windows"]) - 3
    assert later["harm"]["word"] == "worse"


def test_what_validation_refuses_is_told_as_a_fault_and_not_learned_from(shop, tmp_path):
    folder = declared(shop, tmp_path, RETRAIN)
    broken = pl.read_parquet(folder / "data" / "orders" / "b.parquet").with_columns(
        order=pl.col("order") + 100_000, amount=-pl.col("amount").abs() - 1
    )
    broken.write_parquet(folder / "data" / "orders" / "c.parquet")
    found = look(folder, LAST)
    assert found["harm"]["word"] == "worse"
    assert found["action"]["do"] == "wait"
    assert "did not pass validation" in found["action"]["sentence"]
    assert found["retraining"] is None
    (fault,) = [one for one in found["findings"] if one["feature"] == "sources"]
    assert (fault["kind"], fault["retrained"]) == ("data_fault", False)
    assert champion(folder) == "1"
    assert "feed" in json.dumps(run(folder, "alerts", "list"))
    # Once the data are sound, what waited for them goes on, though no further window was judged.
    (folder / "data" / "orders" / "c.parquet").unlink()
    mended = look(folder, LAST)
    assert (mended["fresh"], mended["action"]["do"], mended["action"]["trigger"]) == (0, "train", "harm")
    assert mended["retraining"]["candidate"] == "returns/2"


def test_wrong_words_are_answered(shop):
    for words, said in (
        (("--at", "2024-02-01"), "--once"),
        (("--once", "--at", "soon"), "soon"),
        (("--every", "0s"), "no time between"),
    ):
        process = start(shop, "monitor", "watch", *words)
        told = json.loads(process.communicate(timeout=120)[0])["error"]
        assert process.returncode == 2, told
        assert said in json.dumps(told)


def test_a_tick_looks_and_says_so(shop, tmp_path):
    folder = declared(shop, tmp_path, "")
    jobs = {one["job"]: one for one in run(folder, "tick")["jobs"]}
    assert jobs["monitoring"]["outcome"] == "done"
    assert "version 1" in jobs["monitoring"]["sentence"]
    assert jobs["retraining"]["sentence"] == "no retraining is requested"
