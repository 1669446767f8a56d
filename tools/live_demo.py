#!/usr/bin/env python3
"""The Black Friday demo on a Kafka broker and Valkey of its own, which end with it.

`make demo-fraud ENGINES=live` installs the programs and runs this; arguments are those of `cumulant demo-fraud`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from cumulant.demo.fraud.project import PARTITIONS, TOPIC
from cumulant.testing.servers.kafka import kafka_server
from cumulant.testing.servers.valkey import valkey_server


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the servers end, too
    with tempfile.TemporaryDirectory(prefix="cumulant-live-") as folder:
        try:
            print(
                "Kafka and Valkey start; stream processing is the embedded runner: Flink is not used yet",
                file=sys.stderr,
            )
            with kafka_server(Path(folder)) as kafka, valkey_server() as valkey:
                kafka.create_topic(TOPIC, PARTITIONS)
                line = [
                    sys.executable,
                    "-m",
                    "cumulant.cli",
                    "demo-fraud",
                    "--streams",
                    kafka.url,
                    "--online",
                    valkey.url,
                ]
                return subprocess.run([*line, *arguments], check=False).returncode
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 3
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
