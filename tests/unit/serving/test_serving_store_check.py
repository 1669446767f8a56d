"""Readiness checks report the online store that does not answer, and nothing that is long past."""

from __future__ import annotations

import asyncio

import pytest
from serving_models import SALT, WINDOWED, fill_state, flights, servable, windowed_model

from cumulant.core.errors import EngineUnavailableError
from cumulant.serving.models.row_model import RowModel
from cumulant.serving.models.store_check import StoreCheck
from cumulant.testing.online import MemoryOnline


class RemoteStore(MemoryOnline):
    """A store behind a network that can be down."""

    remote = True
    down = False

    async def read(self, table, keys):
        if self.down:
            raise EngineUnavailableError("the online store does not answer")
        return await super().read(table, keys)


@pytest.fixture
def store():
    return RemoteStore()


@pytest.fixture
def model(tmp_path, store):
    sample = {"hour": [1, 2], "late_1d": [0.5, None]}
    folder = servable(tmp_path / "servable", plan=WINDOWED, model=windowed_model(), sample=sample)
    fill_state(store, WINDOWED, {"flights": flights(30).lazy()}, table="flight-late-state")
    made = RowModel(folder, store=store, salt=SALT)
    yield made
    made.close()


def test_a_check_reports_the_attempt_of_the_check_before_for_a_minute(model, store):
    now = [0.0]
    check = StoreCheck(steady=lambda: now[0])

    async def ready(after):
        now[0] += after
        check.renew([model])
        reported = check.unreachable
        await asyncio.sleep(0)  # the attempt
        return reported

    async def reported():
        store.down = True
        assert [await ready(after) for after in (0, 10, 30)] == [False, True, True]
        store.down = False
        assert [await ready(after) for after in (30, 1)] == [True, False]
        store.down = True
        assert [await ready(after) for after in (10, 3600)] == [False, False], "of an hour ago"
        assert await ready(10)
        check.renew([])
        assert not check.unreachable, "no model needs it"

    asyncio.run(reported())
