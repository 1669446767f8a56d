"""The cache that servers share: what is believed, what it may cost, and peers that do everything wrong."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serving_scheduling import Doubling, feeds
from valkey_peer import Peer

from cumulant.core.errors import EngineUnavailableError, StorageError, UsageError
from cumulant.core.servable import TensorSpec
from cumulant.drivers.valkey.cache import ValkeyCache
from cumulant.drivers.valkey.location import parse_cache_url
from cumulant.serving.__main__ import _cache
from cumulant.serving.cache.answer_cache import Caching, key_of
from cumulant.serving.cache.shared_answers import SharedAnswers, seal, unseal
from cumulant.serving.cache.shared_cache import CircuitBreaker, SharedCacheTier
from cumulant.serving.scheduling.job_queue import Demand
from cumulant.serving.scheduling.runner import Runner, Scheduling
from cumulant.testing.cache import MemoryCache

SPECS = [TensorSpec("y", "FP32", (-1, 1))]
BUDGET = 0.05

# The sealed form -------------------------------------------------------------------------------------------------

KINDS = ["BOOL", "UINT8", "INT16", "INT64", "FP16", "FP32", "FP64"]


def array_of(kind, shape, seed=0):
    dtype = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64"}.get(kind, kind.lower())
    return (np.random.default_rng(seed).normal(size=shape) * 9).astype(dtype)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=4))
@settings(deadline=None)
def test_arrays_come_back_bit_for_bit(made):
    arrays = [array_of(kind, tuple(shape), n) for n, (kind, shape) in enumerate(made)]
    specs = [TensorSpec(str(n), kind, (-1,) * len(shape)) for n, (kind, shape) in enumerate(made)]
    found = unseal("key", seal("key", arrays), specs)
    assert [(a.dtype, a.shape, a.tobytes()) for a in found] == [(a.dtype, a.shape, a.tobytes()) for a in arrays]


SEALED = seal("key", [array_of("FP32", (2, 1)), array_of("INT64", (3,))])
FORM = [TensorSpec("a", "FP32", (-1, 1)), TensorSpec("b", "INT64", (-1,))]


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
@settings(deadline=None)
def test_no_damaged_value_is_believed(place, change):
    damaged = bytearray(SEALED)
    damaged[place] ^= change
    assert unseal("key", bytes(damaged), FORM) is None
    assert unseal("key", SEALED[:place], FORM) is None
    assert unseal("key", SEALED + SEALED[: place + 1], FORM) is None


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_noise_is_believed_though_its_hash_is_right(noise):
    from cumulant.serving.cache.shared_answers import _MAGIC, _hash

    for body in (noise, _MAGIC + noise, _MAGIC + b"\x02\x0a\x02" + noise):
        found = unseal("key", body + _hash("key", body), FORM)
        assert found is None or [array.dtype for array in found] == [np.float32, np.int64]


def test_values_of_other_keys_and_forms_are_not_believed():
    assert unseal("key", SEALED, FORM) is not None
    assert unseal("other", SEALED, FORM) is None
    assert unseal("key", SEALED, FORM[:1]) is None
    assert unseal("key", SEALED, [FORM[0], TensorSpec("b", "UINT64", (-1,))]) is None
    assert unseal("key", SEALED, [FORM[0], TensorSpec("b", "INT64", (4,))]) is None
    assert seal("key", [np.array(["text"], dtype=object)]) is None


# Keys ------------------------------------------------------------------------------------------------------------


def test_inputs_in_another_order_are_the_same_question_and_swapped_values_another():
    one, two = np.array([1.0]), np.array([2.0])
    assert key_of({"a": one, "b": two}) == key_of({"b": two, "a": one})
    assert key_of({"a": one, "b": two}) != key_of({"b": one, "a": two})


def test_names_in_the_store_are_equal_in_every_process_and_show_no_input():
    code = (
        "import numpy as np; from test_shared_cache import answers, key_of; "
        "print(answers(None)._name(key_of({'x': np.array([[1.5]], dtype=np.float32)})))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env=environment(seed), capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    name = said.pop().strip()
    assert name == answers(None)._name(key_of({"x": np.array([[1.5]], dtype=np.float32)}))
    assert name != answers(None, version="2")._name(key_of({"x": np.array([[1.5]], dtype=np.float32)}))


def environment(seed):
    import os

    return {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}


def answers(tier, *, version="1", **more):
    return SharedAnswers(tier, {"model": "m", "version": version}, SPECS, ttl=60.0, **more)


# The breaker -----------------------------------------------------------------------------------------------------


def test_a_breaker_opens_after_failures_in_a_row_and_waits_longer_each_time():
    clock = SimpleNamespace(now=0.0)
    breaker = CircuitBreaker(lambda: clock.now, lambda: 0.5)
    for _ in range(4):
        breaker.fail()
    breaker.succeed()
    for _ in range(4):
        breaker.fail()
    assert breaker.closed
    breaker.fail()
    assert not breaker.closed
    waits = []
    for _ in range(12):
        waits.append(breaker.wait())
        breaker.fail()  # those that were on their way change nothing
        breaker.trip()
    assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert waits[-1] == 30.0
    clock.now += 30.0
    assert breaker.wait() == 0.0
    breaker.succeed()
    breaker.trip()
    assert breaker.wait() == 30.0  # it was back for no time at all
    clock.now += 1000.0
    breaker.succeed()
    clock.now += 1000.0
    breaker.trip()
    assert breaker.wait() == pytest.approx(0.1)


# Runners ---------------------------------------------------------------------------------------------------------


def joined(store, engine, *, budget=BUDGET, mode="auto", seconds=0.01, round_trip=0.0001):
    """A runner whose engine seems to take `seconds` a run, and its tier, to be started."""
    made = Runner(engine, ["y"], exact=True, scheduling=Scheduling(queue=10.0), caching=Caching(mode=mode))
    made.cost.learn(1, seconds)
    tier = SharedCacheTier(store, budget)
    tier.round_trip = round_trip
    made.shared = answers(tier, on_hit=made.cache.put_shared, always=mode == "on")
    return made, tier


async def score(made, one, **more):
    found = made.run_now(one, 1)
    (array,) = found if found is not None else await made.run_later(one, 1, **more)
    return array.tolist()


async def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def test_what_one_runner_scored_another_knows():
    async def act():
        store, engines = MemoryCache(), [Doubling(), Doubling()]
        (one, first), (other, second) = (joined(store, engine) for engine in engines)
        first.start(), second.start()
        assert await score(one, feeds(3)) == [[6.0]]
        await until(lambda: store.entries)
        assert await asyncio.gather(*(score(other, feeds(3)) for _ in range(5))) == [[[6.0]]] * 5
        assert engines[1].runs == []
        assert other.shared.counts.lookups == {"hit": 1}  # one look for all of them
        assert one.shared.counts.lookups == {"miss": 1}
        assert one.shared.counts.writes == {"written": 1}
        assert other.run_now(feeds(3), 1)[0].tolist() == [[6.0]]  # and it is in the own tier now
        await first.close(), await second.close()

    asyncio.run(act())


def test_many_who_ask_the_same_look_once_and_run_once():
    async def act():
        engine = Doubling()
        made, tier = joined(MemoryCache(), engine)
        tier.start()
        assert await asyncio.gather(*(score(made, feeds(3)) for _ in range(20))) == [[[6.0]]] * 20
        assert made.shared.counts.lookups == {"miss": 1}
        assert engine.runs == [[3.0]]
        await tier.close()

    asyncio.run(act())


def test_who_gives_up_does_not_take_the_look_from_the_others():
    async def act():
        made, tier = joined(MemoryCache(), Doubling())
        tier.start()
        tasks = [asyncio.ensure_future(score(made, feeds(3))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        assert await asyncio.gather(*tasks[1:]) == [[[6.0]]] * 2
        await tier.close()

    asyncio.run(act())


def test_it_is_asked_only_where_that_pays():
    async def act():
        for seconds, round_trip, mode, asked in (
            (0.01, 0.001, "auto", True),
            (0.0005, 0.001, "auto", False),
            (0.0005, 0.001, "on", True),
            (0.01, None, "auto", False),
        ):
            made, tier = joined(MemoryCache(), Doubling(), seconds=seconds, round_trip=round_trip, mode=mode)
            assert await score(made, feeds(1)) == [[2.0]]
            assert bool(made.shared.counts.lookups) == asked, (seconds, round_trip, mode)
            await tier.close()

    asyncio.run(act())


def test_looks_that_never_hit_are_given_up_and_writes_go_on():
    async def act():
        made, tier = joined(MemoryCache(), Doubling())
        tier.start()
        for number in range(260):
            key = str(number).encode()
            if (look := made.shared.lookup(key, 1.0)) is not None:
                assert await look is None
            made.shared.store(key, [np.ones((1, 1), np.float32)], 1.0)
        assert made.shared.counts.lookups == {"miss": 200}
        await until(lambda: made.shared.counts.writes.get("written") == 260)
        await tier.close()

    asyncio.run(act())


def test_a_request_without_the_time_for_a_look_goes_without():
    async def act():
        made, tier = joined(MemoryCache(), Doubling(), budget=120.0)
        assert await score(made, feeds(1), demand=Demand(deadline=time.perf_counter() + 60)) == [[2.0]]
        assert made.shared.counts.lookups == {}
        await tier.close()

    asyncio.run(act())


def test_writes_that_nobody_takes_are_bounded():
    async def act():
        made, tier = joined(MemoryCache(), Doubling())  # never started: nobody writes
        for number in range(1300):
            made.shared.store(str(number).encode(), [np.ones((1, 1), np.float32)], 1.0)
        made.shared.store(b"large", [np.ones((2**20, 1), np.float32)], 1.0)
        assert made.shared.counts.writes == {"dropped": 301}
        await tier.close()

    asyncio.run(act())


# Peers that do everything wrong ----------------------------------------------------------------------------------

GARBAGE = {
    "noise": b"\x00\xff" * 50 + b"\r\n",
    "no number": b"$twelve\r\n",
    "a negative length": b"$-7\r\nabc\r\n",
    "half an answer": b"$100\r\nabc",
    "a terabyte": b"$1099511627776\r\n" + b"x" * 5000,
    "a list": b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
    "lists in lists": b"*1\r\n" * 30_000,
    "a list without end": b"*999999999\r\n" + b":1\r\n" * 5000,
    "a number": b":12\r\n",
    "two answers": b"$-1\r\n$1\r\nx\r\n",
    "words": b"+OK\r\n",
    "another value": b"$5\r\nhello\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "an error": b"-ERR no\r\n",
    "a line without end": b"+" + b"x" * 300_000,
    "an error that is no text": b"-\xff\xfe\r\n",
    "no password": b"-NOAUTH Authentication required.\r\n",
    "loading": b"-LOADING Valkey is loading the dataset in memory\r\n",
}


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("mood", ["hangs", "closes", *GARBAGE])
def test_a_hostile_peer_costs_no_request_more_than_the_budget(mood, greets, capsys):
    async def act():
        peer, engine = Peer(), Doubling()
        async with peer.listening() as url:
            made, tier = joined(ValkeyCache(url), engine, mode="on", round_trip=None)
            tier.start()
            await until(lambda: tier.ready)
            assert await score(made, feeds(-1)) == [[-2.0]]
            # On a busy machine even a sound peer answers after the budget.
            assert made.shared.counts.lookups in ({"miss": 1}, {"late": 1})
            peer.mood, peer.greets = GARBAGE.get(mood, mood), greets
            longest = 0.0
            for number in range(30):
                began = time.perf_counter()
                assert await score(made, feeds(number)) == [[2.0 * number]]
                longest = max(longest, time.perf_counter() - began)
            assert longest < BUDGET + 60  # one that hangs would for ever; the rest is a busy machine's
            good = {"two answers", "a negative length"}
            assert mood in good or not tier.reads.closed or peer.greets
            looks = dict(made.shared.counts.lookups)
            assert looks.get("hit", 0) == 0
            # It is well again, and so are we.
            peer.mood = "good"
            await until(lambda: tier.ready and tier.reads.closed, 30)

            async def works():
                before = made.shared.counts.lookups.get("miss", 0)
                await score(made, feeds(time.perf_counter()))
                return made.shared.counts.lookups.get("miss", 0) > before

            deadline = time.monotonic() + 60
            while not await works():
                assert time.monotonic() < deadline
            await tier.close()
        made.close()

    asyncio.run(act())


def test_a_store_that_hangs_is_left_alone_after_a_few_looks():
    async def act():
        peer = Peer()
        async with peer.listening() as url:
            made, tier = joined(ValkeyCache(url), Doubling(), mode="on", round_trip=None)
            tier.start()
            await until(lambda: tier.ready)
            peer.mood = "hangs"
            for number in range(50):
                await score(made, feeds(number))
            assert made.shared.counts.lookups == {"late": 5}
            await tier.close()

    asyncio.run(act())


def test_a_store_without_memory_is_read_and_not_written_to():
    async def act():
        class Full(MemoryCache):
            async def put(self, key, value, ttl):
                raise StorageError("OOM command not allowed")

        made, tier = joined(Full(), Doubling(), mode="on")
        tier.start()
        for number in range(20):
            await score(made, feeds(number))
        assert made.shared.counts.lookups == {"miss": 20}
        await until(lambda: sum(made.shared.counts.writes.values()) == 20)
        assert made.shared.counts.writes["failed"] <= 3
        assert tier.reads.closed
        assert not tier.writes.closed
        await tier.close()

    asyncio.run(act())


def test_nobody_listens():
    async def act():
        cache = ValkeyCache("valkey://127.0.0.1:1/0")
        with pytest.raises(EngineUnavailableError, match="cannot be reached"):
            await cache.open()
        with pytest.raises(EngineUnavailableError):
            await cache.put("key", b"", 1.0)
        await cache.close()

    asyncio.run(act())


def test_connections_are_bounded_and_a_look_does_not_wait_for_a_new_one():
    async def act():
        peer = Peer()
        async with peer.listening() as url:
            cache = ValkeyCache(url)
            await cache.open()
            for _ in range(3):
                await asyncio.gather(*(cache.get(str(number)) for number in range(100)))
            assert len(cache._all) <= 8
            assert len(peer.commands) == 301
            await cache.close()
            assert not cache._all

    asyncio.run(act())


def test_an_encrypted_connection_is_to_the_one_whose_certificate_is_trusted(tmp_path):
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    own = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-subj", "/CN=peer"]
    named = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [program, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *own, *named], check=True, capture_output=True
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    async def act():
        async with Peer().listening(context) as url:
            trusting, other = ValkeyCache(f"{url}?ca={tmp_path / 'cert.pem'}", password="secret"), ValkeyCache(url)
            await trusting.open()
            await trusting.put("key", b"value", 60.0)
            assert await trusting.get("key") == b"value"
            with pytest.raises(EngineUnavailableError):
                await other.open()
            with pytest.raises(EngineUnavailableError):  # the certificate names another host
                await ValkeyCache(f"{url.replace('127.0.0.1', 'localhost')}?ca={tmp_path / 'cert.pem'}").open()
            await trusting.close()
            await other.close()

    asyncio.run(act())


# Addresses -------------------------------------------------------------------------------------------------------


def test_what_an_address_says():
    encrypted, found = parse_cache_url("valkey://me@host:7000/3", "secret")
    assert not encrypted
    assert found == {"host": "host", "port": 7000, "db": 3, "username": "me", "password": "secret"}
    encrypted, found = parse_cache_url("rediss://host?ca=ca.pem", None)
    assert encrypted
    assert found["ssl_check_hostname"] is True
    assert found["ssl_ca_certs"] == "ca.pem"
    assert (found["port"], found["db"]) == (6379, 0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("valkey://me:secret@host/0", "holds a password"),
        ("valkey:///0", "is no address"),
        ("valkey://host/zero", "is no address"),
        ("valkey://host:port/0", "is no URL"),
        ("valkey://host/0?ca=ca.pem", "option"),
        ("rediss://host/0?timeout=3", "option"),
    ],
)
def test_addresses_that_are_refused(url, said):
    with pytest.raises(UsageError, match=said) as caught:
        parse_cache_url(url, None)
    assert "secret" not in str(caught.value)


def test_what_the_command_line_says_of_the_cache(monkeypatch):
    monkeypatch.setenv("CUMULANT_CACHE_PASSWORD", "secret")
    assert _cache([], 0.005) == ("auto", None)
    assert _cache(["off"], 0.005) == ("off", None)
    mode, sharing = _cache(["on", "valkey://host/0"], 0.02)
    assert (mode, sharing.url, sharing.password, sharing.budget) == ("on", "valkey://host/0", "secret", 0.02)
    for wrong in (["never"], ["valkey://a/0", "valkey://b/0"], ["off", "valkey://a/0"]):
        with pytest.raises(UsageError):
            _cache(wrong, 0.005)
