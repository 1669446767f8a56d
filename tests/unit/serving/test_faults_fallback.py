"""The fallback's servable is what it was when the server started, whatever becomes of its folder meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving_graphs import scale
from test_faults_processes import within, workers
from test_serving_fleet import children, serving

from cumulant.core.errors import CumulantError, IntegrityError, NotFoundError
from cumulant.serving.models.artifact_cache import pin_fallback
from cumulant.serving.models.request_work import RequestWork
from cumulant.serving.settings import FallbackConfig, Settings
from cumulant.serving.workers.opening import ModelOpener

LOAD = "/v2/repository/models/graph/load"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "kept"))
    scale(tmp_path / "models" / "graph")
    cheap = scale(tmp_path / "cheap", 10.0, name="cheap")
    return Settings(folders=(str(tmp_path / "models"),), fallback=FallbackConfig(servable=str(cheap)))


def total(settings):
    """What the fallback answers to a row of ones, in a server or worker that has just opened its models."""
    opening = ModelOpener(settings)
    model = opening(Path(settings.folders[0]) / "graph")
    raw = model.fallback.raw(RequestWork({"x": np.ones((1, 3), np.float32)}, 1))
    opening.close()
    return float(raw[1][0])


def half_copied(folder):
    """The new graph stands there, its description does not yet."""
    draft = scale(folder.parent / "draft", 20.0, name="cheap")
    shutil.copyfile(draft / "model.onnx", folder / "model.onnx")


@pytest.mark.parametrize("change", [half_copied, shutil.rmtree, lambda folder: scale(folder, 20.0, name="cheap")])
def test_what_is_opened_later_answers_as_what_was_opened_first(settings, change):
    with pin_fallback(settings) as pinned:
        assert total(pinned) == 30.0
        change(Path(settings.fallback.servable))
        assert total(pinned) == 30.0
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_where_nothing_can_be_kept_changed_content_is_not_taken(settings, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(Path(tempfile.gettempdir()) / "none"))
    with pin_fallback(settings) as pinned:
        assert "cannot be copied" in capsys.readouterr().err
        assert total(pinned) == 30.0
        scale(Path(settings.fallback.servable), 20.0, name="cheap")
        with pytest.raises(IntegrityError, match="no longer holds the content") as caught:
            total(pinned)
    assert "start the server again" in caught.value.hint


@pytest.mark.parametrize(("change", "error"), [(half_copied, IntegrityError), (shutil.rmtree, NotFoundError)])
def test_a_fallback_that_is_broken_at_the_start_is_named(settings, change, error):
    change(folder := Path(settings.fallback.servable))
    with pytest.raises(CumulantError, match=str(folder)) as caught, pin_fallback(settings):
        pass
    assert type(caught.value) is error


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_loads_and_workers_that_start_again_do_not_read_its_folder(tmp_path, count):
    scale(tmp_path / "models" / "graph", 2.0)
    cheap = scale(tmp_path / "cheap", 10.0, name="cheap")
    options = ["--workers", count, "--model-control", "explicit", "--fallback", f"servable={cheap}"]
    with serving(tmp_path / "models", *options) as (process, ready):
        half_copied(cheap)
        assert httpx.post(ready["url"] + LOAD, timeout=60).status_code == 200
        if count > 1:
            victim = children(process)[0]
            os.kill(victim, signal.SIGKILL)
            within(60, lambda: victim not in children(process) and workers(ready["url"]) == 2)
