"""What a new model is measured against: the champion, on the same rows, from features as the champion knows them."""

import re
import shutil
import subprocess
import sys

import e2e_shop
import msgspec
import pytest
from e2e_support import opened

from cumulant.core.errors import LeaseHeldError
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.maintenance.cleanup import clean
from cumulant.flows.stack.desired_state import change_desired_state
from cumulant.flows.training.evaluate import evaluate
from cumulant.flows.training.train import train

pytestmark = pytest.mark.slow

#: one booster, so that a training with the champion's parameters alone makes the champion again
SINCE = e2e_shop.PROJECT.replace("  trials: 3\n", "  trials: 2\n  since: 2024-01-08\n").replace(
    "ensemble: 2", "ensemble: 1"
)
#: a feature of the same name means another thing, one is gone, one is new
OTHER = e2e_shop.FEATURES.replace('hour("UTC")', 'hour("Asia/Tokyo")').replace("kind_back", "kind_returned")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project with a champion, and what its training found."""
    folder = e2e_shop.make(tmp_path_factory.mktemp("champion") / "shop", project=SINCE)
    with opened(folder) as project:
        found = train(project, principal=project.principal())
    assert found.model.aliases == ("candidate", "champion")
    return folder, found


@pytest.fixture
def first(trained, tmp_path):
    """A copy of that project, to be changed."""
    shutil.copytree(trained[0], tmp_path / "shop")
    return tmp_path / "shop", trained[1]


def test_the_champion_answers_from_its_own_features(first):
    folder, champion = first
    (folder / "features.py").write_text(OTHER)
    with opened(folder) as project:
        who = project.principal()
        found = train(project, principal=who)
        assert found.model.version == "2"
        assert found.champion_uri == "models:/returns/1"
        against = {rule.metric: rule.reference for rule in found.verdict.rules if rule.against == "champion"}
        assert against
        # The same rows, so the same figures as when it was trained.
        for name, estimate in against.items():
            assert estimate.value == pytest.approx(champion.evaluation.metrics[name].value, abs=1e-6)
        again = evaluate(project, "returns/1", principal=who).judgement
        for name, value in champion.evaluation.values().items():
            assert again.evaluation.values()[name] == pytest.approx(value, abs=1e-6)


def test_a_model_that_answers_another_question_does_not_replace_the_champion_by_itself(first):
    folder, _ = first
    text = (folder / "cumulant.yaml").read_text()
    (folder / "cumulant.yaml").write_text(text.replace("target: returned\n", "target: returned and amount > 20\n"))
    with opened(folder) as project:
        found = train(project, principal=project.principal())
        assert found.verdict.passed
        assert found.champion_uri is None
        assert found.model.aliases == ("candidate",)
        assert not found.promoted
        assert project.registry().resolve("returns@champion").version == "1"
    assert any("answers another question, returned" in note for note in found.notes)
    assert any("stays the champion until the alias is moved by hand" in note for note in found.notes)


def test_a_champion_whose_column_is_gone_cannot_be_compared_with(first):
    folder, _ = first
    (folder / "features.py").write_text(e2e_shop.FEATURES.replace(', "express"', ""))
    text = (folder / "cumulant.yaml").read_text()
    (folder / "cumulant.yaml").write_text(
        text.replace(
            "    quarantine: 5%\n",
            "    quarantine: 5%\n    prepare: features.py:prepare\n    on_schema_change: accept\n",
        )
    )
    with (folder / "features.py").open("a") as stream:
        stream.write('\n\ndef prepare(raw):\n    return raw.drop("express")\n')
    with opened(folder) as project:
        found = train(project, principal=project.principal())
        assert found.champion_uri is None
        assert project.registry().resolve("returns@champion").version == "1"
    assert any("could not be compared with" in note and "express" in note for note in found.notes), found.notes


def later(text: str, day: int) -> str:
    """The project file with other training rows, which make another model."""
    return re.sub(r"since: 2024-01-\d+", f"since: 2024-01-{day:02}", text)


def test_where_releases_deliver_a_training_that_passes_is_the_candidate_alone(first):
    folder, _ = first
    path = folder / "cumulant.yaml"
    path.write_text(path.read_text().replace("{margin: 0.01}", "{margin: 10}"))
    with opened(folder) as project:
        found = train(project, principal=project.principal(), trials=1)
        assert (found.same_as, found.model.aliases) == ("returns/1", ()), "the champion made again"
    path.write_text(later(path.read_text(), 9))
    with opened(folder) as project:
        found = train(project, principal=project.principal(), trials=1)
        assert found.model.aliases == ("candidate", "champion")
        assert found.next == ()
    released = f"{later(path.read_text(), 10)}release: {{}}\n"
    path.write_text(released)
    words = [sys.executable, "-m", "cumulant.cli", "train", "--time", "1h", "--project", str(folder)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "models:/returns/4  candidate\n" in said
    start = f"cumulant release start --project {folder}; the alias champion moves when a release promotes version 4"
    assert f"next: cumulant up --project {folder}, then {start}\n" in said
    path.write_text(released.replace("release: {}\n", ""))
    with opened(folder) as project:
        change_desired_state(project.state, project.name, lambda book: msgspec.structs.replace(book, champion="3"))
        found = train(project, principal=project.principal(), trials=3)
        assert found.verdict.passed
        assert (found.model.aliases, found.next) == (("candidate",), ("release start",))
        assert project.registry().resolve("returns@champion").version == "3"
        project.registry().alias("returns", "champion", None)
        found = train(project, principal=project.principal(), trials=4)
        assert found.model.aliases == ("candidate", "champion")


def test_nothing_is_cleaned_beside_a_run(first):
    folder, found = first
    with opened(folder) as project:
        who = project.principal()
        listed = clean(project, principal=who)
        assert [item.kind for item in listed] == ["folder"]  # the search's own scratch
        with (
            open_run(project, "train", principal=who, progress=lambda *_: None),
            pytest.raises(LeaseHeldError, match="is in progress"),
        ):
            clean(project, principal=who, dry_run=False)
        assert clean(project, principal=who) == listed
        assert clean(project, principal=who, dry_run=False) == listed
        assert clean(project, principal=who) == []
        assert train(project, principal=who).model == found.model
