"""Ingestion of messages whose schemas are in a registry: one that is away is waited for, and nothing is lost."""

import io
import json
import threading

import pytest

from cumulant.cli.app import run
from cumulant.core.errors import EngineUnavailableError, ProjectFileError, UsageError
from cumulant.drivers.folder.streams import FolderStreams
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_records import read_batches
from cumulant.flows.data.validate import validate
from cumulant.project.file.loading import load
from cumulant.testing.servers.programs import free_port
from cumulant.testing.servers.schema_registry import schema_registry

fastavro = pytest.importorskip("fastavro", reason='pip install "cumulant[schemas]"')

PROJECT = """
version: 1
model: {{name: shop}}
data:
  payments: {{stream: pay, format: avro, key: id, columns: {{city: address.city}}, rules: {{id: {{min: 0}}}}}}
environments: {{local: {{{schemas}}}}}
"""
ADDRESS = {"type": "record", "name": "Address", "fields": [{"name": "city", "type": "string"}]}
SCHEMA = {
    "type": "record",
    "name": "Payment",
    "fields": [{"name": "id", "type": "int"}, {"name": "address", "type": ["null", ADDRESS]}],
}


def message(schema, number, city=None):
    stream = io.BytesIO()
    record = {"id": number, "address": None if city is None else {"city": city}}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(SCHEMA), record)
    return b"\0" + schema.to_bytes(4, "big") + stream.getvalue()


@pytest.fixture
def topic(tmp_path):
    return FolderStreams(f"folder://{tmp_path}/.cumulant/streams")


def opened(folder, schemas=""):
    (folder / "cumulant.yaml").write_text(PROJECT.format(schemas=schemas))
    return load(folder)


def stored(project):
    return sorted(
        row
        for batch in read_batches(project, "payments")
        if batch.rows
        for row in project.tables().scan(batch.rows).collect().select("id", "city").rows()
    )


def test_a_registry_that_is_away_is_waited_for(tmp_path, topic, monkeypatch):
    port = free_port()
    topic.produce("pay", [message(1, 1, "Bern"), message(1, 2), message(7, 3), b"{}", message(1, -2)], partition=0)
    told, stop, away = [], threading.Event(), threading.Event()
    monkeypatch.setattr("cumulant.flows.data.stream_ingestion._RETRY", 0.05)

    def progress(text, share=None):
        told.append(text)
        away.set()
        if "messages of" in text:
            stop.set()

    with opened(tmp_path, f"schemas: confluent+http://127.0.0.1:{port}") as project:
        principal = project.principal()
        with pytest.raises(EngineUnavailableError, match="does not answer"):
            ingest_streams(project, principal=principal, once=True)
        assert stored(project) == []
        options = {"stop": stop, "limits": IngestLimits(seconds=0.01), "progress": progress}
        reader = threading.Thread(target=ingest_streams, args=(project,), kwargs={"principal": principal, **options})
        reader.start()
        assert away.wait(60)
        with schema_registry(port) as registry:
            registry.register("pay-value", json.dumps(SCHEMA))
            reader.join(60)
        assert not reader.is_alive()
        assert stored(project) == [(1, "Bern"), (2, None)]
        (batch,) = read_batches(project, "payments")
        assert batch.rules == {"row:schema": 1, "row:avro": 1, "id:min": 1}
        assert "payments: the schema registry does not answer" in told[0]
        assert validate(project, principal=principal, sources=["payments"])
        assert registry.asked == ["/schemas/ids/1", "/schemas/ids/7"]


def test_what_a_project_declares_wrongly(tmp_path, topic, capsys):
    topic.produce("pay", [message(1, 1)], partition=0)
    with opened(tmp_path) as project, pytest.raises(UsageError, match="names none") as refused:
        ingest_streams(project, principal=project.principal(), once=True)
    assert "schemas: confluent+https://" in refused.value.hint
    opened(tmp_path, "schemas: https://registry.acme.com").close()
    assert run(["doctor", "--project", str(tmp_path)]) != 0
    assert "cannot serve as schemas" in capsys.readouterr().out
    for text, fault in (
        (PROJECT.replace("stream: pay", "path: pay.csv"), "is one of messages"),
        (PROJECT.replace("avro", "csv"), "cannot have `format: csv`"),
        (
            PROJECT.replace("stream: pay", "stream: pay, prepare: clean.py:clean"),
            "cannot have `prepare: clean.py:clean`",
        ),
    ):
        (tmp_path / "cumulant.yaml").write_text(text.format(schemas=""))
        with pytest.raises(ProjectFileError, match=fault):
            load(tmp_path)
