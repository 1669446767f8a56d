"""The folder of the Black Friday story: the template's features, with payments that come from a topic."""

from __future__ import annotations

import shutil
from pathlib import Path

import cumulant
from cumulant.core.errors import UsageError

NAME, SOURCE, TOPIC, PARTITIONS = "card-fraud", "tx", "payments", 2
LIVE = "live"
MARK = "# The Black Friday story of `cumulant demo-fraud`.\n"


PROJECT = (
    MARK
    + f"""\
# yaml-language-server: $schema=cumulant.schema.json
version: 1
model:
  name: {NAME}
  owner: risk@example.com
  purpose: Hold a card payment for review
  risk: medium
data:
  {SOURCE}:
    stream: {TOPIC}                    # each payment at once; again, with its outcome, when that is delivered
    key: TRANSACTION_ID
    event_time: TX_DATETIME
    known_time: {{CHARGEBACK_AT: [TX_FRAUD]}}
    on_repeat: latest
    personal: [CUSTOMER_ID]             # a keyed hash in logs, input examples, quarantine, review
    rules: {{TX_AMOUNT: {{min: 0, max: 10000}}, TX_FRAUD: {{in: [0, 1]}}}}
features: features.py
training:
  target: TX_FRAUD
  since: 2025-08-18                     # history before it still feeds the windows
  trainers: [naive, lightgbm]           # the demo is to take minutes, and to be the same everywhere
  trials: 2
  time: null
  folds: 3
  cost: {{false_negative: TX_AMOUNT, false_positive: 5}}  # a name is a column
evaluation:
  test: 14d
  gate: {{average_precision: {{margin: 0.05}}, cost: {{margin: 0.05}}}}
serving:
  queue: 5s                             # a payment waits rather than be refused; default 40ms
  log: {{keep: 20000d, features: 100%}}   # the story is of 2025, and old predictions are removed else
monitoring:
  labels: data/chargebacks/*.csv
  performance: {{label_delay: 11d}}       # outcomes of a day are delivered 7 to 14 days later
  retrain: {{when: loss_confirmed, labels: 200, least_labels: 100}}
"""
)


def begin_folder(folder: Path, *, streams: str = "", online: str = "", stream_engine: str = "") -> None:
    """A new project of the story in `folder`; that of an earlier story is removed.

    `streams`, `online` and `stream_engine`: URLs of the environment `live`, which is declared where one is given.

    Raises:
        UsageError: the folder holds something else.
    """
    path = folder / "cumulant.yaml"
    if path.exists() and path.read_text(encoding="utf-8").startswith(MARK):
        with cumulant.open(folder) as project:
            project.stack.down()
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UsageError(
            f"{folder} holds something that is not this demo's",
            subject=str(folder),
            hint="name another folder with --dir",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rmdir()
    cumulant.new_from_template("fraud", name=folder.name, directory=folder.parent)
    shutil.rmtree(folder / "data")
    (folder / "data" / "chargebacks").mkdir(parents=True)
    path.write_text(
        PROJECT + _environment(streams=streams, online=online, stream_engine=stream_engine), encoding="utf-8"
    )


def _environment(**urls: str) -> str:
    named = [f"    {key}: {url}\n" for key, url in urls.items() if url]
    return f"environments:\n  {LIVE}:\n{''.join(named)}" if named else ""


def add_topic(streams: Path) -> None:
    """The topic, below the folder of all topics, with an empty file for each partition."""
    topic = streams / TOPIC
    topic.mkdir(parents=True)
    for number in range(PARTITIONS):
        (topic / f"{number}.jsonl").touch()
