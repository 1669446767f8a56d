"""The pages of data: sources, contracts, quarantine with the bad cell marked, and features."""

from __future__ import annotations

import csv
import io
import re
import shutil
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from console_support import ADA, HOSTILE, console_client, make_project

from cumulant.core.errors import ContractBreachError
from cumulant.core.events import Actor
from cumulant.drivers.folder.streams import FolderStreams
from cumulant.features.verification import comparison
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_lag import LagReporter
from cumulant.flows.data.validate import validate
from cumulant.flows.features.verification_record import FeatureVerification, record_verification
from cumulant.flows.monitoring.drift.drift_history import HISTORY, ColumnHistory, DriftHistory
from cumulant.monitoring.drift.profiles import ColumnCells
from cumulant.ports.streams import Bounds
from cumulant.project.file.loading import load
from cumulant.testing.access import GrantedAccess

BASE = "/projects/shop/data"
TEXT = """\
data:
  visits:
    path: visits.csv
    key: visit
    event_time: {column: at, zone: UTC}
    personal: [email]
    rules: {pages: {min: 1, in: [3]}}
    quarantine: 60%
"""


def write(folder, rows, head="visit,at,email,pages,comment"):
    quoted = HOSTILE.replace('"', '""')
    (folder / "visits.csv").write_text("\n".join([head, *(f'{row},"{quoted}"' for row in rows)]) + "\n")


@pytest.fixture
def project(tmp_path):
    with make_project(tmp_path / "shop", "shop", TEXT) as loaded:
        days = [
            f"v{n},2026-01-0{1 + n % 3}T10:00:00Z,person{n}@example.com,{-n if n % 4 == 0 else 3}" for n in range(12)
        ]
        write(loaded.root, days)
        yield loaded


@pytest.fixture
def client(project):
    validate(project, principal=ADA)
    return console_client(project)


def refuse(project):
    rows = [f"w{n},2026-02-0{n}T00:00:00Z,x@example.com,-1" for n in range(1, 9)]
    write(project.root, rows, "visit,at,email,pages,<b>kind</b>")
    with pytest.raises(ContractBreachError):
        validate(project, principal=ADA)


def test_sources_are_listed_with_rows_and_a_bar_without_inline_style(client):
    text = client.get(BASE).text
    assert f'href="{BASE}/visits"' in text
    assert f'href="{BASE}/visits/quarantine"' in text
    assert "style=" not in text
    assert 'class="quarantined"' in text


def test_a_source_that_was_never_read_says_what_to_do(project):
    client = console_client(project)
    assert "nothing was accepted yet" in client.get(BASE).text
    assert "cumulant data validate visits" in client.get(f"{BASE}/visits").text
    assert "No row was refused" in client.get(f"{BASE}/visits/quarantine").text


def test_a_refused_snapshot_names_its_breaches_and_its_changes(client, project):
    refuse(project)
    assert "newer data refused" in client.get(BASE).text
    text = client.get(f"{BASE}/visits").text
    assert "rows are refused" in text
    assert "&lt;b&gt;kind&lt;/b&gt;" in text
    assert "<b>kind" not in text
    assert f'href="{BASE}/visits/snapshots.csv"' in text
    assert f'<a href="{BASE}/visits/quarantine?rule=pages%3Amin">8</a>' in text
    # All of them break `pages:in` too, and are stored under the first rule: no link leads to an empty page.
    assert text.count("/visits/quarantine?rule=") == 1
    assert "8 rows refused by pages:min" in client.get(f"{BASE}/visits/quarantine?rule=pages%3Amin").text


def test_snapshots_that_refused_no_row_have_no_chart_of_refused_rows(project):
    for count in (5, 6):
        write(project.root, [f"v{n},2026-01-01T10:00:00Z,person{n}@example.com,3" for n in range(count)])
        validate(project, principal=ADA)
    text = console_client(project).get(f"{BASE}/visits").text
    assert "None of the last 2 snapshots refused a row." in text
    assert "Share of refused rows" not in text
    refuse(project)
    text = console_client(project).get(f"{BASE}/visits").text
    assert "Share of refused rows in 3 snapshots" in text
    assert "No refused rows" not in text


def test_quarantine_marks_the_bad_cell_and_hashes_personal_values(client):
    text = client.get(f"{BASE}/visits/quarantine").text
    assert text.count('class="bad-cell"') == 3
    assert "@example.com" not in text
    assert HOSTILE not in text
    assert "<script>alert" not in text
    assert re.search(r'<th scope="row"><a href="[^"]*rule=pages%3Amin"', text)
    one = client.get(f"{BASE}/visits/quarantine?rule=pages:min&day=2026-01-02").text
    assert one.count('class="bad-cell"') == 1
    assert "Nothing matches" in client.get(f"{BASE}/visits/quarantine?rule=%3Cb%3E").text
    assert client.get(f"{BASE}/visits/quarantine?after=x").status_code == 400


@pytest.mark.parametrize("name", ["quarantine", "snapshots"])
def test_the_numbers_are_files(client, project, name):
    refuse(project)
    response = client.get(f"{BASE}/visits/{name}.csv")
    assert response.status_code == 200
    heads, *rows = csv.reader(io.StringIO(response.text))
    assert rows
    assert all(len(row) == len(heads) for row in rows)


@pytest.mark.parametrize("path", ["/nothing", "/nothing/quarantine", "/%3Cscript%3E", "/nothing/snapshots.csv"])
def test_an_unknown_source_is_not_found(client, path):
    assert client.get(f"{BASE}{path}").status_code == 404


def test_who_may_see_data_but_no_refused_rows_gets_a_page_that_says_so(client, project, monkeypatch):
    monkeypatch.setattr(project, "access", lambda: GrantedAccess([(ADA.id, "data.show"), (ADA.id, "project.overview")]))
    assert client.get(f"{BASE}/visits").status_code == 200
    refused = client.get(f"{BASE}/visits/quarantine")
    assert refused.status_code == 403
    assert "bad-cell" not in refused.text


def test_features_are_those_of_the_version_that_serves(trained):
    text = console_client(trained).get("/projects/shop/features").text
    assert "channel" in text
    assert "Source visits" in text
    assert 'href="/projects/shop/models/shop/1"' in text


def test_features_have_the_distance_of_served_values_from_the_training(trained_folder, tmp_path):
    def column(name, effects, confirmed=(), role="feature"):
        return ColumnHistory(
            feature=name,
            role=role,
            weight=1.0,
            effects=effects,
            confirmed=confirmed,
            findings=(),
            cells=ColumnCells(kind="category", values=("a",)),
            before=(1, 0),
            now=(1, 0),
            missing=(0.01, 0.25),
        )

    columns = (column("pages", (0.2, 3.5), confirmed=(1,)), column("channel", (None, None)))
    shutil.copytree(trained_folder, tmp_path / "shop")
    file = tmp_path / "shop" / "cumulant.yaml"
    file.write_text(file.read_text().replace("  visits:\n", "  visits:\n    freshness: 10m\n    owner: web team\n"))
    with load(tmp_path / "shop", via="http") as project:
        client = console_client(project)
        text = client.get("/projects/shop/features").text
        assert "Served against training" not in text
        assert ">10 min 00 s</td><td>web team</td>" in text
        for version, shown in (("2", False), ("1", True)):  # a comparison of another version says nothing of this one
            history = DriftHistory(
                version=version, reference="the training rows", windows=(), columns=columns, newest=1, hidden=0
            )
            with project.journal().transaction(actor=Actor("t")) as transaction:
                transaction.put(HISTORY, "shop", msgspec.to_builtins(history))
            text = client.get("/projects/shop/features").text
            assert ("Served against training" in text) == shown
        assert "Served features against the history" not in text
        day = datetime(2026, 11, 30, tzinfo=UTC)
        compared = [
            comparison("pages", rows=400, late=30, mismatches=2),
            comparison("n", rows=400, late=0, mismatches=0),
        ]
        verified = FeatureVerification(
            model="shop", at=day, since=day, logged=500, rows=400, unknown=0, features=tuple(compared)
        )
        with project.journal().transaction(actor=Actor("t")) as transaction:
            record_verification(transaction, verified)
            empty = msgspec.structs.replace(verified, at=day + timedelta(hours=1), rows=0, unknown=7, features=())
            record_verification(transaction, empty)
        verification = client.get("/projects/shop/features").text
    assert f"7 served rows cannot be recomputed: {FeatureVerification.WHY_UNKNOWN}." in verification
    assert "400 served rows" in verification
    assert verification.count("not the history's") == 1
    assert "0.50%, 0.06% to 1.79%" in verification
    assert 'monitoring?feature=pages#column">3.5' in text
    assert "too few rows" in text
    assert "1.00%, 25.0%" in text
    assert text.count(">confirmed</span>") == 1


def test_a_project_without_a_model_has_no_features_yet(client):
    assert "No features yet" in client.get("/projects/shop/features").text


STREAMED = """\
data:
  payments:
    stream: pay
    key: id
    rules: {amount: {min: 0}}
"""


def test_streams_show_what_waits_and_what_was_refused_by_the_journal_alone(tmp_path):
    with make_project(tmp_path / "shop", "shop", STREAMED) as project:
        client = console_client(project)
        idle = client.get(BASE).text
        assert "none ingests" in idle
        assert "No process ingests payments" in idle
        assert "<code>cumulant ingest run --source payments</code>" in idle
        streams = FolderStreams(f"folder://{project.root}/.cumulant/streams")
        streams.produce("pay", [*(b'{"id": %d, "amount": 2}' % number for number in range(7)), b"no JSON"], partition=0)
        ingest_streams(project, principal=ADA, once=True)
        # a process that ingests, and 4 messages that came since
        bounds = {0: Bounds(begin=0, end=9_000)}
        LagReporter(project.journal(), "payments").report("member", bounds, {0: 500}, {0: 4})
        shutil.rmtree(project.root / ".cumulant/streams")  # no page asks the broker, which might be away
        text = re.sub(r"<[^>]+>", " ", client.get(BASE).text)
    assert re.search(r"payments\s+pay\s+8\s+7\s+1\s+row:json 1\s+0\s+\S.*?\s4\s+since .*?\s1\s", text, re.DOTALL), text
    assert "cumulant ingest refused SOURCE" in text
    assert "No process ingests" not in text
