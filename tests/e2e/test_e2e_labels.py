"""Predict over a real server of several workers, tell it what became of the rows, and read the join."""

import json
import time
import urllib.request
from datetime import timedelta

import e2e_shop
import pytest
from e2e_support import run

from cumulant.flows.outcomes.labels import outcomes_of
from cumulant.flows.serving.serve import prepare_service, run_server
from cumulant.project.file.loading import load

ASKED = e2e_shop.START + timedelta(days=61)
PERSONAL = e2e_shop.PROJECT.replace("    key: order\n", "    key: order\n    personal: [order, customer]\n")


def ask(url, path, body, name=None):
    headers = {"content-type": "application/json"} | ({"x-request-id": name} if name else {})
    with urllib.request.urlopen(
        urllib.request.Request(url + path, json.dumps(body).encode(), headers), timeout=30
    ) as found:
        return json.loads(found.read())


def order(number):
    return {
        "order": number,
        "ordered": (ASKED + timedelta(minutes=number % 50)).isoformat(),
        "customer": "c001",
        "kind": "hat",
        "amount": 5.0,
        "express": True,
    }


@pytest.mark.slow
def test_labels_posted_and_read_from_a_file_join_what_a_server_answered(tmp_path):
    text = PERSONAL.replace("trials: 3", "trials: 1") + "serving: {workers: 2}\n"
    folder = e2e_shop.make(tmp_path / "shop", rows=1500, project=text)
    run(folder, "train", codes=(0, 1))
    with load(folder) as project:
        service = prepare_service(project, project.name, principal=project.principal())
        with run_server(service) as server:
            path = f"/v1/models/{project.name}/predict"
            for number in range(20):
                assert "prediction" in ask(server.url, path, order(100_000 + number), f"r{number}")
            ask(server.url, path, {"rows": [order(200_000), order(200_001)]}, "two")
            told = [{"id": f"r{number}", "label": number % 2 == 0} for number in range(5)]
            told += [{"id": "two", "row": 1, "label": True}, {"id": "never-asked", "label": True}]
            assert ask(server.url, "/v1/labels", {"labels": told, "batch": "b1"}) == {"accepted": 7, "duplicates": 0}
            assert ask(server.url, "/v1/labels", {"labels": told, "batch": "b1"}) == {"accepted": 0, "duplicates": 7}
            keyed = [f"{100_000 + n},{order(100_000 + n)['ordered']},true,2024-03-20T00:00:00Z" for n in range(10, 14)]
            (tmp_path / "back.csv").write_text("order,ordered,returned,known_time\n" + "\n".join(keyed) + "\n")
            first = run(folder, "labels", "ingest", str(tmp_path / "back.csv"))
            assert [(one["name"], one["rows"], one["problems"]) for one in first["sources"]] == [
                ("back.csv", 4, {}),
                ("posted", 7, {}),
            ]
            deadline = time.monotonic() + 60
            labelled = first["labelled"]
            while labelled < 10 and time.monotonic() < deadline:
                time.sleep(1)
                again = run(folder, "labels", "ingest", str(tmp_path / "back.csv"))
                labelled += again["labelled"]
                assert again["sources"][0]["again"]
        assert labelled == 10
        found, _ = outcomes_of(project).labelled()
        assert sorted(found.select("id", "row", "value").rows()) == sorted(
            [(f"r{n}", 0, float(n % 2 == 0)) for n in range(5)]
            + [("two", 1, 1.0)]
            + [(f"r{n}", 0, 1.0) for n in range(10, 14)]
        )
        assert found["score"].is_between(0, 1).all()
    told = run(folder, "labels", "report")
    assert (told["predictions"], told["labelled"], told["unmatched"], told["rows"]) == (22, 10, 1, 11)
    (cohort,) = told["cohorts"]
    assert (cohort["model"], cohort["share"]) == ("returns", pytest.approx(10 / 22))
    shown = run(folder, "labels", "show", "two")
    assert [(one["row"], one["label"], one["provenance"]) for one in shown["predictions"]] == [
        (0, None, "none"),
        (1, True, "labelled"),
    ]
    kept = b"".join(file.read_bytes() for file in (folder / ".cumulant" / "labels").rglob("*") if file.is_file())
    assert b"100010" not in kept
    kinds = [one["kind"] for one in run(folder, "events", "list", "--last", "0")]
    assert kinds.count("labels.ingested") == 2
    assert "labels.joined" in kinds
