"""`cumulant review`: what a person and a program see, on a log of predictions that were made elsewhere."""

import io
import json
import shutil
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from rich.console import Console

from cumulant.cli.monitoring import review_session
from cumulant.flows.outcomes.outcome_logs import exclusive
from cumulant.flows.review.service import REVIEW_LEASE, ingest_decisions
from cumulant.outcomes.labels.label_rows import LabelSchema
from cumulant.project.file.loading import load

REVIEW = "monitoring: {review: {budget: 6/day, sample: 50%, second: 0%, slices: ['pages > 15']}}\n"


@pytest.fixture
def queue(project, cumulant, tmp_path, monkeypatch):
    """Twenty predictions of an hour ago, and a queue that nobody has filled."""
    monkeypatch.setenv("CUMULANT_USER", "ada")
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    lines = [f"r{number},{at},{number % 2},0.{number:02d},{number},person{number}@example.com" for number in range(20)]
    (tmp_path / "old.csv").write_text("\n".join(["id,at,said,p,pages,email", *lines]) + "\n")
    with (project / "cumulant.yaml").open("a") as stream:
        stream.write(REVIEW)
    mapped = ["--map", "id=id,time=at,prediction=said,score=p"]
    imported = cumulant("labels", "import-predictions", str(tmp_path / "old.csv"), *mapped, "--project", str(project))
    assert imported.code == 0, imported.err
    return project


def test_an_empty_first_draw_says_where_it_begins(queue, cumulant):
    later = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    said = cumulant("review", "fill", "--since", later, "--now", "--project", str(queue)).out
    assert f"no prediction to draw from since {later[:10]}" in said
    assert "`--since` begins the first draw earlier" in said
    assert "--now" not in said
    file = queue / "cumulant.yaml"
    file.write_text(file.read_text().replace("6/day", "2000/day"))
    said = cumulant("review", "fill", "--since", later, "--project", str(queue)).out
    assert "those of the last 30 s are left to the next draw, or --now takes them" in " ".join(said.split())


def test_one_decision_holds_when_the_deadline_passes_and_becomes_a_label(queue, cumulant, monkeypatch):
    from cumulant.flows.review import service

    file = queue / "cumulant.yaml"
    file.write_text(file.read_text().replace("second: 0%", "second: 100%, deadline: 2h"))

    def said(*words):
        return cumulant("review", *words, "--project", str(queue), "--json").document

    said("fill")
    other, first = (one["id"] for one in said("list", "--limit", "2"))
    assert said("decide", first, "1")["case"]["status"] == "waiting"
    later = datetime.now(UTC) + timedelta(hours=3)
    monkeypatch.setattr("cumulant.core.clock.SystemClock.now", lambda _: later)
    # What deadlines ask for is shown before anybody has written it down.
    assert (said("list"), said("show", other)["status"]) == ([], "expired")
    assert [one["label"] for one in said("list", "--status", "done")] == [1]
    with load(queue) as project:
        assert service.ingest_decisions(project, principal=project.principal()) == 1
        assert service.ingest_decisions(project, principal=project.principal()) == 0
    listed = cumulant("labels", "list", "--project", str(queue), "--json").document
    assert [(one["label"], one["source"]) for one in listed] == [(1, "review")]
    text = cumulant("review", "report", "--project", str(queue)).out
    assert "of the random cases have an answer" in " ".join(text.split())


@pytest.fixture
def review(queue, cumulant):
    def call(*words, json=True):
        return cumulant("review", *words, "--project", str(queue), *(["--json"] if json else []))

    return call


def test_a_queue_is_filled_answered_and_reported(review, cumulant, queue):
    filled = review("fill")
    assert filled.code == 0, filled.err
    assert (filled.document["added"], filled.document["draw"]["sample"]) == (6, 3)
    assert "version imported is not in the registry" in filled.document["draw"]["notes"][0]
    assert "used up" in review("fill", json=False).out
    listed = review("list", json=False).out
    assert (listed.count("hidden"), "waiting" in listed, "label" in listed) == (1, False, False)
    case = review("next").document
    assert (case["holder"], case["hidden"], case["answer"]) == ("user:ada", True, None)
    text = review("next", json=False).out
    assert "hidden until you decide" in text
    assert f"cumulant review decide {case['id']} LABEL --project {queue}" in text
    said = review("decide", case["id"][:8], "1", "--note", "seen", json=False)
    assert (said.code, "is done: 1; the model answered" in said.out) == (0, True)
    shown = review("show", case["id"], json=False).out
    assert "user:ada: seen" in shown
    listed = cumulant("labels", "list", "--project", str(queue), "--json").document
    assert [(one["id"], one["label"], one["source"]) for one in listed] == [(case["request_id"], 1, "review")]
    joined = cumulant("labels", "show", case["request_id"], "--project", str(queue), "--json").document
    assert joined["predictions"][0]["label"] == 1
    told = review("report").document
    assert (told["queued"], told["done"], told["labelled"], told["waiting"]) == (6, 1, 1, 5)
    assert "model wrong on" in review("report", json=False).out


def test_a_report_of_stored_figures_equals_one_that_makes_them_again(review, queue):
    review("fill")
    first, *others = (one["id"] for one in review("list").document)
    reports = []
    for cases in ([first], others):
        assert {review("decide", case, "1").code for case in cases} == {0}
        reports.append(review("report").document)
        assert review("report").document == reports[-1]  # of the same cases: stored
        shutil.rmtree(queue / ".cumulant/review/figures")
        assert review("report").document == reports[-1]  # made again
    assert [one["done"] for one in reports] == [1, 6]
    assert reports[1]["error"] is not None
    for path in (queue / ".cumulant/predictions").rglob("*.parquet"):
        path.unlink()
    assert review("report").document["error"] is None  # the log has lost what was answered


def test_what_is_wrong_is_said_and_ends_with_a_code(review, cumulant, project, monkeypatch):
    review("fill")
    case = review("next").document["id"]
    monkeypatch.setenv("CUMULANT_USER", "bob")
    held = review("decide", case, "1")
    assert (held.code, "with user:ada" in held.out + held.err) == (3, True)
    monkeypatch.setenv("CUMULANT_USER", "ada")
    assert review("decide", "zz", "1").code == 2
    assert review("note", case, " ").code == 2
    assert review("assign", case).code == 2
    assert review("assign", case, "bob").document["assigned"] == "user:bob"
    assert review("decide", case, "1").code == 3
    assert review("assign", case, "--to-all").document["assigned"] is None
    assert review("skip", case).document["case"]["status"] == "waiting"
    assert "you skipped" in review("show", case, json=False).out
    again = review("decide", case, "1")
    assert (again.code, "you have skipped" in again.out + again.err) == (2, True)
    slip = review("dezide", case)
    assert (slip.code, "decide" in slip.out + slip.err) == (2, True)
    assert review("import", "nowhere.json").code == 2


def test_a_project_without_a_queue_says_how_to_get_one(project, cumulant):
    ended = cumulant("review", "next", "--project", str(project))
    assert (ended.code, "budget: 50/day" in ended.err) == (2, True)


def test_escalated_cases_and_exports(review, tmp_path):
    review("fill")
    case = review("next").document["id"]
    assert "goes to those" in review("escalate", case, "--note", "which card?", json=False).out
    again = review("next").document
    assert (again["id"], again["escalated"]) == (case, True)
    assert review("assign", case, "--to-all").document["holder"] is None
    out = tmp_path / "tasks.json"
    assert review("export", str(out)).document["cases"] == 6
    tasks = json.loads(out.read_text())
    assert out.with_suffix(".xml").read_text().startswith("<View>")
    number = [{"from_name": "decision", "type": "number", "value": {"number": 1}}]
    done = [{**one, "annotations": [{"completed_by": {"email": "eve@example.com"}, "result": number}]} for one in tasks]
    done.append({"data": {"case": "nobody"}, "annotations": [{"result": number}]})
    out.write_text(json.dumps(done))
    taken = review("import", str(out)).document
    assert (taken["decided"], taken["labelled"], list(taken["problems"])) == (6, 6, ["nobody"])
    assert review("import", str(out)).document["again"] == 6
    assert "nobody: no case" in review("import", str(out), json=False).out
    lines = tmp_path / "done.jsonl"
    assert review("export", str(lines), "--format", "jsonl", "--status", "done").document["cases"] == 6
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {row["source"] for row in rows} == {"review"}
    assert sorted(row["weight"] for row in rows)[:3] == [1, 1, 1]
    assert sum(row["weight"] for row in rows) == pytest.approx(20)
    assert all(name.startswith("#") for row in rows for name in row["reviewers"])
    assert review("export", str(lines)).code == 2
    assert "is where the labelling interface goes" in review("export", str(tmp_path / "tasks.xml"), json=False).err


def test_answers_that_are_read_again_add_nothing(review, tmp_path):
    review("fill")
    case = review("next").document["id"]
    file = tmp_path / "answers.json"
    result = [
        {"from_name": "decision", "type": "number", "value": {"number": 1}},
        {"from_name": "note", "type": "textarea", "value": {"text": ["seen"]}},
    ]
    by = {"annotations": [{"result": result}, {"completed_by": 7, "result": result}]}
    file.write_text(json.dumps([{"data": {"case": case}, **by}]))
    first = review("import", str(file), "--reviewer", "ada").document
    # The second answer comes too late: the case is closed, and nothing is noted beside it.
    assert (first["decided"], list(first["problems"])) == (1, [case])
    assert review("import", str(file), "--reviewer", "ada").document["again"] == 1
    (note,) = review("show", case).document["notes"]
    assert (note["reviewer"], note["text"]) == ("user:ada", "seen")
    assert review("decide", case, "1", "--note", "late").code == 2
    assert len(review("show", case).document["notes"]) == 1


def test_a_sitting_on_a_terminal_takes_one_line_an_answer(review, queue, monkeypatch):
    review("fill")
    said = iter(["n", "n first look", "", "1", "s", "e", "q"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    console = Console(file=io.StringIO(), width=100)
    with load(queue) as project:
        review_session.session(console, project, report="cumulant review report")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(
        part in text
        for part in (
            "what is the number?",
            "n TEXT writes a note",
            "noted",
            "is done: 1",
            "you skipped case",
            "goes to those",
        )
    )
    assert "3 answered" in text
    assert review("report").document["done"] == 1
    monkeypatch.setattr("builtins.input", lambda _: (_ for _ in ()).throw(EOFError))
    with load(queue) as project:
        review_session.session(console, project, report="cumulant review report")
    assert "0 answered" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_session_makes_labels_of_its_decisions_together(review, queue, monkeypatch):
    review("fill")
    said = iter(["1", "0", "q"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    with load(queue) as project:
        review_session.session(Console(file=io.StringIO()), project, report="")
        events = [one for one in project.journal().events() if one.kind == "review.labelled"]
    assert [one.data["labels"] for one in events] == [2]


def test_a_file_decides_many_cases_and_names_the_rows_that_do_not(review, queue, tmp_path):
    waiting = review("fill").document["waiting"]
    cases = [one["id"] for one in review("list").document]
    file = tmp_path / "decisions.csv"
    rows = [f"{cases[0][:8]},1,seen", f"{cases[1]},0,", "nowhere,1,", f"{cases[2]},,"]
    file.write_text("case,label,note\n" + "\n".join(rows) + "\n")
    told = review("decide", "--from", str(file)).document
    assert (told["decided"], told["labelled"]) == (2, 2)
    assert list(told["problems"]) == ["nowhere", "decisions.csv:5"]
    assert len(review("list").document) == waiting - 2
    assert review("show", cases[0]).document["notes"][0]["text"] == "seen"
    again = review("decide", "--from", str(file)).document
    assert (again["decided"], again["labelled"], len(again["problems"])) == (0, 0, 4)
    assert review("decide", cases[3], "1", "--from", str(file)).code == 2
    assert review("decide", cases[3]).code == 2


def test_a_file_that_decides_nothing_ends_with_a_code(review, tmp_path):
    review("fill")
    file = tmp_path / "decisions.csv"
    file.write_text("case,label\nnowhere,1\n")
    refused = review("decide", "--from", str(file))
    assert (refused.code, refused.document["decided"], list(refused.document["problems"])) == (1, 0, ["nowhere"])


def test_a_label_that_does_not_exist_is_refused_with_those_that_do(review, monkeypatch):
    from cumulant.flows.review import service

    review("fill")
    case = review("list").document[0]["id"]
    schema = LabelSchema(task="multiclass", classes=("on time", "late"))
    monkeypatch.setattr(service, "schema_of", lambda _: schema)
    for label, hint in (("yes", "labels: on time, late"), ("lat", 'did you mean "late"?; labels: on time, late')):
        refused = review("decide", case, label)
        assert (refused.code, hint in refused.out.replace("\\", "")) == (2, True), refused.out


def test_a_running_number_in_a_file_decides_no_case(review, queue, tmp_path):
    waiting = review("fill").document["waiting"]
    ids = [one["id"] for one in review("list").document]
    short = [next(one[:n] for n in range(1, 12) if sum(other.startswith(one[:n]) for other in ids) == 1) for one in ids]
    rows = [*(one for one in short if len(one) < 6), ids[0][:5], *range(1, 21)]
    file = tmp_path / "decisions.csv"
    file.write_text("case,label\n" + "\n".join(f"{one},1" for one in rows) + "\n")
    told = review("decide", "--from", str(file)).document
    assert (told["decided"], told["labelled"], len(review("list").document)) == (0, 0, waiting)
    assert told["problems"]["decisions.csv:2"].endswith("write the id as `cumulant review list --json` gives it")


def test_the_decisions_of_a_file_stand_while_labels_are_ingested_elsewhere(review, queue, tmp_path, monkeypatch):
    review("fill")
    case = review("list").document[0]["id"]
    file = tmp_path / "decisions.csv"
    file.write_text(f"case,label\n{case},1\n")
    monkeypatch.setattr("cumulant.flows.review.service.exclusive", partial(exclusive, patience=0.0))
    with load(queue) as project, exclusive(project, REVIEW_LEASE):
        document = review("decide", "--from", str(file)).document
    assert (document["decided"], document["labelled"], document["problems"]) == (1, 0, {})
    with load(queue) as project:
        assert ingest_decisions(project, principal=project.principal()) == 1


def test_a_program_answers_what_it_can_and_passes_over_the_rest(review, queue, cumulant):
    from cumulant.flows.review.scripted import answer_open
    from cumulant.ports.access import Principal
    from cumulant.testing.clock import ManualClock

    review("fill")
    then = datetime.now(UTC).replace(microsecond=0)
    asked = []

    def truth(case):
        asked.append(case.id)
        return None if len(asked) == 1 else 1

    with load(queue) as project:
        rules = Principal("service:rules")
        assert answer_open(project, truth, most=3, principal=rules, clock=ManualClock(then)) == 3
        assert answer_open(project, truth, most=99, principal=rules) == 3
    assert len(set(asked)) == 6
    told = cumulant("labels", "list", "--project", str(queue), "--json").document
    assert {one["source"] for one in told} == {"review"}
    assert sum(datetime.fromisoformat(one["known_time"]) == then for one in told) == 3
