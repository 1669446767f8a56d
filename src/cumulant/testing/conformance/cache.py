"""What every shared cache keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from cumulant.ports.cache import SharedCache

#: makes a cache over the same store each time, and closes it
Opened = Callable[[], AbstractAsyncContextManager[SharedCache]]


class CacheConformance:
    """Subclass it with a fixture `opened`: an `Opened`."""

    def test_what_was_put_is_read_by_others(self, opened: Opened) -> None:
        async def act() -> None:
            async with opened() as client, opened() as other:
                await client.open()
                await other.open()
                assert await other.get("absent") is None
                for value in (b"", b"\x00\r\n$-1\r\n\xff", bytes(300_000)):
                    await client.put("key", value, 60.0)
                    assert await other.get("key") == value

        _run(act)

    def test_values_expire(self, opened: Opened) -> None:
        async def act() -> None:
            async with opened() as client:
                await client.open()
                await client.put("short", b"1", 0.05)
                await client.put("long", b"2", 60.0)
                await asyncio.sleep(0.2)
                assert await client.get("short") is None
                assert await client.get("long") == b"2"

        _run(act)

    def test_a_cancelled_call_does_not_affect_later_ones(self, opened: Opened) -> None:
        async def act() -> None:
            async with opened() as client:
                await client.open()
                for number in range(20):
                    await client.put(str(number), str(number).encode(), 60.0)
                    given_up = asyncio.ensure_future(client.get("0"))
                    await asyncio.sleep(0)
                    given_up.cancel()
                    assert await client.get(str(number)) == str(number).encode()

        _run(act)

    def test_many_calls_at_once(self, opened: Opened) -> None:
        async def act() -> None:
            async with opened() as client:
                await client.open()
                names = [str(number) for number in range(200)]
                for name in names:
                    await client.put(name, name.encode(), 60.0)
                assert await asyncio.gather(*map(client.get, names)) == [name.encode() for name in names]

        _run(act)


def _run(act: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await act()

    asyncio.run(bounded())
