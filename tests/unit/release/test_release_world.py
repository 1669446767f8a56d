"""A world of simulated releases: what its file may hold, and what its errors say."""

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import msgspec
import pytest
from releases import policy_with

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.flows.release.simulation.world import Quality, ReleaseWorld
from cumulant.flows.release.simulation.world_loading import (
    DEFAULT,
    bundled_worlds,
    first_step,
    parse_world,
    policy_of,
    read_world,
    schema_text,
)
from cumulant.release.spec import ReleaseSpec

SCHEMA = json.loads(schema_text())


def world(**fields):
    return parse_world(json.dumps(fields).encode(), "w.json")


FULL = {
    "description": "everything",
    "expect": "broken",
    "traffic": {"requests_per_second": 20, "profile": [1] * 24, "release_hours": 2},
    "keys": {"count": 300, "zipf": 1.1, "heavy": [{"share": 0.2, "errors": 0.3, "latency_ratio": 2}]},
    "errors": {"champion": 0.01, "candidate": 0.05, "from_stage": "canary 95%"},
    "bursts": {"of": "shared", "cv": 1, "seconds": 60},
    "outages": [{"arm": "champion", "stage": "ab", "seconds": 60, "rate": 0.3}],
    "latency": {"median_ms": 30, "sigma": 0.4, "ar1": 0.9, "ratio": 1.2},
    "cold_start": {"seconds": 60, "latency_ratio": 3, "errors": 0.01},
    "quality": {
        "loss": 0.2,
        "loss_sd": 0.1,
        "rare_loss": {"share": 0.004, "size": 1.25},
        "day_sd": 0.01,
        "difference": 0.005,
        "label_delay": "7d",
        "labelled": "positives",
    },
    "scores": {"disagreement": 0.02, "shift": 0.01},
    "split": {"lost_share": 0.5, "from_stage": "canary"},
    "policy": {"alpha": "1%", "stages": {"shadow": None, "canary": {"soak": "5m"}}},
}


def test_every_field_is_read_and_fits_the_schema():
    found = world(**FULL)
    assert msgspec.to_builtins(found)["keys"]["heavy"][0] == {"share": 0.2, "errors": 0.3, "latency_ratio": 2.0}
    jsonschema.Draft202012Validator(SCHEMA).validate(FULL)
    assert set(SCHEMA["properties"]) == set(FULL) == set(ReleaseWorld.__struct_fields__)


def test_each_key_of_the_schema_is_described_and_no_other_is_allowed():
    for name, part in {"World": SCHEMA, **SCHEMA["$defs"]}.items():
        if "properties" in part:
            assert part["additionalProperties"] is False, name
            assert all(one.get("description") for one in part["properties"].values()), name


def test_the_schema_ships_in_the_package_and_in_the_documents():
    packaged = files("cumulant.flows.release.simulation") / "world.schema.json"
    page = Path(__file__).parents[3] / "docs" / "reference" / "release-world.schema.json"
    assert packaged.read_text() == page.read_text() == schema_text()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "w.json is not JSON"),
        ("[]", "w.json holds no JSON object"),
        ('{"expcet": "sound"}', 'unknown key "expcet"; did you mean "expect"?'),
        ('{"expect": "good"}', "expect may not be"),
        ('{"errors": {"champion": 1.5}}', "errors.champion: must be at most 1"),
        ('{"errors": {"champion": "1%"}}', "errors.champion must be a number"),
        ('{"traffic": {"profile": [1, 2]}}', "traffic.profile needs at least 24 items"),
        ('{"traffic": {"requests_per_second": 0}}', "traffic.requests_per_second: must be above 0"),
        ('{"traffic": {"release_hours": [24]}}', "traffic.release_hours.0: must be at most 23"),
        ('{"keys": {"heavy": [{"errors": 0.3}]}}', '"share" is missing in keys.heavy.0'),
        ('{"keys": {"heavy": [{"share": 0.6}, {"share": 0.5}]}}', "keys.heavy: their shares add up to 1.1"),
        ('{"quality": {"label_delay": "7 fortnights"}}', 'quality.label_delay: "7 fortnights" is not a duration'),
        ('{"outages": [{"arm": "both", "stage": "ab"}]}', "outages.0.arm may not be"),
        ('{"policy": {"stages": {"ab": {"wieght": "5%"}}}}', 'unknown key "wieght" in policy.stages.ab'),
        ('{"policy": {"alpha": "150%"}}', "policy.alpha"),
    ],
)
def test_a_fault_is_named_with_its_field(text, says):
    with pytest.raises(UsageError) as raised:
        parse_world(text.encode(), "w.json")
    assert says in raised.value.message
    assert raised.value.hint


def test_all_faults_are_named_at_once():
    with pytest.raises(UsageError) as raised:
        world(expect="good", errors={"champion": 2})
    assert "expect" in raised.value.message
    assert "errors.champion" in raised.value.message


def test_a_profile_of_zeros_is_refused():
    with pytest.raises(UsageError, match="no request comes"):
        world(traffic={"profile": [0] * 24})


@pytest.mark.parametrize("field", ["errors", "split"])
def test_a_stage_that_the_policy_lacks_is_refused_with_those_it_has(field):
    found = world(**{field: {"from_stage": "canary 99%"}})
    with pytest.raises(UsageError, match=r'from_stage: the release has no stage "canary 99%"') as raised:
        policy_of(found, ReleaseSpec())
    assert raised.value.hint == 'did you mean "canary 95%"?'
    with pytest.raises(UsageError, match=r"outages\.0\.stage"):
        policy_of(world(outages=[{"arm": "champion", "stage": "x"}]), ReleaseSpec())


def test_a_stage_is_its_first_step():
    every = policy_with().steps
    assert [every[first_step(every, name)].label for name in ("ab", "canary", "canary 50%")] == [
        "ab 10%",
        "canary 10%",
        "canary 50%",
    ]


def test_the_policy_replaces_keys_of_the_project_and_leaves_the_others():
    base = msgspec.convert({"alpha": "2%", "stages": {"canary": {"soak": "2h"}}}, ReleaseSpec)
    spec = policy_of(world(policy={"stages": {"shadow": None, "canary": {"weights": ["20%"]}}}), base)
    assert (spec.alpha, spec.steps[0].stage, spec.steps[-1].at_least) == (0.02, "ab", 7200)
    assert [step.weight for step in spec.steps if step.stage == "canary"] == [20]


def test_an_empty_section_of_the_policy_says_nothing():
    found = world(policy={"metrics": {"errors": None}, "ceilings": None})
    assert policy_of(found, ReleaseSpec()).ceilings == policy_with().ceilings


def test_a_policy_that_cannot_be_followed_is_refused():
    with pytest.raises(UsageError, match="no look ever ends"):
        policy_of(world(policy={"look": "0s"}), ReleaseSpec())
    with pytest.raises(UsageError, match="do not grow"):
        policy_of(world(policy={"stages": {"canary": {"weights": ["50%", "10%"]}}}), ReleaseSpec())


def test_bundled_worlds_are_valid_described_and_can_be_followed():
    assert DEFAULT in bundled_worlds()
    for name in bundled_worlds():
        found = read_world(name)
        text = (files("cumulant.datasets") / "worlds" / f"{name}.json").read_text()
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
        policy_of(found, ReleaseSpec())
        assert found.description.endswith("."), name
        assert found.expect == "any" or name == DEFAULT or found.policy, name
    assert not read_world(DEFAULT).policy


def test_a_name_that_is_nothing_lists_what_there_is(tmp_path, monkeypatch):
    with pytest.raises(NotFoundError) as raised:
        read_world("sounnd")
    assert raised.value.hint == 'did you mean "sound"?'
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sound").write_text('{"expect": "any"}')
    assert read_world("sound") == ReleaseWorld(expect="any")  # a file goes before a name


def test_what_is_left_out_is_a_sound_candidate():
    found = world()
    assert (found.quality, found.keys, found.errors.candidate) == (Quality(), None, None)
    assert world(quality=None).quality is None
    assert world(latency=None, errors=None, bursts=None) == found
