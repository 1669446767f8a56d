"""The requirements of OWASP ASVS 5.0 in docs/reference/asvs.yaml: all of levels 1 and 2, and tests that exist."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "tools"))

import asvs

#: requirements of levels 1 and 2 in each section of each chapter of the standard
SECTIONS = {
    1: (2, 9, 11, 3, 2),
    2: (3, 3, 4, 1),
    3: (0, 2, 4, 6, 5, 0, 2),
    4: (3, 1, 2, 4),
    5: (1, 3, 2, 3),
    6: (3, 12, 4, 4, 5, 3, 0, 4),
    7: (3, 4, 2, 5, 2, 2),
    8: (2, 3, 1, 1),
    9: (3, 4),
    10: (2, 2, 4, 11, 5, 2, 3),
    11: (2, 3, 3, 4, 1, 1),
    12: (3, 2, 4),
    13: (1, 5, 2, 5),
    14: (2, 4, 3),
    15: (3, 3, 7),
    16: (1, 5, 4, 3, 3),
    17: (1, 4, 2),
}


@pytest.fixture(scope="module")
def requirements():
    return asvs.read_requirements()


def test_it_has_every_requirement_of_levels_1_and_2_once(requirements):
    assert Counter(each.level for each in requirements) == asvs.REQUIREMENTS
    assert len({each.id for each in requirements}) == 253
    of_sections = Counter(tuple(map(int, each.id.split(".")[:2])) for each in requirements)
    stated = {
        (chapter, number): count for chapter, of in SECTIONS.items() for number, count in enumerate(of, 1) if count
    }
    assert of_sections == stated


def test_each_named_test_exists(requirements):
    assert asvs.missing_tests(requirements) == []


def test_a_requirement_is_met_by_tests_and_any_other_has_a_reason(requirements):
    for each in requirements:
        assert each.status in asvs.STATUSES, each.id
        assert bool(each.tests) == (each.status == "met"), each.id
        assert bool(each.reason) == (each.status != "met"), each.id
        assert each.title, each.id


def test_a_test_that_does_not_exist_is_found(requirements):
    unknown = "tests/unit/security/test_asvs.py::test_that_does_not_exist"
    changed = [requirements[0]._replace(tests=(unknown,)), *requirements[1:]]
    assert asvs.missing_tests(changed) == [unknown]


def test_the_goal_of_each_level_is_reached(requirements):
    assert asvs.coverage(requirements, 1).tested >= 0.90
    assert asvs.coverage(requirements, 2).tested >= 0.75


def test_the_page_is_that_of_the_file():
    assert asvs.PAGE.read_text() == asvs.page()
