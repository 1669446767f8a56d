"""Models, and the application that serves them over gRPC."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))


import pytest
from serving_models import servable
from tensor_models import write_double, write_echo, write_mixed

from cumulant.serving.app import ServingApplication
from cumulant.serving.models.model import ModelSet, open_model
from cumulant.serving.scheduling.runner import Scheduling


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("grpc")
    return {
        "echo": write_echo(root / "echo"),
        "mixed": write_mixed(root / "mixed"),
        "double": write_double(root / "double", version="3"),
        "flight-late": servable(root / "flight-late"),
    }


@pytest.fixture(scope="module")
def app(folders):
    models = [open_model(folder) for folder in folders.values()]
    yield ServingApplication(ModelSet(models))
    for model in models:
        model.close()


@pytest.fixture
def slow(folders):
    """Nothing runs on the event loop: requests wait for their turn."""
    model = open_model(folders["double"], scheduling=Scheduling(inline=0.0))
    yield ServingApplication(ModelSet([model]))
    model.close()
