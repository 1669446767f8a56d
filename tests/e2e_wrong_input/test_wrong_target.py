"""Targets that gain or lose a class after a model was trained on them, and rare values among the classes."""

from __future__ import annotations

import pytest
from wrong_input_support import FEATURES, HEADER, PROJECT, orders, refused, table

from cumulant.cli.app import run

pytestmark = pytest.mark.slow

WORDS = ("no", "yes")


def labelled(count=300, *, words=WORDS, stray=0, value="unknown"):
    """Orders whose lateness is a word; every seventh of the first `stray` * 7 rows is another value."""
    rows = [(*row[:3], words[row[3]]) for row in orders(count)]
    for number in range(stray):
        rows[7 * number] = (*rows[7 * number][:3], value)
    return table(rows, header=HEADER)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A project whose candidate knows `no` and `yes`, and that has no rule for them."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "orders.csv").write_text(labelled())
    (folder / "shop").mkdir()
    (folder / "shop" / "cumulant.yaml").write_text(PROJECT)
    (folder / "shop" / "features.py").write_text(FEATURES)
    assert run(["train", "--quick", "--project", str(folder / "shop")]) == 0
    return folder / "shop"


@pytest.mark.parametrize("command", [["plan"], ["train", "--quick"]])
def test_a_stray_value_does_not_make_a_binary_target_multiclass_in_silence(cumulant, learned, command):
    (learned.parent / "orders.csv").write_text(labelled(stray=8))
    refused(
        cumulant(*command, "--project", learned),
        2,
        "was binary in",
        'is multiclass now: it has the new values "unknown" (8 rows)',
        "rules: {late: {in: [no, yes]}}",
        "training: {task: multiclass}",
    )
    (learned.parent / "orders.csv").write_text(labelled())


def test_a_stray_number_does_not_make_a_binary_target_a_regression(cumulant, project):
    assert cumulant("train", "--quick", "--project", project).code == 0
    (project.parent / "orders.csv").write_text(labelled(words=(0, 1), stray=1, value=9))
    refused(
        cumulant("plan", "--project", project), 2, "was binary in", "is regression now", "rules: {late: {in: [0, 1]}}"
    )


def test_a_declared_task_may_change_and_new_classes_are_named(cumulant, learned):
    file = learned / "cumulant.yaml"
    file.write_text(PROJECT + "  task: multiclass\n")
    (learned.parent / "orders.csv").write_text(labelled(stray=8))
    found = cumulant("plan", "--project", learned, "--json").document
    assert found["task"] == "multiclass"
    assert found["classes"]["unknown"] == 8
    assert [text.partition(" does not know")[2] for text in found["warnings"]] == [': "unknown" (8 rows)']
    file.write_text(PROJECT)
    (learned.parent / "orders.csv").write_text(labelled())


def test_plan_shows_the_classes_with_their_rows(cumulant, learned):
    shown = cumulant("plan", "--project", learned)
    counts = {word: sum(row[3] == place for row in orders()) for place, word in enumerate(WORDS)}
    assert f"no {counts['no']} · yes {counts['yes']}" in shown.out


@pytest.mark.parametrize(
    ("words", "rule"), [(WORDS, "late: {type: str, in: [no, yes]}"), ((0, 1), "late: {type: int, in: [0, 1]}")]
)
def test_a_new_project_names_the_classes_and_a_new_one_goes_to_quarantine(cumulant, here, words, rule):
    (here / "orders.csv").write_text(labelled(words=words))
    assert cumulant("new", "shop", "--from", "orders.csv", "--target", "late").code == 0
    assert rule in (here / "shop" / "cumulant.yaml").read_text()
    (here / "orders.csv").write_text(labelled(words=words, stray=2, value=7))
    shown = cumulant("plan", "--project", "shop")
    assert "are in quarantine and not learned from: " in shown.out
    assert '"7" (2 rows)' in shown.out
    (here / "orders.csv").write_text(labelled(words=words, stray=20, value=7))
    refused(cumulant("plan", "--project", "shop"), 1, "late:in (20)")


@pytest.mark.parametrize(
    ("words", "later", "value"), [((0, 1), (0, 1), "unknown"), (("1", "x"), (1, 1), 3), (("true", "false"), (1, 0), 2)]
)
def test_of_a_later_file_whose_values_read_as_another_type_only_strange_rows_are_refused(
    cumulant, here, words, later, value
):
    (here / "days").mkdir()
    (here / "days" / "1.csv").write_text(labelled(300, words=words))
    assert cumulant("new", "shop", "--from", "days", "--target", "late").code == 0
    assert cumulant("plan", "--project", "shop").code == 0
    (here / "days" / "2.csv").write_text(labelled(300, words=later, stray=2, value=value).replace("id0", "later0"))
    shown = cumulant("plan", "--project", "shop")
    assert shown.code == 0, shown.err
    assert f'are in quarantine and not learned from: "{value}" (2 rows)' in shown.out


def test_a_class_that_the_rule_leaves_out_or_takes_in_is_a_declared_change(cumulant, here):
    (here / "orders.csv").write_text(labelled(1000, stray=7))
    assert cumulant("new", "shop", "--from", "orders.csv", "--target", "late").code == 0
    assert cumulant("train", "--quick", "--project", "shop").code == 0
    file = here / "shop" / "cumulant.yaml"
    written = file.read_text()
    file.write_text(written.replace("in: [no, unknown, yes]", "in: [no, yes]"))  # as the warning says
    shown = cumulant("plan", "--project", "shop")
    assert shown.code == 0, shown.err
    assert "has no row of classes that models:/shop/1 knows: unknown" in shown.out
    file.write_text(written)
    (here / "orders.csv").write_text(labelled(1000))
    refused(cumulant("plan", "--project", "shop"), 2, "was multiclass in", "no row has unknown any more")


def test_a_new_project_warns_of_a_rare_class(cumulant, here):
    (here / "orders.csv").write_text(labelled(1000, stray=7))
    made = cumulant("new", "shop", "--from", "orders.csv", "--target", "late")
    said = 'warning: the class "unknown" of the target late has 7 of 1,000 rows: if it is no class'
    assert said in made.out
    assert said in cumulant("plan", "--project", "shop").out


def test_a_new_project_warns_of_a_stray_number_among_two_classes(cumulant, here):
    (here / "orders.csv").write_text(labelled(words=(0, 1), stray=1, value=9))
    made = cumulant("new", "shop", "--from", "orders.csv", "--target", "late")
    assert "late has 3 values, so it is learned as a number, but nearly all are 0, 1" in made.out
