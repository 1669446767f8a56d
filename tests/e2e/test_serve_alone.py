"""The data plane alone: `cumulant[serve]` in an environment of its own, a servable's folder, and a request."""

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from cumulant.core.expr import Column
from cumulant.core.plan import FeaturePlan, FeatureSpec, Field, Source
from cumulant.packaging.builder import build

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("pandas", "polars", "mlflow", "sklearn", "pydantic", "scipy", "lightgbm", "uvicorn")

pytestmark = pytest.mark.slow


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An environment with what `cumulant[serve]` needs, and nothing else."""
    home = tmp_path_factory.mktemp("alone")
    # Without a pip of its own, and without compiled modules: both take longer than what is tested here.
    run(sys.executable, "-m", "venv", "--without-pip", str(home / "venv"))
    found = home / "venv" / "bin" / "python"
    wheels = home / "wheels"
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(wheels),
        str(ROOT),
    )
    wheel = str(next(wheels.glob("cumulant-*.whl")))
    if shutil.which("uv"):
        install = ["uv", "pip", "install", "--quiet", "--python", str(found)]
    else:
        install = [sys.executable, "-m", "pip", "--python", str(found), "install", "--quiet", "--no-compile"]
        install.append("--disable-pip-version-check")
    run(*install, "--require-hashes", "-r", str(ROOT / "requirements" / "serve.txt"))
    run(*install, "--no-deps", wheel)
    return found


@pytest.fixture
def servable(tmp_path):
    import polars as pl

    from cumulant.training.dataset import training_set
    from cumulant.training.policy import TrainingPolicy
    from cumulant.training.search.search import search

    rng = np.random.default_rng(0)
    features = pl.DataFrame({"amount": rng.exponential(20, 400), "night": rng.random(400) < 0.3})
    target = pl.Series("target", (features["amount"].to_numpy() + 20 * features["night"].to_numpy()) > 30)
    spec = TrainingPolicy(target="late", trainers=["linear"], folds=2)
    rows = training_set(features, target, spec=spec)
    model = search(rows, spec).best
    fields = (Field("amount", "float"), Field("night", "bool"))
    plan = FeaturePlan(
        entity="tx",
        predict_at=None,
        sources={"tx": Source("tx", (), None, fields)},
        features=(
            FeatureSpec("amount", "float", expr=Column("amount")),
            FeatureSpec("night", "bool", expr=Column("night")),
        ),
        request=fields,
    )
    build(
        model,
        plan,
        name="tiny",
        sample=features,
        out=tmp_path / "tiny",
        lineage={},
        example={"amount": 12.5, "night": True},
    )
    expected = model.predict_frame(features.head(1))[0]
    return tmp_path / "tiny", dict(features.row(0, named=True)), expected


def test_nothing_heavy_is_installed(python):
    probe = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    assert run(str(python), "-c", probe, *ABSENT).strip() == "[]"


def test_it_answers_as_the_model_does(python, servable, tmp_path):
    folder, row, expected = servable
    ready = tmp_path / "ready.json"
    process = subprocess.Popen(
        [str(python), "-m", "cumulant.serving", str(folder), "--http", "127.0.0.1:0", "--ready-file", str(ready)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    try:
        for _ in range(600):
            if ready.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert ready.exists(), process.stderr.read().decode()
        url = json.loads(ready.read_text())["url"]
        request = urllib.request.Request(
            f"{url}/v1/models/tiny/predict", json.dumps(row).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.loads(response.read())
        probability = answer["answers"][0]["probability"] if "answers" in answer else answer["probability"]
        assert abs(probability - expected) < 1e-6
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stderr.close()


def test_its_command_line_says_what_is_missing(python, tmp_path):
    done = subprocess.run(
        [str(python.parent / "cumulant"), "train", "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
