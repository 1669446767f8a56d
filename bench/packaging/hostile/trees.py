"""LightGBM texts and XGBoost documents that lie."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from hostile.case import Case, content


def _rows() -> tuple[np.ndarray, np.ndarray]:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    return rows, (rows[:, 0] + rows[:, 1] * rows[:, 2] > 0).astype(int)


@cache
def lightgbm_text() -> str:
    import lightgbm

    rows, labels = _rows()
    settings = {"objective": "binary", "num_leaves": 5, "verbose": -1, "num_threads": 1, "deterministic": True}
    return str(lightgbm.train(settings, lightgbm.Dataset(rows, labels), 3).model_to_string())


@cache
def xgboost_raw(form: str) -> bytes:
    import xgboost

    rows, labels = _rows()
    settings = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1}
    return bytes(xgboost.train(settings, xgboost.DMatrix(rows, labels), 3).save_raw(form))


def _lightgbm() -> Iterator[Case]:
    text = lightgbm_text()
    lies = {
        "num_leaves": ("0", "-1", "1", "6", "2147483647", "99999999999999999999", "x", ""),
        "left_child": ("0 0 0 0", "1 2 3 0", "1 1 1 1", "9 9 9 9", "-9 -9 -9 -9", "1", "", "2147483648 1 2 3"),
        "split_feature": ("3 3 3 3", "-1 -1 -1 -1", "99999999 0 0 0", "0.5 0 0 0", ""),
        "threshold": ("a b c d", "1e999 1 1 1", "1", ""),
        "decision_type": ("1 1 1 1", "255 255 255 255", "x x x x"),
        "leaf_value": ("", "1 2", "nan nan nan nan nan", "a a a a a"),
        "num_class": ("0", "-1", "2", "2147483647"),
        "num_tree_per_iteration": ("0", "-1", "2", "1000000000"),
        "max_feature_idx": ("0", "-1", "1000000000", "x"),
        "feature_names": ("", "a b", "a " * 100_000, "\x1b[31m <script> ../../x"),
        "objective": (
            "",
            "binary sigmoid:0",
            "binary sigmoid:nan",
            "lambdarank",
            "custom",
            "regression sqrt",
            "multiclass num_class:2147483647",
        ),
        "num_cat": ("1", "-1", "999999999"),
        "label_index": ("-5",),
        "tree_sizes": ("1 1 1", "99999999999 1 1", "-1 -1 -1"),
        "version": ("v0", "v999"),
        "is_linear": ("1",),
    }
    soft = {
        "threshold",
        "leaf_value",
        "objective",
        "feature_names",
        "label_index",
        "version",
        "tree_sizes",
        "num_leaves",
        "num_cat",
        "decision_type",
        "num_class",
        "num_tree_per_iteration",
        "is_linear",
    }
    for key, values in lies.items():
        for value in values:
            changed = re.sub(rf"^{key}=.*$", lambda _, k=key, v=value: f"{k}={v}", text, count=1, flags=re.MULTILINE)
            yield content(f"LightGBM: {key}={value[:20]!a}", changed.encode(), file="model.txt", mutated=key in soft)
    for key in ("feature_infos", "leaf_count", "internal_value", "tree_sizes", "split_gain"):
        changed = re.sub(rf"^{key}=.*\n", "", text, flags=re.MULTILINE)
        yield content(f"LightGBM: no {key}", changed.encode(), file="model.txt", mutated=True)
    raw, chance = text.encode(), random.Random(14)
    for number in range(10):
        size = 5 + (len(raw) - 10) * number // 9
        yield content(f"LightGBM cut at {size}", raw[:size], file="model.txt", mutated=True)
    for number in range(15):
        found = bytearray(raw)
        for _ in range(chance.choice((1, 3, 20))):
            found[chance.randrange(len(found))] = chance.choice(b"0123456789-=. \n\0\xff")
        yield content(f"LightGBM with bytes changed, {number}", bytes(found), file="model.txt", mutated=True)
    many = "tree\nversion=v4\nnum_class=1\n" + "Tree=0\n" * 300_000 + "\nend of trees\n"
    yield content("LightGBM: 300,000 empty trees", many.encode(), file="model.txt")
    yield content(
        "LightGBM: 5,000 digits", text.replace("num_leaves=5", "num_leaves=" + "5" * 5000, 1).encode(), file="model.txt"
    )


Path = tuple[str | int, ...]
_MODEL: Path = ("learner", "gradient_booster", "model")
_TREE: Path = (*_MODEL, "trees", 0)


def _set(document: Any, path: Path, value: Any) -> bytes:
    found = copy.deepcopy(document)
    place = found
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(found).encode()


def _xgboost_lies() -> dict[Path, tuple[Any, ...]]:
    return {
        (*_TREE, "left_children"): (
            [0] * 7,
            [1, 0, 0, -1, -1, -1, -1],
            [99] * 7,
            [-2] * 7,
            [],
            [1],
            "x",
            {},
            None,
            [2**40] * 7,
        ),
        (*_TREE, "split_indices"): ([99] * 7, [-1] * 7, [2**40] * 7, ["a"] * 7, [0.5] * 7),
        (*_TREE, "split_conditions"): (["a"] * 7, [1e300] * 7, [], [None] * 7),
        (*_TREE, "default_left"): ([7] * 7, [], ["x"] * 7),
        (*_TREE, "tree_param", "num_nodes"): ("99999999", "-1", "0", "x"),
        (*_TREE, "tree_param", "size_leaf_vector"): ("5", "2147483647", "x"),
        (*_TREE, "categories_nodes"): ([0], [99], [-1], "x"),
        (*_TREE, "split_type"): ([1] * 7, [99] * 7, []),
        (*_TREE, "parents"): ([0] * 7, [], [2**31] * 7),
        (*_TREE, "id"): (99, -1, "x"),
        (*_MODEL, "tree_info"): ([99] * 3, [-1] * 3, [], [0], "x"),
        (*_MODEL, "trees"): ([], {}, "x", [{}], [[]] * 3, None),
        (*_MODEL, "gbtree_model_param", "num_trees"): ("0", "99999999", "-1", "x"),
        (*_MODEL, "iteration_indptr"): ([], [99] * 4, [-1] * 4, "x"),
        ("learner", "learner_model_param", "num_feature"): ("0", "-1", "2", "999999999999", "x", "5" * 5000),
        ("learner", "learner_model_param", "num_class"): ("-5", "2", "999999", "2147483647"),
        ("learner", "learner_model_param", "num_target"): ("0", "9", "1000000"),
        ("learner", "learner_model_param", "base_score"): ("nan", "-1", "x", "[]", "", "[1,2,3]", "1e999"),
        ("learner", "objective", "name"): ("custom", "", 5, [], "multi:softprob", "survival:aft", "\x1b[31m<b>"),
        ("learner", "gradient_booster", "name"): ("gblinear", "dart", "../../x", 5, []),
        ("learner", "feature_names"): (
            ["a"],
            ["\x1b[31m", "<b>", "../x"],
            ["a", "a", "a"],
            [1, 2, 3],
            "x",
            ["x" * 100_000] * 3,
        ),
        ("learner", "attributes"): (
            {"best_iteration": "99"},
            {"best_iteration": "-9"},
            {"best_iteration": "x"},
            [],
            "x",
        ),
        ("version",): ([999, 0, 0], [], "x", [-1, -1, -1]),
        ("learner",): (3, [], None, "x"),
    }


_SOFT = (
    "split_conditions",
    "default_left",
    "split_type",
    "parents",
    "id",
    "num_target",
    "base_score",
    "name",
    "feature_names",
    "attributes",
    "version",
    "num_trees",
    "iteration_indptr",
    "categories_nodes",
    "num_class",
    "size_leaf_vector",
    "num_nodes",
    "num_feature",
    "split_indices",
)


def _xgboost() -> Iterator[Case]:
    document = json.loads(xgboost_raw("json"))
    for path, values in _xgboost_lies().items():
        for number, value in enumerate(values):
            raw = _set(document, path, value)
            yield content(
                f"XGBoost: {path[-1]} {number}: {str(value)[:20]!a}", raw, file="model.json", mutated=path[-1] in _SOFT
            )
    for form in ("json", "ubj"):
        raw, chance = xgboost_raw(form), random.Random(14)
        for number in range(8):
            yield content(
                f"XGBoost {form} cut, {number}", raw[: 4 + (len(raw) - 6) * number // 7], file=f"model.{form}"
            )
        for number in range(15):
            found = bytearray(raw)
            for _ in range(chance.choice((1, 3, 20))):
                found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
            yield content(
                f"XGBoost {form} with bits changed, {number}", bytes(found), file=f"model.{form}", mutated=True
            )
    yield from _documents()


def _documents() -> Iterator[Case]:
    count = b"{L\0\0\0\0\0\0\0\x07learner"
    lies: dict[str, Callable[[], bytes]] = {
        "array of 2^62": lambda: count + b"[$l#L" + (2**62).to_bytes(8, "big"),
        "array of -1": lambda: count + b"[$l#L" + b"\xff" * 8,
        "array of 2^62 nulls": lambda: count + b"[$Z#L" + (2**62).to_bytes(8, "big"),
        "untyped array of 2^62 constants": lambda: count + b"[#L" + (2**62).to_bytes(8, "big") + b"Z" * 1000,
        "text of 2^62": lambda: count + b"SL" + (2**62).to_bytes(8, "big"),
        "object of 2^62": lambda: count + b"{#L" + (2**62).to_bytes(8, "big"),
        "100,000 arrays inside arrays": lambda: count + b"[" * 100_000,
        "text that is no UTF-8": lambda: count + b"SL\0\0\0\0\0\0\0\x02\xff\xff}",
        "character that is no text": lambda: count + b"C\xff}",
        "16 MiB of nulls": lambda: count + b"[" + b"Z" * (16 << 20),
    }
    for name, made in lies.items():
        yield content(f"UBJSON: {name}", made(), file="model.ubj")
    texts = {
        "200,000 arrays inside arrays": b'{"learner":' + b"[" * 200_000,
        "200,000 objects inside objects": b'{"learner":' + b'{"a":' * 200_000,
        "the same key 300,000 times": b'{"learner":{' + b",".join([b'"a":1'] * 300_000) + b"}}",
        "number of 100,000 digits": b'{"learner":' + b"9" * 100_000 + b"}",
        "NaN": b'{"learner":NaN}',
        "lone surrogate": b'{"learner":"\\ud800"}',
        "bytes that are no UTF-8": b'{"learner":"\xff\xfe"}',
        "byte order mark": b"\xef\xbb\xbf" + b'{"learner":{}}',
        "UTF-16": '{"learner":{}}'.encode("utf-16"),
    }
    for name, raw in texts.items():
        yield content(f"JSON: {name}", raw, file="model.json")


def cases() -> Iterator[Case]:
    yield from _lightgbm()
    yield from _xgboost()
