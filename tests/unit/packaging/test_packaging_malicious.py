"""Malicious model files: refused in words, whatever they claim."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import lightgbm
import numpy as np
import pytest
import xgboost
from foreign_models import network, save_external

from cumulant.core.errors import DataError, DefinitionError, IntegrityError
from cumulant.flows.backup.archive import read_archive
from cumulant.packaging.convert.boosters import check_text
from cumulant.packaging.convert.flavours import find_mlflow_model
from cumulant.packaging.convert.onnx_files import from_graph, read_graph
from cumulant.packaging.convert.xgboost_model import read_xgboost
from cumulant.packaging.graphs.xgboost_trees import XgboostTrees

BENCH = Path(__file__).parents[3] / "bench" / "packaging" / "malicious.py"
ROWS = np.random.default_rng(0).normal(size=(100, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def text():
    data = lightgbm.Dataset(ROWS, LABELS)
    return lightgbm.train(
        {"objective": "binary", "num_leaves": 4, "verbose": -1, "num_threads": 1}, data, 2
    ).model_to_string()


@pytest.fixture
def document():
    data = xgboost.DMatrix(ROWS, LABELS)
    settings = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1}
    return json.loads(xgboost.train(settings, data, 2).save_raw("json"))


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, "loop.bin"])
def test_a_path_that_no_file_can_have_is_outside(tmp_path, location):
    (tmp_path / "loop.bin").symlink_to("loop.bin")
    with pytest.raises(DataError, match="outside its folder") as caught:
        read_graph(save_external(network(), tmp_path / "net.onnx", location))
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("name", ['"a\\0b"', "x" * 5000])
def test_nor_does_an_mlflow_folder_have_it(tmp_path, name):
    (tmp_path / "MLmodel").write_text(f"flavors: {{lightgbm: {{data: {name}}}}}")
    with pytest.raises(DataError, match="outside its folder"):
        find_mlflow_model(tmp_path, trust_pickle=False)


def _wide(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2**40


def _twice(model):
    model.graph.output.append(model.graph.output[0])


def _long(model):
    model.graph.input[0].name = model.graph.node[0].input[0] = "x" * 100_000


@pytest.mark.parametrize(
    ("change", "words"), [(_wide, "more values"), (_twice, "2 outputs"), (_long, "100,000 letters")]
)
def test_a_graph_that_no_request_fits_is_refused(change, words):
    model = network()
    change(model)
    with pytest.raises(DefinitionError, match=words) as caught:
        from_graph(model)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("num_class=1", "num_class=0"),
        ("num_class=1", "num_class=-1"),
        ("num_class=1", "num_class=2"),
        ("num_tree_per_iteration=1", "num_tree_per_iteration=2"),
        ("num_cat=0", "num_cat=-1"),
        ("\nend of parameters", ""),
    ],
)
def test_a_lightgbm_text_that_lies_of_itself_is_refused(text, before, after):
    check_text(text, "model.txt")
    assert before in text
    with pytest.raises(DataError):
        check_text(text.replace(before, after, 1), "model.txt")


def _tree(document):
    return document["learner"]["gradient_booster"]["model"]["trees"][0]


def _texts(document):
    _tree(document)["split_conditions"][0] = "a"


def _categories(document):
    _tree(document)["categories_nodes"] = [0]


def _outputs(document):
    document["learner"]["learner_model_param"]["num_target"] = "1000000"


def _names(document):
    document["learner"]["feature_names"] = ["x" * 100_000, "b", "c"]


def _base(document):
    document["learner"]["learner_model_param"]["base_score"] = "x"


@pytest.mark.parametrize("change", [_texts, _categories, _outputs, _names, _base])
def test_an_xgboost_document_that_lies_is_refused(document, change):
    XgboostTrees(document)
    change(document)
    with pytest.raises(DataError):
        XgboostTrees(document)


def test_what_xgboost_cannot_read_is_refused_also_without_a_sample(tmp_path, document):
    document["learner"]["gradient_booster"]["model"]["gbtree_model_param"]["num_trees"] = "99"
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="XGBoost cannot read"):
        read_xgboost(tmp_path / "model.json")


def test_an_archive_with_a_sparse_member_is_refused(tmp_path):
    """It would fill the disk with zeros that it does not hold."""
    info = tarfile.TarInfo("files/a")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[156:157], raw[386:398], raw[398:410] = tarfile.GNUTYPE_SPARSE, b"00000001000\0", b"00000000000\0"
    raw[483:495], raw[148:156] = b"77777777777\0", b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    (tmp_path / "b.tar").write_bytes(bytes(raw) + bytes(1024))
    with pytest.raises(IntegrityError, match="sparse"):
        read_archive(tmp_path / "b.tar", lambda name, content: pytest.fail(name))


@pytest.mark.parametrize(("size", "words"), [(100_000, "no file of a project"), (2_000_000, "a header of 2,000,")])
def test_an_archive_with_an_endless_name_is_refused_in_short(tmp_path, size, words):
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("files/" + "x" * size))
    with pytest.raises(IntegrityError, match=words) as caught:
        read_archive(tmp_path / "b.tar", lambda name, content: pytest.fail(name[:10]))
    assert len(caught.value.message) < 400


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads peaks of memory from /proc")
def test_some_of_every_kind_through_the_commands():
    line = [sys.executable, str(BENCH), "--every", "193", "--processes", "1", "--limit", "100"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "0 with a violation" in done.stdout
