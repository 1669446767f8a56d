"""The reference page names every path, metric and option of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulant.serving.__main__ import _parser
from cumulant.serving.protocol.paths import ROUTES
from cumulant.serving.telemetry.metrics import FAMILIES

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "server.md").read_text()


@pytest.mark.parametrize("template", [one.template for one in ROUTES if "{version}" not in one.template])
def test_paths(template):
    assert f"`{template}`" in PAGE


@pytest.mark.parametrize("name", list(FAMILIES))
def test_metrics(name):
    assert f"`{name}`" in PAGE
    (line,) = [
        line for line in PAGE.splitlines() if line.startswith("| `") and f"`{name}`" in line and "--" not in line
    ]
    assert all(label in line for label in FAMILIES[name].labels)


@pytest.mark.parametrize(
    "option", [one.option_strings[0] for one in _parser()._actions if one.option_strings and one.dest != "help"]
)
def test_options(option):
    assert f"`{option}" in PAGE
