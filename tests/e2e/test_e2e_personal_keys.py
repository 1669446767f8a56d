"""A served project with personal keys: windows see every row, and no file but the snapshots holds a key in any form."""

import base64
import json
import signal
from contextlib import contextmanager
from datetime import timedelta

import e2e_shop
import httpx
import polars as pl
import pytest
from e2e_support import kill, run, start

pytestmark = pytest.mark.slow

ANN = "ann.planted@person.example"
DATA = """\
  orders:
    path: data/orders/*.parquet
    personal: [customer]
    subject: customer
"""
ASKED = e2e_shop.START + timedelta(days=62)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    project = e2e_shop.PROJECT.replace("  orders:\n    path: data/orders/*.parquet\n", DATA)
    folder = e2e_shop.make(tmp_path_factory.mktemp("personal") / "shop", rows=800, project=project)
    for path in (folder / "data" / "orders").glob("*.parquet"):
        rows = pl.read_parquet(path)
        named = pl.when(pl.col("customer") == "c001").then(pl.lit(ANN)).otherwise(pl.col("customer") + "@other.example")
        rows.with_columns(named.alias("customer")).write_parquet(path)
    run(folder, "train", "--quick")
    return folder


@contextmanager
def served(folder, *words):
    process = start(folder, "serve", "--port", "0", *words)
    try:
        yield json.loads(_document(process))["url"]
    finally:
        kill(process, signal.SIGTERM)


def _document(process):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip() == "}":
            break
    return "".join(lines) or process.stderr.read()


def order(number, hours, **fields):
    at = (ASKED - timedelta(hours=hours)).isoformat()
    return {
        "order": number,
        "ordered": at,
        "customer": ANN,
        "kind": "hat",
        "amount": 7.0,
        "express": True,
        **fields,
    }


def forms(text):
    """The text as it may stand in a file."""
    raw = text.encode()
    return [raw, text.encode("utf-16-le"), raw.hex().encode(), base64.b64encode(raw)[:-4], json.dumps(text).encode()]


def files_with(folder, text):
    """The files below the state folder that hold the text, compressed columns of Parquet too."""
    for path in sorted((folder / ".cumulant").rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pl.read_parquet(path).to_dicts(), default=str).encode()
        if any(form in content for form in forms(text)):
            yield path.relative_to(folder / ".cumulant").as_posix()


def test_windows_see_posted_rows_and_no_file_names_the_key(folder):
    with served(folder, "--workers", "2") as url:
        asked = order(10**6, 0)
        before = httpx.post(f"{url}/v1/models/returns/predict", json={"rows": [asked]}, timeout=60)
        assert before.status_code == 200, before.text
        posted = [order(10_000 + number, 30 + number) for number in range(3)]
        answer = httpx.post(f"{url}/v1/events", json={"source": "orders", "rows": posted}, timeout=60)
        assert answer.json()["accepted"] == 3, answer.text
        label = {"order": asked["order"], "customer": ANN, "ordered": asked["ordered"], "label": True}
        labels = httpx.post(f"{url}/v1/labels", json={"labels": [label]}, timeout=60)
        assert labels.json() == {"accepted": 1, "duplicates": 0}, labels.text
        assert list((folder / ".cumulant").rglob("post-*.jsonl"))
    (known,) = run(folder, "features", "show", f"customer={ANN}", "--model", "returns")
    history = pl.read_parquet(folder / "data" / "orders" / "*.parquet")
    recent = pl.col("ordered") > ASKED - timedelta(days=21 + 2, hours=6)  # the window, and how late a request may be
    stored = history.filter((pl.col("customer") == ANN) & (pl.col("amount") >= 0) & recent).height
    assert known["events"] == stored + 4  # three posted ones, and the scored one
    assert known["key"]["customer"].startswith("#")
    assert len(known["key"]["customer"]) == 33

    holding = set(files_with(folder, ANN))
    assert holding  # the search finds what is there
    assert {path.partition("/data/orders/")[0] for path in holding} == {"tables/default/returns/local"}
    erased = run(folder, "subjects", "erase", ANN, "--yes")
    assert {place["store"] for place in erased["remaining"]} == {"models"}
    assert set(files_with(folder, ANN)) == set()
