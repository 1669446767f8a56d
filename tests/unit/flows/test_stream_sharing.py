"""Several processes ingest one source: whoever joins, leaves, is killed or wakes up late, each message is a row once."""

import json
import threading
from collections import Counter
from contextlib import nullcontext, suppress

import pytest

from cumulant.core.errors import LeaseHeldError
from cumulant.core.events import Actor
from cumulant.core.progress import silent
from cumulant.data.streams.checking import VALUE
from cumulant.data.streams.sharing import divide
from cumulant.flows.data import stream_lag, stream_reader
from cumulant.flows.data.stream_membership import MEMBER_SECONDS, StreamMember, member_name, owned
from cumulant.flows.data.stream_reader import IngestLimits, StreamReader
from cumulant.flows.data.stream_records import find_state, read_batches
from cumulant.flows.data.stream_views import stream_status
from cumulant.flows.ledger import lease
from cumulant.project.file.loading import load
from cumulant.testing.log import seeded

PROJECT = """
version: 1
model: {name: shop}
data: {payments: {stream: pay, key: id}}
"""


@pytest.mark.parametrize("seed", range(20))
def test_shares_differ_by_one_at_most_and_few_partitions_move(seed):
    rng = seeded(seed)
    partitions = range(rng.randint(1, 12))
    members = [f"m{number}" for number in range(rng.randint(1, 5))]
    owners = {number: rng.choice([*members, "gone"]) for number in partitions if rng.random() < 0.8}
    before = {number: owner for number, owner in owners.items() if owner in members}
    for _ in range(2):
        for own in rng.sample(members, len(members)):
            share = divide(partitions, owners, members, own)
            assert all(owners[number] == own for number in share.release)
            assert all(owners.get(number) not in members for number in share.take)
            owners = {number: owner for number, owner in owners.items() if number not in share.release}
            owners |= dict.fromkeys(share.take, own)
    sizes = Counter(dict.fromkeys(members, 0))
    sizes.update(owners.values())
    assert owners.keys() == set(partitions)
    assert max(sizes.values()) - min(sizes.values()) <= 1
    least, larger = divmod(len(partitions), len(members))
    excess = sorted(Counter(before.values()).values(), reverse=True)
    moved = sum(owners[number] != owner for number, owner in before.items())
    assert moved == sum(max(size - least - (rank < larger), 0) for rank, size in enumerate(excess))


class _World:
    """Readers of one source in this process, whose clock and renewals the test moves."""

    def __init__(self, project, rng):
        self.project, self.rng = project, rng
        self.now, self.sent, self.partitions = 0.0, 0, 2
        self.working, self.stopped, self.gone = [], [], []
        for partition in range(self.partitions):
            project.streams().produce("pay", [], partition=partition)

    def send(self):
        partition = self.rng.randrange(self.partitions)
        numbers = range(self.sent, self.sent + self.rng.randint(1, 30))
        # new fields come at times, also where several processes see them at once
        more = {self.rng.choice("abc"): self.rng.choice([1, "x"])} if self.rng.random() < 0.3 else {}
        values = [json.dumps({"id": number} | more).encode() for number in numbers]
        self.project.streams().produce("pay", values, partition=partition)
        self.sent = numbers.stop

    def add_partition(self):
        self.partitions = min(self.partitions + 1, 5)
        self.project.streams().produce("pay", [], partition=self.partitions - 1)

    def join(self):
        if len(self.working) < 4:
            limits = IngestLimits(seconds=self.rng.choice([0.0, 1e9, 1e9]))
            member = StreamMember(self.project.journal(), "payments", Actor("ada"), lambda: self.now)
            reader = StreamReader(
                self.project, "payments", "pay", Actor("ada"), limits, silent, once=False, member=member
            )
            self.working.append(reader)

    def step(self, *, all_of_them=False):
        count = len(self.working) if all_of_them else self.rng.randint(0, len(self.working))
        for reader in self.rng.sample(self.working, count):
            try:
                reader.step(0.0, threading.Event())
                if self.rng.random() < 0.3:
                    reader.commit()
            except LeaseHeldError as error:
                reader.join_again(error)

    def stop(self):
        """A process is suspended, or killed on another machine, with messages to commit: it renews no more."""
        if self.working:
            for _ in range(3):
                self.send()
            self.step(all_of_them=True)
            self.stopped.append(self.working.pop(self.rng.randrange(len(self.working))))

    def wake(self):
        """A suspended process goes on, in the middle of its commit; what it may still own is committed once."""
        if self.stopped:
            reader = self.stopped.pop()
            reader.finish()
            self.working.append(reader)

    def leave(self):
        if self.working:
            reader = self.working.pop(self.rng.randrange(len(self.working)))
            reader.finish()
            reader.close()
            self.gone.append(reader)

    def pass_time(self, *, step=True):
        for _ in range(self.rng.choice([2, 10]) if step else 1):
            self.now += MEMBER_SECONDS / 6
            for reader in self.working:
                if reader._joined:
                    with suppress(LeaseHeldError):  # the thread that renews ends by it
                        reader._member._lease.beat()
            if step:
                self.step()


@pytest.mark.parametrize("seed", range(3))
def test_random_joins_leaves_kills_and_late_commits(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(stream_reader, "_LOOK", 0.0)
    monkeypatch.setattr(stream_reader, "_REFRESH", 0.0)
    monkeypatch.setattr(stream_lag.LagReporter, "report", lambda *_: None)
    monkeypatch.setattr(lease, "LeaseRenewal", lambda beat, every: nullcontext())
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    rng = seeded(seed)
    with load(tmp_path) as project:
        world = _World(project, rng)
        moves = [world.join, world.leave, world.stop, world.wake, world.add_partition, world.pass_time]
        for _ in range(120):
            rng.choice([*moves, world.send, world.send, world.step, world.step, world.step])()
            _check_batches(project)
        world.join()
        for _ in range(20):  # all that renew no more lapse, and the others share what is there
            world.pass_time(step=False)
            world.step(all_of_them=True)
        for reader in world.working:
            reader.commit()
        state, _ = find_state(project, "payments")
        sizes = [len(owned(state, reader._member.id)) for reader in world.working]
        (status,) = stream_status(project, principal=project.principal())
        assert sorted(len(consumer.partitions) for consumer in status.consumers) == sorted(sizes)
        assert sum(sizes) == world.partitions
        assert max(sizes) - min(sizes) <= 1
        for reader in world.working:
            reader.finish()
            reader.close()
        late = len(read_batches(project, "payments"))
        for reader in world.stopped:
            reader.finish()
        assert len(read_batches(project, "payments")) == late
        _check_batches(project)
        assert _messages(project) == dict.fromkeys(range(world.sent), 1)


def test_a_process_whose_lease_is_gone_commits_nothing(tmp_path):
    (tmp_path / "cumulant.yaml").write_text(PROJECT)
    with load(tmp_path) as project:
        project.streams().produce("pay", [b'{"id": 1}'], partition=0)
        reader = StreamReader(project, "payments", "pay", Actor("ada"), IngestLimits(), silent, once=False)
        reader.step(0.0, threading.Event())
        with project.journal().transaction(actor=Actor("ada")) as transaction:
            transaction.delete(lease.LEASE, member_name("payments", reader._member.id))
        state, _ = find_state(project, "payments")
        assert owned(state, reader._member.id) == {0}
        with pytest.raises(LeaseHeldError):
            reader.commit()
        assert read_batches(project, "payments") == []
        reader.close()


def _messages(project):
    """How often each is a row or refused: of fields that come new, most have one kind, and others are refused."""
    tables, counts = project.tables(), Counter()
    for batch in read_batches(project, "payments"):
        if batch.rows is not None:
            counts.update(batch.rows.scan(tables).collect()["id"].to_list())
        if batch.refused is not None:
            counts.update(json.loads(value)["id"] for value in batch.refused.scan(tables).collect()[VALUE])
    return counts


def _check_batches(project):
    """Numbers are in order and without gaps, and a batch has the positions that it moved, and no others."""
    batches = read_batches(project, "payments")
    assert [batch.number for batch in batches] == list(range(1, len(batches) + 1))
    positions = {}
    for batch in batches:
        assert all(position > positions.get(number, -1) for number, position in batch.positions.items())
        positions |= batch.positions
