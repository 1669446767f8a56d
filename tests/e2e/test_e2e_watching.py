"""`cumulant monitor run` without a reference: the champion's log against what the champion was trained and tested on."""

import json
import shutil
import time

import e2e_shop
import polars as pl
import pytest
from e2e_support import opened, run, start

from cumulant.flows.serving.predict import predict
from cumulant.flows.serving.serve import prepare_service, run_server

pytestmark = pytest.mark.slow

PROJECT = (
    e2e_shop.PROJECT.replace("    key: order\n", "    key: order\n    personal: [customer, express]\n")
    .replace("trials: 3", "trials: 1")
    .replace("gate: {log_loss: {margin: 0.01}}", "gate: {log_loss: {max: 5}, cost: {margin: 5}}")
    .replace("time: null", "time: null\n  trainers: [lightgbm]")
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A trained project with two personal columns, one of which has two values."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("watching") / "shop", rows=3000, project=PROJECT)
    run(folder, "train", "--quick", codes=(0, 1))
    return folder


def last_orders(folder):
    """The last orders, which the model was tested on, as a caller would send them: texts and nulls left out."""
    files = [folder / "data" / "orders" / f"{name}.parquet" for name in ("a", "b")]
    rows = pl.concat([pl.read_parquet(path) for path in files]).filter(pl.col("amount") >= 0).drop("returned")
    return rows.sort("ordered").tail(600)


def imported(folder, rows, name="sent"):
    """The rows with the model's answers as a log of the version, from a text file."""
    with opened(folder) as project:
        answers = predict(project, project.name, rows, principal=project.principal())
    made = rows.with_columns(
        pl.col("ordered").dt.to_string("iso:strict"),
        pl.col("ordered").dt.to_string("iso:strict").alias("moment"),
        pl.format("r{}", "order").alias("id"),
        pl.lit("1").alias("version"),
        answers["prediction"],
        answers["probability"].alias("p"),
        express=pl.when("express").then(pl.lit("True")).otherwise(pl.lit("False")),
    )
    made.write_csv(folder / f"{name}.csv")
    parts = "id=id,time=moment,event_time=moment,prediction=prediction,score=p,version=version"
    run(folder, "labels", "import-predictions", str(folder / f"{name}.csv"), "--map", parts)


def test_rows_of_the_tested_period_as_they_were_served_alarm_nobody(shop, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    rows = last_orders(folder)
    with opened(folder) as project:
        with run_server(prepare_service(project, project.name, principal=project.principal())) as server:
            predict(project, project.name, rows, principal=project.principal(), url=server.url)
        log = project.state / "predictions"
        deadline = time.monotonic() + 60
        while not any(log.glob("date=*/*.parquet")):
            assert time.monotonic() < deadline, "nothing was logged"
            time.sleep(0.05)
    found = run(folder, "monitor", "run")
    assert found["findings"] == []
    assert found["rows"] == rows.height
    watched = {one["feature"]: one for one in found["columns"]}
    assert {"kind", "amount", "express", "answer.prediction", "answer.probability"} <= watched.keys()
    assert all(one["missing"] == 0 for one in watched.values()), watched
    assert found["only_in_reference"] == []


def test_an_imported_log_of_that_period_alarms_nobody_and_what_moves_is_named(shop, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    rows = last_orders(folder)
    imported(folder, rows)
    calm = run(folder, "monitor", "run")
    assert (calm["findings"], calm["rows"], calm["others"]) == ([], rows.height, 0)
    assert len(calm["windows"]) > 5
    assert calm["unread"] == ["order"]
    days = sorted((folder / ".cumulant" / "monitoring" / "profiles").glob("*/2024-*"))
    assert len(days) == len(calm["windows"])
    # The truth of the test rows is compared with labels by id, whatever the file calls them.
    files = [folder / "data" / "orders" / f"{name}.parquet" for name in ("a", "b")]
    known = pl.concat([pl.read_parquet(path) for path in files]).join(rows, on="order", how="semi")
    known.select(pl.format("r{}", "order").alias("id"), came_back="returned").write_csv(folder / "known.csv")
    told = run(folder, "monitor", "run", "--labels", str(folder / "known.csv"))
    assert (told["label"], told["label_key"], told["labelled"] > 500) == ("returned", ["id"], True)
    assert "returned" in {one["feature"] for one in told["columns"]}
    # A week later: another mix of a hashed column, and amounts that the model reads are lost.
    later = rows.with_columns(
        pl.col("ordered") + pl.duration(days=14),
        order=pl.col("order") + 100_000,
        amount=pl.when(pl.col("order") % 3 == 0).then(None).otherwise("amount"),
        express=pl.lit(value=True),
    )
    imported(folder, later, "later")
    moved = run(folder, "monitor", "run", codes=(1,))
    found = {(one["feature"], one["what"]) for one in moved["findings"]}
    assert {("express", "constant"), ("amount", "missing")} <= found
    assert all(not window["alarming"] for window in moved["windows"][: len(calm["windows"])])
    weights = {one["feature"]: one["weight"] for one in moved["findings"]}
    assert weights["amount"] > 0.1
    assert {path.name for path in days} < {path.name for path in days[0].parent.glob("2024-*")}
    # What the settings say of a weight wins.
    text = (folder / "cumulant.yaml").read_text()
    (folder / "cumulant.yaml").write_text(text + "monitoring: {drift: {weights: {express: 0, amount: 2}}}\n")
    told = {one["feature"]: one["weight"] for one in run(folder, "monitor", "run", codes=(1,))["findings"]}
    assert "express" not in told
    assert told["amount"] == 2


def test_a_version_that_answered_nothing_says_what_to_do(shop, tmp_path):
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    rows = last_orders(folder).head(30)
    rows.with_columns(pl.format("r{}", "order").alias("id"), p=0.5).write_csv(folder / "sent.csv")
    run(folder, "labels", "import-predictions", str(folder / "sent.csv"), "--map", "id=id,time=ordered,score=p")
    process = start(folder, "monitor", "run")
    told = json.loads(process.communicate(timeout=120)[0])["error"]
    assert process.returncode == 2
    assert "no prediction of returns/1 is in the log" in told["error"]
    assert "30 of other versions" in told["error"]
    assert "--reference" in told["hint"]
