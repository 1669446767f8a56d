"""A command line in this process, a folder with an odd name, and projects in it."""

from __future__ import annotations

import pytest
from wrong_input_support import FEATURES, PROJECT, Ended, table

from cumulant.cli.app import run


@pytest.fixture
def cumulant(capfd, monkeypatch):
    """Runs a command line in this process, by the same door as the console script."""
    monkeypatch.delenv("CUMULANT_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> Ended:
        capfd.readouterr()
        code = run([str(word) for word in words])
        found = capfd.readouterr()
        ended = Ended(code, found.out, found.err)
        assert "Traceback" not in ended.out + ended.err
        assert "run it again with --debug" not in ended.err  # what nobody foresaw
        return ended

    return call


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with spaces, quotes and other letters in its path, which is the working directory."""
    folder = tmp_path / "my prøject $HOME 'q'"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def project(here):
    """The orders as a project, `shop`."""
    (here / "orders.csv").write_text(table())
    (here / "shop").mkdir()
    (here / "shop" / "cumulant.yaml").write_text(PROJECT)
    (here / "shop" / "features.py").write_text(FEATURES)
    return here / "shop"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained project on the orders; its tests change nothing in it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "orders.csv").write_text(table())
    (folder / "shop").mkdir()
    (folder / "shop" / "cumulant.yaml").write_text(PROJECT.replace("    rules:", '    missing: ["?"]\n    rules:'))
    (folder / "shop" / "features.py").write_text(FEATURES)
    assert run(["train", "--quick", "--project", str(folder / "shop")]) == 0
    return folder / "shop"
