"""What a project file and a command line say together of the cache that servers share."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from cumulant.flows.serving.serve import PreparedService, folders_command, server_command
from cumulant.ports.registry import ModelVersion
from cumulant.serving.spec import ServingSpec

OURS, THEIRS = "valkey://127.0.0.1:6379/0", "rediss://cache.internal/1"


def said(line, option):
    return [value for name, value in pairwise(line) if name == option]


@pytest.mark.parametrize(
    ("declared", "wished", "cache"),
    [
        ({}, (), ["auto"]),
        ({"cache": "on"}, (), ["on"]),
        ({"shared_cache": OURS}, (), ["auto", OURS]),
        ({"shared_cache": OURS, "cache": "on"}, (THEIRS,), ["on", THEIRS]),
        ({"shared_cache": OURS}, ("on",), ["on", OURS]),
        ({"shared_cache": OURS}, ("off",), ["off"]),
        ({}, ("on", THEIRS), ["on", THEIRS]),
    ],
)
def test_the_command_line_goes_before_the_file(declared, wished, cache):
    version = ModelVersion(
        name="late", version="1", uri="models:/late/1", run_id=None, created=datetime(2026, 1, 1, tzinfo=UTC)
    )
    service = PreparedService(model=version, folder="m", uses="u", log="l", settings=ServingSpec(**declared))
    line = server_command(service, http="127.0.0.1:0", given={"cache": wished})
    assert said(line, "--cache") == cache
    assert said(line, "--cache-budget") == ["5ms"]
    assert said(server_command(service, http="127.0.0.1:0", given={"cache_budget": "9ms"}), "--cache-budget") == ["9ms"]


def test_folders_are_served_with_what_is_wished():
    line = folders_command(["m"], http="127.0.0.1:0", given={"cache": ("on", OURS)})
    assert said(line, "--cache") == ["on", OURS]
    assert said(folders_command(["m"], http="127.0.0.1:0", given={}), "--cache") == []
