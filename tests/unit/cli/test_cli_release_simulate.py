"""`cumulant release simulate`: needs a project file and nothing else; its document and its exit codes."""

import json

import pytest

ENDS = ("promoted", "rolled_back", "inconclusive", "broken_split")
WORLD = {
    "expect": "broken",
    "traffic": {"requests_per_second": 50},
    "errors": {"champion": 0.001, "candidate": 0.5},
    "policy": {"stages": {"shadow": None}},
}


@pytest.fixture
def bare(tmp_path):
    """A folder with a project file: no data, no features, no model."""
    (tmp_path / "cumulant.yaml").write_text(
        "version: 1\nmodel: {name: bare}\ndata: {t: {path: none.parquet, key: id}}\n"
        "training: {target: y}\nfeatures: none.py\n"
    )
    (tmp_path / "world.json").write_text(json.dumps(WORLD))
    return tmp_path


def call(cumulant, bare, *words):
    return cumulant("release", "simulate", "--project", str(bare), "--releases", "3", "--processes", "1", *words)


def test_the_document_has_counts_shares_intervals_times_reasons_and_stages(cumulant, bare):
    ended = call(cumulant, bare, "--world", str(bare / "world.json"), "--json", "--seed", "2")
    assert ended.code == 0, ended.err
    found = ended.document
    assert (found["releases"], found["seed"], found["expect"]) == (3, 2, "broken")
    for end in ENDS:
        assert set(found[end]) == {"count", "share", "low", "high"}
    assert found["rolled_back"] == {"count": 3, "share": 1.0, "low": pytest.approx(0.2924, abs=1e-4), "high": 1.0}
    assert set(found["seconds"]) == {"median", "p90"}
    assert found["seconds"]["p90"] < 60
    assert found["by_stage"]["rolled_back"] == {"ab 10%": 3}
    assert sum(found["by_reason"]["rolled_back"].values()) == 3
    assert not (bare / ".cumulant" / "journal.db").exists()


def test_the_page_says_shares_and_reasons(cumulant, bare):
    ended = call(cumulant, bare, "--world", str(bare / "world.json"))
    assert ended.code == 0
    assert "3 releases" in ended.out
    assert "rolled back" in ended.out
    assert "29.2% to 100.0%" in ended.out
    assert "3 of 3 releases" not in ended.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--world", "no-such-world"), "neither a file nor a world that ships"),
        (("--world", "bad.json"), 'unknown key "erorrs"; did you mean "errors"?'),
        (("--releases", "0"), "cannot be simulated"),
        (("--log",), "the gateway's log holds 0 s"),
    ],
)
def test_what_cannot_be_simulated_is_an_error_of_usage(cumulant, bare, monkeypatch, words, says):
    monkeypatch.chdir(bare)
    (bare / "bad.json").write_text('{"erorrs": {}}')
    ended = cumulant("release", "simulate", "--json", *words)
    assert ended.code == 2
    error = ended.document["error"]
    assert says in error["error"]
    assert error["hint"]
