"""The reference page names every path and option of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulant.serving.__main__ import _parser
from cumulant.serving.protocol.paths import ROUTES

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "server.md").read_text()


@pytest.mark.parametrize("template", [one.template for one in ROUTES if "{version}" not in one.template])
def test_paths(template):
    assert f"`{template}`" in PAGE


@pytest.mark.parametrize(
    "option", [one.option_strings[0] for one in _parser()._actions if one.option_strings and one.dest != "help"]
)
def test_options(option):
    assert f"`{option}" in PAGE
