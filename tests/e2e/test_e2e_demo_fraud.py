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
    assert [phase["name"] for phase in document["phases"]] == ["ordinary week", "spike", "after", "after faults"]
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


def test_labels_of_the_spike_retrain_the_model(story):
    retraining = story[1]["retraining"]
    assert retraining["labels"] > 200
    assert (retraining["before"]["version"], retraining["after"]["version"]) == ("card-fraud/1", "card-fraud/2")
    assert retraining["before"]["payments"] == retraining["after"]["payments"]
