"""Tasks and annotations in Label Studio's JSON."""

import json
import re
from xml.etree import ElementTree as ET

import pytest

from cumulant.core.errors import DataError
from cumulant.review import label_studio

#: an export as Label Studio writes it, shortened to the fields of its documentation that matter here
EXPORT = [
    {
        "id": 1,
        "data": {"case": "aa11", "amount": 3},
        "project": 1,
        "annotations": [
            {
                "id": 7,
                "completed_by": {"id": 1, "email": "ada@example.com"},
                "was_cancelled": False,
                "lead_time": 2.5,
                "result": [
                    {
                        "id": "x",
                        "from_name": "decision",
                        "to_name": "case",
                        "type": "choices",
                        "value": {"choices": ["true"]},
                    },
                    {
                        "id": "y",
                        "from_name": "note",
                        "to_name": "case",
                        "type": "textarea",
                        "value": {"text": ["looks worn"]},
                    },
                ],
            },
            {"id": 8, "completed_by": 2, "was_cancelled": True, "result": []},
        ],
    },
    {"id": 2, "data": {"case": "bb22"}, "annotations": [{"completed_by": 2, "result": []}]},
    {
        "id": 3,
        "data": {"amount": 1},
        "annotations": [{"result": [{"from_name": "decision", "value": {"choices": ["true"]}}]}],
    },
    {
        "id": 4,
        "data": {"case": "cc33"},
        "annotations": [{"result": [{"from_name": "decision", "value": {"choices": ["perhaps"]}}]}],
    },
]


def test_annotations_become_decisions_skips_and_problems():
    found = label_studio.read_annotations(json.dumps(EXPORT).encode(), (False, True), "export.json")
    first, cancelled, *wrong = found
    assert (first.case, first.reviewer, first.label, first.note) == ("aa11", "ada@example.com", True, "looks worn")
    assert (cancelled.skipped, cancelled.reviewer) == (True, "2")
    assert [one.problem for one in wrong] == [
        'no answer in the control "decision"',
        "a task has no data.case",
        '"perhaps" is none of false, true',
    ]


def test_the_reduced_form_and_numbers_are_read_too():
    small = [{"id": 5, "case": "dd", "decision": "b", "annotator": 3}]
    (found,) = label_studio.read_annotations(json.dumps(small).encode(), ("a", "b"), "x")
    assert (found.case, found.label, found.reviewer) == ("dd", "b", "3")
    # As version 1.23.2 writes numbers and notes there.
    numbers = [{"case": "aa", "decision": [{"number": 3}], "note": {"text": ["x", "y"]}, "annotator": 1}]
    numbers += [{"case": "bb", "decision": "b", "note": "seen", "annotator": 1}, {"case": "cc", "decision": []}]
    first, second, wrong = label_studio.read_annotations(json.dumps(numbers).encode(), (), "x")
    assert (first.label, first.note, first.reviewer) == (3, "x y", "1")
    assert (second.label, second.note) == ("b", "seen")
    assert "no answer" in wrong.problem
    value = {"from_name": "decision", "type": "number", "value": {"number": 2.5}}
    tasks = [{"data": {"case": "ee"}, "annotations": [{"result": [value]}]}]
    assert label_studio.read_annotations(json.dumps(tasks).encode(), (), "x")[0].label == 2.5


def test_what_is_no_export_is_refused():
    for content in (b"", b"{}", b"[1]", b"\xff"):
        with pytest.raises(DataError, match="no export of Label Studio"):
            label_studio.read_annotations(content, (), "x")


@pytest.mark.parametrize(("classes", "answer"), [((False, True), True), (("a", "b"), "b"), ((), 2.5)])
def test_a_task_annotated_as_predicted_comes_back_as_that_decision(classes, answer):
    task = label_studio.build_task(
        "aa", {"amount": 1, "case": "no"}, classes=classes, meta={"model": "m"}, answer=answer, score=0.5
    )
    assert task["data"] == {"case": "aa", "amount": 1, "case_": "no"}
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.5
    back = [{**task, "annotations": [{"result": prediction["result"]}]}]
    (found,) = label_studio.read_annotations(json.dumps(back).encode(), classes, "x")
    assert (found.case, found.label, found.problem) == ("aa", answer, "")
    assert "predictions" not in label_studio.build_task("aa", {}, classes=classes, meta={})


def test_the_interface_is_xml_with_a_control_for_the_decision():
    root = ET.fromstring(label_studio.build_interface(label_studio.choose_keys(['a "b" & c']), (False, True)))
    assert [one.get("value") for one in root.iter("Choice")] == ["false", "true"]
    assert root.find("Choices").get("toName") == root.findall("Text")[0].get("name") == "case"
    assert ET.fromstring(label_studio.build_interface({}, ())).find("Number").get("name") == "decision"


def test_fields_go_under_keys_that_its_server_can_read():
    names = ["a b", "a_b", "a.b", "é", "", "id", "decision", "cost $"]
    keys = label_studio.choose_keys(names)
    assert list(keys) == names
    assert len(set(keys.values())) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", key) for key in keys.values())
    assert {"case", "id", "decision", "note"}.isdisjoint(keys.values())
    values = {"a b": None, "a_b": {"x": [1]}, "a.b": [1, None], "é": True, "": 2.5, "id": "t"}
    data = label_studio.build_task("aa", values, classes=(), meta={}, fields=keys)["data"]
    assert data == {
        "case": "aa",
        **dict(zip(keys.values(), ["", '{"x":[1]}', "[1,null]", True, 2.5, "t", "", ""], strict=True)),
    }
    shown = [one.get("value") for one in ET.fromstring(label_studio.build_interface(keys, ())).iter("Text")]
    assert [re.findall(r"\$(\w*)", text) for text in shown] == [["case"], *([key] for key in keys.values())]
