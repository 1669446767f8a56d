"""A process that posts payments until it is killed, and says which ones were acknowledged.

python advance_worker.py URL LOG FIRST_ID
"""

import os
import sys
from datetime import UTC, datetime, timedelta

from advance_plan import PLAN

from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.update_batches import Advancer
from cumulant.ports.plugins import Drivers

START = datetime(2013, 4, 1, tzinfo=UTC)


def main(url: str, log: str, first: int) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    store = Drivers.installed().client(url, "online")
    with Advancer([StateWriter(PLAN, store, "t")]) as advancer:
        for number in range(first, first + 1_000_000, 3):
            rows = [
                {"id": one, "card": f"c{one % 5}", "at": START + timedelta(seconds=one % 1000), "amount": 1.0}
                for one in range(number, number + 3)
            ]
            # each row is told twice, as by a caller that tries again
            done = [advancer.post("tx", [row]) for row in rows + rows]
            accepted = sum(future.result().accepted for future in done)
            assert accepted == 3, accepted
            os.write(handle, b"".join(b"%d\n" % row["id"] for row in rows))  # type: ignore[str-format]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
