"""Streams of a real Kafka: the port's rules, a password, a broker that is killed, poison, lost messages."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from valkey_server import valkey

from cumulant.core.errors import CredentialsError, DataError, EngineUnavailableError, NotFoundError
from cumulant.core.progress import silent
from cumulant.features.online.online import OnlineFeatures
from cumulant.flows.data import stream_ingestion
from cumulant.flows.data.stream_ingestion import IngestLimits, ingest_streams
from cumulant.flows.data.stream_records import read_batches
from cumulant.flows.data.stream_views import stream_status
from cumulant.flows.data.validate import snapshots_of
from cumulant.flows.features.task import resolve_task
from cumulant.flows.ledger.run_context import open_run
from cumulant.flows.serving.serve import USES, materialize
from cumulant.flows.serving.services import note_use
from cumulant.ports.streams import LostMessagesError
from cumulant.project.file.loading import load
from cumulant.testing.certificates import Authority
from cumulant.testing.conformance.streams import StreamsConformance
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.programs import required_program

kafka = pytest.importorskip("confluent_kafka", reason='pip install "cumulant[kafka]"')

from cumulant.drivers.kafka import streams as driver  # noqa: E402
from cumulant.drivers.kafka.streams import KafkaStreams  # noqa: E402
from cumulant.testing.servers.kafka import PASSWORD, USER, kafka_server  # noqa: E402

pytestmark = pytest.mark.live

PATIENCE = 120.0
NAMES = itertools.count()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("kafka") / "authority")


@pytest.fixture(scope="module")
def broker(tmp_path_factory, authority):
    try:
        required_program("kafka-run")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    signed = authority.signed("DNS:localhost")
    pem = (Path(signed.certificate), Path(signed.private_key))
    with kafka_server(tmp_path_factory.mktemp("broker"), pem=pem) as server:
        yield server


@pytest.fixture
def new_topic(broker):
    def create(partitions):
        name = f"topic-{next(NAMES)}"
        broker.create_topic(name, partitions)
        return name

    return create


@pytest.fixture
def streams(broker):
    client = KafkaStreams(broker.url)
    yield client
    client.close()


class TestKafkaStreams(StreamsConformance):
    pass


@pytest.fixture
def project_of(tmp_path, broker):
    """The project whose source reads a topic of the broker."""
    opened = []

    def make(topic):
        (tmp_path / "cumulant.yaml").write_text(f"""
version: 1
model: {{name: shop}}
data: {{payments: {{stream: {topic}, key: id, rules: {{amount: {{min: 0}}}}}}}}
environments: {{live: {{streams: "{broker.url}"}}}}
""")
        opened.append(load(tmp_path, environment="live"))
        return opened[-1]

    yield make
    for project in opened:
        project.close()


def payments(numbers):
    return [json.dumps({"id": number, "amount": 1.5}).encode() for number in numbers]


def ingest(project):
    (result,) = ingest_streams(project, principal=project.principal(), once=True)
    return result


def ids(project):
    frames = [project.tables().scan(batch.rows).collect() for batch in read_batches(project, "payments") if batch.rows]
    return Counter(number for frame in frames for number in frame["id"].to_list())


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def knows(streams, topic):
    """Whether a broker that has just started knows a topic again."""
    try:
        return bool(streams.bounds(topic))
    except (EngineUnavailableError, NotFoundError):
        return False


def test_a_password_on_an_encrypted_connection(broker, authority, new_topic, monkeypatch):
    topic = new_topic(1)
    url = f"kafkas://{USER}@localhost:{broker.encrypted_port}?password=KAFKA&ca={quote(authority.file)}"
    streams = KafkaStreams(url, secrets=MemorySecrets({"KAFKA": PASSWORD}))
    assert streams.produce(topic, [b"secret"], partition=0) == 1
    with streams.consume(topic, {0: 0}) as consumer:
        wait_until(lambda: any(batch.values == [b"secret"] for batch in consumer.read(1 << 20, 1.0)))
    streams.close()
    monkeypatch.setattr(driver, "_LOGIN", 1.0)
    other = KafkaStreams(url, secrets=MemorySecrets({"KAFKA": "another"}))
    with pytest.raises(CredentialsError, match="refuse this user") as refused:
        other.partitions(topic)
    assert "another" not in refused.value.full_text
    other.close()


def test_poison_messages_and_those_without_a_value(broker, new_topic, project_of):
    topic = new_topic(2)
    project = project_of(topic)
    project.streams().produce(
        topic, [*payments(range(500)), b"\xff\x00", b"{", *payments(range(500, 600))], partition=0
    )
    producer = kafka.Producer({"bootstrap.servers": broker.url.removeprefix("kafka://")})
    producer.produce(topic, None, key=b"gone", partition=1)
    producer.flush(60)
    result = ingest(project)
    assert (result.rows, result.refused, result.lag) == (600, 3, 0)
    assert result.rules == {"row:json": 2, "row:empty": 1}
    assert ids(project) == dict.fromkeys(range(600), 1)


def test_a_broker_that_is_killed_and_started_again(broker, new_topic, project_of, monkeypatch):
    monkeypatch.setattr(stream_ingestion, "_RETRY", 0.2)
    topic = new_topic(2)
    project = project_of(topic)
    streams, stop = project.streams(), threading.Event()
    streams.produce(topic, payments(range(1000)), partition=0)
    options = {"stop": stop, "limits": IngestLimits(bytes=20_000, seconds=0.2)}
    ended, told = [], []
    options |= {"principal": project.principal(), "progress": lambda text, share=None: told.append(text)}
    worker = threading.Thread(target=lambda: ended.extend(ingest_streams(project, **options)))
    worker.start()
    try:
        wait_until(lambda: read_batches(project, "payments"))
        with monkeypatch.context() as patch:
            patch.setattr(driver, "_ANSWER", 0.5)
            broker.kill()
            wait_until(lambda: sum("trying again" in text for text in told) > 1)  # away for longer than an answer takes
        broker.start()
        wait_until(lambda: knows(streams, topic))
        streams.produce(topic, payments(range(1000, 2000)), partition=1)
        wait_until(lambda: sum(batch.messages for batch in read_batches(project, "payments")) >= 2000)
    finally:
        stop.set()
        worker.join()
    assert len(ended) == 1
    assert ids(project) == dict.fromkeys(range(2000), 1)


FEATURES = """from cumulant.features import source
tx = source("tx")
own = tx.columns("amount")
card = tx.by("card")
spent, n = card.sum("amount", window="7d"), card.count(window="7d")
"""


def card_payments(numbers):
    start = datetime(2026, 11, 1, tzinfo=UTC)
    for number in numbers:
        at = (start + timedelta(minutes=number)).isoformat()
        row = {"id": number, "card": f"c{number % 7}", "amount": number / 4, "at": at, "fraud": number % 2}
        yield json.dumps(row).encode()


def test_online_features_on_valkey_while_the_runner_is_killed_and_the_store_emptied(broker, new_topic, tmp_path):
    topic = new_topic(2)
    (tmp_path / "features.py").write_text(FEATURES)
    with valkey() as server:
        (tmp_path / "cumulant.yaml").write_text(f"""
version: 1
model: {{name: shop}}
data: {{tx: {{stream: {topic}, key: id, event_time: at, rules: {{amount: {{type: float, min: 0}}}}}}}}
training: {{target: fraud, predict_at: at}}
environments: {{live: {{streams: "{broker.url}", online: "{server.url}"}}}}
""")
        with load(tmp_path, environment="live") as project:
            produce = partial(project.streams().produce, topic)
            produce([*card_payments(range(100)), b"poison"], partition=0)
            ingest(project)
            with open_run(project, "live", principal=project.principal(), progress=silent) as context:
                snapshots, _ = snapshots_of(context, ["tx"])
                plan = resolve_task(project, snapshots).plan
                table, _ = materialize(context, plan, snapshots, as_of=None)
            note_use(project.state / USES, os.getpid(), folder="", table=table)
            online = OnlineFeatures(plan, project.online(), table)

            def is_right(count):
                row = {"id": 10**6, "at": "2026-11-05T00:00:00Z", "amount": 0.0}
                try:
                    stored = online.vectors([row | {"card": f"c{card}"} for card in range(7)]).columns
                except EngineUnavailableError:  # emptied, and not yet filled again
                    return False
                right = [[number / 4 for number in range(card, count, 7)] for card in range(7)]
                counts = [len(own) + 1 for own in right]  # the row itself too
                return stored["n_7d"] == counts and stored["spent_7d"] == list(map(sum, right))

            for first in range(100, 700, 100):  # a runner is killed while it follows, and another one goes on
                with runner(tmp_path):
                    for part in range(first, first + 100, 25):
                        produce([b"{", *card_payments(range(part, part + 25))], partition=part // 25 % 2)
                        ingest(project)
                    if first == 400:
                        server.ask(b"FLUSHALL")
                    if first in (200, 400, 600):
                        wait_until(lambda count=first + 100: is_right(count))
            (status,) = stream_status(project, principal=project.principal())
            assert (status.rows, status.refused, status.online[0].behind) == (700, 25, 0)


@contextmanager
def runner(folder):
    """`cumulant ingest apply` in a process that is killed."""
    line = [sys.executable, "-m", "cumulant.cli", "ingest", "apply", "--env", "live"]
    process = subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("partition", [0, 1])
def test_messages_that_were_deleted_before_they_were_read(broker, new_topic, project_of, partition):
    """Also of a partition that had no message when the others were read first."""
    topic = new_topic(2)
    project = project_of(topic)
    project.streams().produce(topic, payments(range(10)), partition=0)
    assert ingest(project).rows == 10
    project.streams().produce(topic, payments(range(10, 20)), partition=partition)
    begin = 15 - 10 * partition
    admin, place = broker.admin(), kafka.TopicPartition(topic, partition, begin)
    for answer in admin.delete_records([place]).values():
        answer.result(timeout=60)
    with pytest.raises(LostMessagesError, match=f"begins at {begin}, and was read up to {begin - 5}"):
        ingest(project)
    (status,) = stream_status(project, principal=project.principal())
    assert status.rows == 10


def test_a_topic_that_was_deleted_and_made_anew(broker, new_topic, project_of):
    topic = new_topic(1)
    project = project_of(topic)
    project.streams().produce(topic, payments(range(10)), partition=0)
    ingest(project)
    broker.delete_topic(topic)

    def create():
        try:
            broker.create_topic(topic, 1)
        except kafka.KafkaException:  # it is being deleted
            return False
        return True

    wait_until(create)
    project.streams().produce(topic, payments(range(50)), partition=0)
    with pytest.raises(DataError, match="a topic of this name that is gone"):
        ingest(project)


def test_messages_of_an_aborted_transaction_are_no_rows(broker, new_topic, project_of):
    topic = new_topic(1)
    project = project_of(topic)
    place = broker.url.removeprefix("kafka://")
    producer = kafka.Producer({"bootstrap.servers": place, "transactional.id": topic, "linger.ms": 0})
    producer.init_transactions(60)

    def send(number, end):
        producer.begin_transaction()
        producer.produce(topic, payments([number])[0], partition=0)
        producer.flush(60)
        end(60)

    for number, end in enumerate(
        [producer.commit_transaction, producer.abort_transaction, producer.commit_transaction]
    ):
        send(number, end)
    assert ingest(project).rows == 2
    assert ids(project) == {0: 1, 2: 1}
    send(3, producer.abort_transaction)
    result = ingest(project)
    assert (result.messages, result.lag) == (0, 0)
    admin, place = broker.admin(), kafka.TopicPartition(topic, 0, project.streams().bounds(topic)[0].end)
    for answer in admin.delete_records([place]).values():
        answer.result(timeout=60)
    assert ingest(project).messages == 0  # what was deleted was no message


def test_brokers_that_do_not_answer(monkeypatch):
    monkeypatch.setattr(driver, "_ANSWER", 0.5)
    streams = KafkaStreams("kafka://127.0.0.1:1")
    streams._denied.set()  # by a login of long ago
    with pytest.raises(EngineUnavailableError, match="do not answer"):
        streams.partitions("t")
