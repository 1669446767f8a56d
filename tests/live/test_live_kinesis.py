"""Streams of Kinesis, by an emulator with the service's numbers and shards: the port's rules, resharding, retention."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from urllib.parse import quote

import pytest

from cumulant.core.errors import CredentialsError, EngineUnavailableError, StorageError, UsageError
from cumulant.flows.data import stream_reader
from cumulant.flows.data.stream_ingestion import ingest_streams
from cumulant.flows.data.stream_reader import IngestLimits
from cumulant.flows.data.stream_records import read_batches
from cumulant.flows.data.stream_views import refused_messages, stream_status
from cumulant.ports.streams import LostMessagesError
from cumulant.project.file.loading import load
from cumulant.testing.conformance.streams import StreamsConformance
from cumulant.testing.secrets import MemorySecrets
from cumulant.testing.servers.programs import free_port, required_program

pytest.importorskip("botocore", reason='pip install "cumulant[kinesis]"')

from botocore.exceptions import ClientError

from cumulant.drivers.kinesis import consumer as driver
from cumulant.drivers.kinesis.positions import ShardPosition, position_at, shard_position
from cumulant.drivers.kinesis.streams import KinesisStreams
from cumulant.testing.servers.kinesis import kinesis_server

pytestmark = pytest.mark.live

PATIENCE = 120.0
NAMES = itertools.count()
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
HOUR = 3_600_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    try:
        required_program("kinesis-mock")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with kinesis_server(tmp_path_factory.mktemp("kinesis")) as address:
        yield address


@pytest.fixture(scope="module")
def url(server):
    return f"kinesis://eu-central-1?endpoint={quote(server, safe='')}"


@pytest.fixture(scope="module")
def streams(url):
    client = KinesisStreams(url, secrets=MemorySecrets(KEYS))
    yield client
    client.close()


@pytest.fixture(scope="module")
def service(streams):
    """The client of the service, which also changes streams."""
    return streams._connection.client


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(driver, "_PAUSE", 0.02)


@pytest.fixture(scope="module")
def active(service):
    def wait(name):
        deadline = time.monotonic() + PATIENCE
        while service.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="module")
def new_topic(service, active):
    def create(partitions):
        name = f"topic-{next(NAMES)}"
        service.create_stream(StreamName=name, ShardCount=partitions)
        active(name)
        return name

    return create


@pytest.fixture(scope="module")
def split(service, active):
    def change(topic, shard):
        (described,) = [one for one in service.list_shards(StreamName=topic)["Shards"] if one["ShardId"] == name(shard)]
        low, high = (int(described["HashKeyRange"][f"{end}HashKey"]) for end in ("Starting", "Ending"))
        service.split_shard(StreamName=topic, ShardToSplit=name(shard), NewStartingHashKey=str((low + high) // 2))
        active(topic)

    return change


@pytest.fixture(scope="module")
def merge(service, active):
    def change(topic, one, other):
        service.merge_shards(StreamName=topic, ShardToMerge=name(one), AdjacentShardToMerge=name(other))
        active(topic)

    return change


def name(shard):
    return f"shardId-{shard:012d}"


class TestKinesisStreams(StreamsConformance):
    counts = False


@pytest.fixture
def project_of(tmp_path, url, monkeypatch):
    opened = []
    for key, value in KEYS.items():
        monkeypatch.setenv(key, value)

    def make(topic):
        (tmp_path / "cumulant.yaml").write_text(f"""
version: 1
model: {{name: shop}}
data: {{payments: {{stream: {topic}, key: id, rules: {{amount: {{min: 0}}}}}}}}
environments: {{live: {{streams: "{url}"}}}}
""")
        opened.append(load(tmp_path, environment="live"))
        return opened[-1]

    yield make
    for project in opened:
        project.close()


def payments(numbers):
    return [json.dumps({"id": number, "amount": 1.5}).encode() for number in numbers]


def ids(project):
    frames = [project.tables().scan(batch.rows).collect() for batch in read_batches(project, "payments") if batch.rows]
    return Counter(number for frame in frames for number in frame["id"].to_list())


def test_shards_that_are_split_and_merged_while_they_are_ingested(new_topic, split, merge, project_of, monkeypatch):
    """Children are read after their parents, and nothing is lost or read twice."""
    monkeypatch.setattr(stream_reader, "_REFRESH", 0.5)
    topic = new_topic(2)
    project = project_of(topic)
    streams, stop, sent = project.streams(), threading.Event(), itertools.count()
    limits = IngestLimits(seconds=0.3)
    reader = threading.Thread(
        target=ingest_streams,
        args=(project,),
        kwargs={"principal": project.principal(), "stop": stop, "limits": limits},
    )

    def send(shard, count=20):
        streams.produce(topic, payments(itertools.islice(sent, count)), partition=shard)

    def wait_for(count):
        deadline = time.monotonic() + PATIENCE
        while sum(ids(project).values()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.2)

    send(0)
    reader.start()
    wait_for(20)
    send(0)
    send(1)
    split(topic, 0)  # into 2 and 3, before all of it was read
    send(2)
    send(3)
    split(topic, 2)  # whose children are 4 and 5
    send(4)
    merge(topic, 5, 3)
    send(6)
    with pytest.raises(UsageError, match="was split or merged"):
        streams.produce(topic, [b"{}"], partition=0)
    wait_for(140)
    listed, forgotten = KinesisStreams._shards, threading.Event()

    def without_first(self, topic):  # as a day after it was split
        forgotten.set()
        return {number: shard for number, shard in listed(self, topic).items() if number}

    with monkeypatch.context() as patch:
        patch.setattr(KinesisStreams, "_shards", without_first)
        assert forgotten.wait(PATIENCE)
        send(1)
        wait_for(160)
        stop.set()
        reader.join(PATIENCE)
    assert not reader.is_alive()
    assert ids(project) == Counter(range(160))
    (status,) = stream_status(project, principal=project.principal())
    assert [part.partition for part in status.partitions] == list(range(7))
    assert [shard_position(part.position).ended for part in status.partitions] == [
        shard in (0, 2, 3, 5) for shard in range(7)
    ]
    assert status.lag == 0
    send(1)  # one call more goes on from these positions
    (result,) = ingest_streams(project, principal=project.principal(), once=True)
    assert (result.messages, result.lag) == (20, 0)
    assert ids(project) == Counter(range(180))


def test_a_child_is_read_after_its_parents(new_topic, split, streams):
    topic = new_topic(1)
    streams.produce(topic, [b"%d" % number for number in range(30)], partition=0)
    split(topic, 0)
    for child in (1, 2):
        streams.produce(topic, [b"child"], partition=child)
    assert streams.partitions(topic) == [0, 1, 2]
    order, deadline = [], time.monotonic() + PATIENCE
    with streams.consume(topic, dict.fromkeys(range(3), 0)) as consumer:
        while len(order) < 32 and time.monotonic() < deadline:
            for batch in consumer.read(20, 0.5):
                order += [batch.partition] * len(batch.values)
                if batch.partition == 0:
                    last = batch.next
    assert order[:30] == [0] * 30
    assert sorted(order[30:]) == [1, 2]
    assert streams.lag(topic, {0: last, 1: 0}) == {0: 0, 1: 1}
    with streams.consume(topic, {0: last, 9: last}) as consumer:  # ended, and later forgotten by the service
        assert consumer.read(1 << 20, 0.1) == []


def test_a_refused_message_has_its_sequence_number(new_topic, project_of, service):
    topic = new_topic(1)
    project = project_of(topic)
    number = service.put_record(StreamName=topic, Data=b"{", PartitionKey="p")["SequenceNumber"]
    project.streams().produce(topic, payments(range(3)), partition=0)
    (result,) = ingest_streams(project, principal=project.principal(), once=True)
    assert (result.rows, result.refused) == (3, 1)
    refused = refused_messages(project, "payments", principal=project.principal()).frame
    assert refused.rows() == [("row:json", 0, number, "{")]
    assert len(number) == 56


def test_messages_that_expired_before_they_were_read(new_topic, streams):
    """The emulator keeps messages for ever; what the positions say decides, and the message that was read last."""
    topic = new_topic(1)
    streams.produce(topic, [b"a"], partition=0)
    end = shard_position(streams.produce(topic, [b"b"], partition=0))
    long_ago = driver.now_millis() - 25 * HOUR
    with pytest.raises(LostMessagesError, match="may be gone"), streams.consume(topic, {0: position_at(long_ago)}):
        pass
    kept = ShardPosition(long_ago, end.last).number  # it is still there, and so is all after it
    with streams.consume(topic, {0: kept}) as consumer:
        assert [batch.values for batch in consumer.read(1 << 20, 1.0)] == [[]]
    gone = ShardPosition(long_ago, end.last - 1).number
    with pytest.raises(LostMessagesError, match="may be gone"), streams.consume(topic, {0: gone}):
        pass
    with pytest.raises(LostMessagesError, match="may be gone"), streams.consume(topic, {7: position_at(long_ago)}):
        pass


def test_a_stream_that_is_throttled_and_an_iterator_that_expired(new_topic, streams, service, monkeypatch):
    topic = new_topic(1)
    streams.produce(topic, [b"a"], partition=0)
    faults = ["ProvisionedThroughputExceededException", "ExpiredIteratorException", "KMSThrottlingException"]
    real, received = service.get_records, []

    def get_records(**request):
        if faults:
            raise ClientError({"Error": {"Code": faults.pop()}}, "GetRecords")
        return real(**request)

    with streams.consume(topic, {0: 0}) as consumer:
        monkeypatch.setattr(service, "get_records", get_records)
        deadline = time.monotonic() + PATIENCE
        while not received and time.monotonic() < deadline:
            received += [value for batch in consumer.read(1 << 20, 0.2) for value in batch.values]
    assert (received, faults) == ([b"a"], [])
    streams.produce(topic, [b"b", b"c"], partition=0)

    def get_one(**request):
        faults.append("ProvisionedThroughputExceededException")
        if len(faults) > 1:
            raise ClientError({"Error": {"Code": faults.pop()}}, "GetRecords")
        return real(**request | {"Limit": 1})

    monkeypatch.setattr(service, "get_records", get_one)
    assert streams.lag(topic, {0: 0}) == {0: 1}, "what could be counted"


def test_faults_of_the_service(streams, url, monkeypatch, tmp_path):
    for key in (*KEYS, "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    away = KinesisStreams(
        f"kinesis://eu-central-1?endpoint=http://127.0.0.1:{free_port()}", secrets=MemorySecrets(KEYS)
    )
    with pytest.raises(EngineUnavailableError):
        away.partitions("a")
    unknown = KinesisStreams(url)
    with pytest.raises(CredentialsError, match="no credentials"):
        unknown.partitions("a")
    with pytest.raises(UsageError, match="no region"):
        KinesisStreams("kinesis://", secrets=MemorySecrets(KEYS)).partitions("a")
    for address in ("kinesis://Frankfurt!", "kinesis://x?endpoint=ftp://host", "kinesis://x?endpoint=http://a:b@host"):
        with pytest.raises(UsageError):
            KinesisStreams(address)
    answers = {"AccessDeniedException": CredentialsError, "InternalFailure": EngineUnavailableError, "?": StorageError}
    for code, fault in answers.items():
        answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 500 if code[0] == "I" else 400}}
        with pytest.raises(fault), streams._connection.errors("a"):
            raise ClientError(answer, "GetRecords")
    for client in (away, unknown):
        client.close()
