"""Rules of the port `registry`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cumulant.core.errors import NotFoundError, UsageError
from cumulant.ports.registry import About, Dataset, ModelVersion, Origin, Registry
from cumulant.testing.conformance.gaps import Suite
from cumulant.testing.conformance.objects import content_of

if TYPE_CHECKING:
    import pandas as pd


class RegistryConformance(Suite):
    """Give the fixtures `registry` (an empty one), `servable` (a folder it accepts) and `example` (its input)."""

    @pytest.fixture
    def registry(self) -> Registry:
        raise NotImplementedError

    @pytest.fixture
    def servable(self) -> Path:
        raise NotImplementedError

    @pytest.fixture
    def example(self) -> pd.DataFrame:
        raise NotImplementedError

    @pytest.fixture
    def first(self, registry: Registry, servable: Path, example: pd.DataFrame) -> ModelVersion:
        return register(registry, servable, example, key="one")

    def test_a_run_is_resumed_under_its_key(self, registry: Registry) -> None:
        with registry.run("flights", "train", key="k") as run:
            run.params({"trials": 30})
            run.metrics({"average_precision": 0.5})
            run.tags({"owner": "ada"})
            first = run.id
        with registry.run("flights", "train", key="k") as run:
            assert run.id == first
            run.metrics({"log_loss": 0.25})
        with registry.run("flights", "train", key="other") as run:
            assert run.id != first
        assert registry.metrics(first) == {"average_precision": 0.5, "log_loss": 0.25}

    def test_a_run_takes_its_origin_data_and_description(self, registry: Registry) -> None:
        origin = Origin(user="ada", command="cumulant train", begun=datetime(2026, 3, 1, tzinfo=UTC))
        data = Dataset(name="flights", digest="d" * 64, source="flights.csv", rows=3, fields={"distance": "float"})
        ids = set()
        for _ in range(2):
            with registry.run("flights", "train", key="k", origin=origin) as run:
                run.dataset(data)
                run.describe("**better** than naive")
                with run.child("trial 1", begun=origin.begun, seconds=2.5) as child:
                    child.metrics({"loss": 0.5})
            ids.add((run.id, child.id))
        assert len(ids) == 1

    def test_a_description_changes_nothing_else(
        self, registry: Registry, servable: Path, example: pd.DataFrame
    ) -> None:
        about = About(version="passed", model="Tells late flights")
        with registry.run("flights", "train", key="one") as run:
            version = registry.register(run, "flight-late", servable, example, tags={"a": "b"}, key="one", about=about)
        assert (version.version, version.tags.get("a")) == ("1", "b")
        assert register(registry, servable, example, key="one").version == "1"

    def test_children_are_runs(self, registry: Registry) -> None:
        with registry.run("flights", "train", key="k") as run:
            with run.child("trial 1") as child:
                child.metrics({"loss": 0.125}, step=1)
            assert child.id != run.id
        assert registry.metrics(child.id) == {"loss": 0.125}

    def test_artifacts(self, registry: Registry, tmp_path: Path) -> None:
        path = tmp_path / "plot.txt"
        path.write_text("x")
        with registry.run("flights", "train", key="k") as run:
            run.artifact(path, "plots")
        registry.attach(run.id, path)

    def test_a_version(self, registry: Registry, first: ModelVersion, servable: Path, tmp_path: Path) -> None:
        assert (first.name, first.version, first.aliases) == ("flight-late", "1", ())
        assert first.tags.items() >= {"verdict": "better"}.items()
        assert list(registry.models()) == ["flight-late"]
        fetched, given = content_of(registry.fetch(first, tmp_path / "into")), content_of(servable)
        # The description may contain the version of this copy; everything else is as it was given.
        assert fetched.pop("servable.json")
        assert given.pop("servable.json")
        assert fetched == given

    def test_a_model_s_files(self, registry: Registry, first: ModelVersion, servable: Path, tmp_path: Path) -> None:
        folder = registry.download("models:/flight-late/1", tmp_path / "into")
        assert folder.is_relative_to(tmp_path / "into")
        (described,) = folder.rglob("servable.json")
        assert content_of(described.parent) == content_of(servable)
        assert first.version == "1"
        for uri in ("models:/nope/1", "runs:/0123456789abcdef0123456789abcdef/model"):
            with pytest.raises(NotFoundError):
                registry.download(uri, tmp_path / "other")

    def test_a_key_registers_once(
        self, registry: Registry, first: ModelVersion, servable: Path, example: pd.DataFrame
    ) -> None:
        assert register(registry, servable, example, key="one").version == first.version
        assert register(registry, servable, example, key="two").version == "2"
        assert [version.version for version in registry.versions("flight-late")] == ["2", "1"]
        assert [version.version for version in registry.versions("flight-late", limit=1)] == ["2"]
        older = registry.versions("flight-late", before="2", limit=5)
        assert [(version.version, version.tags) for version in older] == [("1", registry.resolve("flight-late/1").tags)]
        assert not registry.versions("flight-late", before="1")
        for text in ("x", "-1", "9" * 30):
            with pytest.raises(UsageError):
                registry.versions("flight-late", before=text)

    def test_aliases_and_uris(
        self, registry: Registry, first: ModelVersion, servable: Path, example: pd.DataFrame
    ) -> None:
        second = register(registry, servable, example, key="two")
        registry.alias("flight-late", "champion", first.version)
        for uri in ("models:/flight-late@champion", "models:/flight-late/1", "flight-late@champion", "flight-late/1"):
            assert registry.resolve(uri).version == "1"
        assert registry.resolve("flight-late").version == second.version
        assert registry.resolve("flight-late@champion").aliases == ("champion",)
        registry.alias("flight-late", "champion", second.version)
        assert registry.resolve("flight-late@champion").version == "2"
        assert registry.resolve("flight-late/1").aliases == ()
        registry.alias("flight-late", "champion", None)
        with pytest.raises(NotFoundError):
            registry.resolve("flight-late@champion")

    @pytest.mark.usefixtures("first")
    @pytest.mark.parametrize("uri", ["nope", "models:/nope/1", "flight-late/9", "flight-late@nope", "a/b/c", ""])
    def test_names_that_are_not_there(self, registry: Registry, uri: str) -> None:
        with pytest.raises(NotFoundError):
            registry.resolve(uri)

    def test_tags(self, registry: Registry, first: ModelVersion) -> None:
        registry.tag(first.name, first.version, {"note": "a", "verdict": None})
        tags = registry.resolve("flight-late/1").tags
        assert tags["note"] == "a"
        assert "verdict" not in tags


def register(registry: Registry, servable: Path, example: pd.DataFrame, *, key: str) -> ModelVersion:
    with registry.run("flights", "train", key=key) as run:
        return registry.register(run, "flight-late", servable, example, tags={"verdict": "better"}, key=key)
