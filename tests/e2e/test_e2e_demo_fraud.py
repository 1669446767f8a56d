"""`cumulant demo-fraud`, small: payments from a topic to decisions through a spike, and the same features everywhere."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest
from e2e_support import start

from cumulant.flows.stack.status import read_status

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The folder and the document. A busy machine may miss the time that the demo promises, and nothing else."""
    folder = tmp_path_factory.mktemp("demo") / "fraud"
    process = start(folder.parent, "demo-fraud", "--dir", str(folder), "--customers", "40", "--day", "2")
    out, err = process.communicate(timeout=900)
    assert process.returncode in {0, 1}, out[-2000:] + err[-2000:]
    return folder, json.loads(out)


def test_no_request_fails_and_every_decision_is_the_same_offline(story):
    folder, document = story
    jsonschema.validate(document, json.loads(files("cumulant.cli").joinpath("demo_fraud.schema.json").read_text()))
    spike = document["spike"]
    assert 4 < spike["factor"] < 6
    assert spike["failed_requests"] == 0
    assert spike["mismatches"] == 0
    names = ["ordinary week", "spike", "after", "after faults", "topic gone"]
    assert [phase["name"] for phase in document["phases"]] == names
    assert spike["features_compared"] == 13 * spike["recomputed"]  # those of the card's and of the terminal's windows
    assert all(phase["failed_requests"] == 0 for phase in document["phases"])
    assert spike["recomputed"] == sum(phase["decisions"] for phase in document["phases"]) > 300
    assert spike["lag_recovered_seconds"] is not None
    assert all("p99" in sentence for sentence in document["missed"])
    status = read_status(folder / ".cumulant")
    assert status is None or not any(child.process for child in status.children)


def test_bad_messages_are_refused_alone_and_repeated_ones_change_nothing(story):
    faults = {fault["fault"]: fault for fault in story[1]["faults"]}
    refused = {name: fault["refused"] for name, fault in faults.items() if fault["refused"]}
    assert refused == {
        "no JSON object": 3,
        "an amount that no payment has": 2,
        "a field of another shape": 1,
        "a time without a zone": 1,
    }
    assert faults["a field that is new"]["rows"] == 1
    assert faults["payments sent again"]["rows"] == faults["payments sent again"]["messages"] > 100


def test_ingestion_that_cannot_go_on_ends_with_an_error_and_loses_nothing(story):
    outages = {outage["fault"]: outage for outage in story[1]["outages"]}
    assert {name: outage["exit_code"] for name, outage in outages.items()} == {
        "a consumer with another schema": 1,
        # nothing is played where a container may mount nothing
        "a full disk": None if outages["a full disk"]["answer"].startswith("not played") else 4,
        "a topic made anew": 2,
    }
    assert all(outage["committed"] == 0 for outage in outages.values())
    assert outages["a full disk"]["recovered"] == outages["a full disk"]["sent"] > 10


def test_labels_of_the_spike_retrain_the_model(story):
    retraining = story[1]["retraining"]
    assert retraining["labels"] > 200
    assert (retraining["before"]["version"], retraining["after"]["version"]) == ("card-fraud/1", "card-fraud/2")
    assert retraining["before"]["payments"] == retraining["after"]["payments"]
