"""Predictions in the log are queued, people answer, and their answers are labels and rows of the next training."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import e2e_shop
import polars as pl
import pytest
from e2e_support import check_whole, kill, opened, run, start, wait_for

from cumulant.flows.serving.predict import predict

PERSONAL = e2e_shop.PROJECT.replace("    key: order\n", "    key: order\n    personal: [order, customer]\n")
QUEUE = 'monitoring:\n  review: {budget: 24/day, slices: ["amount > 150"], second: 0%, weights: sampling}\n'


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A trained project whose every fourth order has no label; these are predicted, and lie in the log."""
    text = PERSONAL.replace("trials: 3", "trials: 1").replace("time: null", "time: null\n  trainers: [naive, linear]")
    folder = e2e_shop.make(tmp_path_factory.mktemp("review") / "shop", rows=1500, project=text + QUEUE)
    files = [folder / "data" / "orders" / f"{name}.parquet" for name in ("a", "b")]
    unknown = pl.col("order") % 4 == 0
    for path in files:
        table = pl.read_parquet(path)
        table.with_columns(pl.when(~unknown).then(pl.col("returned")).alias("returned")).write_parquet(path)
    run(folder, "train", codes=(0, 1))
    orders = pl.concat([pl.read_parquet(path) for path in files]).filter(unknown & (pl.col("amount") >= 0))
    rows = orders.drop("returned")
    with opened(folder) as project:
        answers = predict(project, project.name, rows, principal=project.principal())
    at = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    made = rows.with_columns(
        pl.col("ordered").dt.to_string("iso:strict"),
        pl.col("ordered").dt.to_string("iso:strict").alias("moment"),
        pl.format("r{}", "order").alias("id"),
        pl.lit(at).alias("at"),
        pl.lit("1").alias("version"),
        answers["prediction"],
        answers["probability"].alias("p"),
    )
    made.write_parquet(folder / "predictions.parquet")
    parts = "id=id,time=at,event_time=moment,prediction=prediction,score=p,version=version"
    run(folder, "labels", "import-predictions", str(folder / "predictions.parquet"), "--map", parts)
    shutil.copytree(folder, folder.with_name("twin"))
    return folder


def truth(folder):
    """What the shop would say: the orders as they were made, before labels were taken away."""
    return dict(e2e_shop.orders(1500).select(pl.format("r{}", "order"), "returned").rows())


@pytest.mark.slow
def test_answers_become_labels_and_rows_of_the_next_training(shop, monkeypatch, tmp_path):
    filled = run(shop, "review", "fill")
    assert (filled["added"], filled["waiting"], filled["remaining"]) == (24, 24, 0)
    assert filled["draw"]["sample"] == 5
    assert {"unsure", "sample"} <= set(filled["draw"]["reasons"])
    assert filled["draw"]["notes"] == []
    assert run(shop, "review", "fill")["draw"] is None

    monkeypatch.setenv("CUMULANT_USER", "ada")
    first = run(shop, "review", "next")
    assert (first["holder"], first["hidden"], first["answer"], first["labels"]) == (
        "user:ada",
        True,
        None,
        [False, True],
    )
    assert first["request"]["customer"].startswith("#")
    assert len(first["neighbours"]) == 3
    assert "customer" not in first["neighbours"][0]["row"]
    monkeypatch.setenv("CUMULANT_USER", "bob")
    assert run(shop, "review", "next")["id"] != first["id"]
    run(shop, "review", "decide", first["id"], "true", codes=(3,))
    monkeypatch.setenv("CUMULANT_USER", "ada")
    run(shop, "review", "decide", first["id"], "perhaps", codes=(2,))
    known = truth(shop)
    said = run(shop, "review", "decide", first["id"], str(known[first["request_id"]]).lower(), "--note", "by hand")
    assert (said["labelled"], said["case"]["status"], said["case"]["hidden"]) == (1, "done", False)
    assert "probability" in said["case"]["answer"]
    (label,) = run(shop, "labels", "list")
    assert (label["id"], label["label"], label["source"]) == (first["request_id"], known[first["request_id"]], "review")

    tasks = tmp_path / "tasks.json"
    run(shop, "review", "export", str(tasks))
    content = json.loads(tasks.read_text())
    assert len(content) == 23
    assert all("predictions" not in one for one in content)
    kept = tasks.read_text() + json.dumps(first)
    assert not [name for name in (f'"c{number:03d}"' for number in range(200)) if name in kept]
    exported = [annotated(one, known[one["meta"]["request"]]) for one in content]
    (tmp_path / "export.json").write_text(json.dumps(exported))
    taken = run(shop, "review", "import", str(tmp_path / "export.json"))
    # One case is bob's until his lease ends.
    assert (taken["decided"], taken["labelled"], len(taken["problems"])) == (22, 22, 1)
    again = run(shop, "review", "import", str(tmp_path / "export.json"))
    assert (again["decided"], again["again"], again["labelled"]) == (0, 22, 0)

    run(shop, "train", codes=(0, 1))
    told = run(shop, "review", "report")
    assert (told["queued"], told["done"], told["labelled"], told["waiting"]) == (24, 23, 23, 1)
    # Those of the test weeks are never judged by, nor learned from.
    assert 0 < told["used_for_training"] <= 23
    assert told["error"]["low"] <= told["error"]["value"] <= told["error"]["high"]
    with opened(shop) as project:
        check_whole(project)
    kinds = {one["kind"] for one in run(shop, "events", "list", "--last", "0")}
    assert {"review.queued", "review.moved", "review.closed", "review.labelled", "labels.ingested"} <= kinds
    assert run(shop, "models", "reproduce", "returns/2")["identical"]


def annotated(task, label):
    value = {"choices": [str(label).lower()]}
    result = [{"from_name": "decision", "to_name": "case", "type": "choices", "value": value}]
    return {**task, "annotations": [{"completed_by": 1, "result": result, "was_cancelled": False}]}


@pytest.mark.slow
def test_a_draw_that_is_killed_is_done_again_and_draws_the_same(shop):
    twin = shop.with_name("twin")
    process = start(twin, "review", "fill")
    with opened(twin) as project:
        wait_for(process, lambda: any(row.value["flow"] == "review fill" for row in project.journal().rows("run")))
        kill(process)
    again = run(twin, "review", "fill")
    with opened(twin) as project, opened(shop) as other:
        check_whole(project)
        cases = [row.key for row in project.journal().rows("review_case")]
        drawn = {row.key for kind in ("review_case", "review_closed") for row in other.journal().rows(kind)}
        assert len(project.journal().rows("review_draw")) == 1
    assert len(cases) == 24
    assert not drawn or drawn == set(cases)
    assert again["waiting"] == 24
