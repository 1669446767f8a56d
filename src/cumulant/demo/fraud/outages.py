"""What ingestion cannot go on with: a declaration of another schema, a full disk, a topic that is another one."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cumulant.core.errors import StepFailedError
from cumulant.demo.fraud.ingestion import Ingestion, error_sentence, ingest_line, run_to_end
from cumulant.demo.fraud.project import LIVE, SOURCE, TOPIC, add_topic
from cumulant.demo.fraud.report import OutageReport

if TYPE_CHECKING:
    import cumulant

_OTHER_SCHEMA, _FULL_DISK, _OTHER_TOPIC = "a consumer with another schema", "a full disk", "a topic made anew"
#: a project of somebody else, who takes the same messages for another kind of payment
_LOYALTY = f"""\
version: 1
model: {{name: card-loyalty}}
data:
  {SOURCE}:
    stream: {TOPIC}
    key: PAYMENT_ID
    event_time: PAID_AT
    rules: {{PAYMENT_ID: {{nulls: 0}}}}
environments:
  {LIVE}:
    streams: STREAMS
"""
#: arguments: the folder on which a file system without room is mounted, in a namespace of its own, and a command
_ON_A_FULL_DISK = 'mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs "$1" && shift && exec "$@"'


def read_with_other_schema(project: cumulant.Project) -> OutageReport:
    """Ingest the topic by a project whose declaration does not fit it; both keep to themselves."""
    folder = project.root / "consumers" / "card-loyalty"
    folder.mkdir(parents=True)
    text = _LOYALTY.replace("STREAMS", project.loaded.endpoints.streams)
    (folder / "cumulant.yaml").write_text(text, encoding="utf-8")
    ended = run_to_end(ingest_line(folder, LIVE, "--once"))
    batches = (folder / ".cumulant").rglob("rows.parquet")
    return OutageReport(
        fault=_OTHER_SCHEMA,
        sent=project.streams.status(SOURCE)[0].messages,
        exit_code=ended.returncode,
        answer=error_sentence(ended.stderr),
        committed=len(list(batches)),
    )


def ingest_on_full_disk(project: cumulant.Project, ingestion: Ingestion, sent: int) -> OutageReport:
    """Ingest the messages that wait, with no room for tables; then again with room, by `ingestion`, which is started.

    The file system is a small one that only this command sees. Where it may not be mounted, nothing is played.

    Raises:
        StepFailedError: with room they are not ingested either.
    """
    before = project.streams.status(SOURCE)[0].rows
    exit_code: int | None = None
    (place,) = Path(project.loaded.endpoints.tables.partition("://")[2]).rglob(".writing")
    if isinstance(prefix := _namespace(place), str):
        answer, committed = prefix, 0
    else:
        line = ingest_line(project.root, project.env, "--once")
        ended = run_to_end([*prefix, "sh", "-c", _ON_A_FULL_DISK, "sh", str(place), *line])
        exit_code, answer = ended.returncode, error_sentence(ended.stderr)
        committed = project.streams.status(SOURCE)[0].rows - before
    ingestion.start()
    ingestion.await_features()
    recovered = project.streams.status(SOURCE)[0].rows - before - committed
    return OutageReport(
        fault=_FULL_DISK, sent=sent, exit_code=exit_code, answer=answer, committed=committed, recovered=recovered
    )


def _namespace(place: Path) -> list[str] | str:
    """The command that runs another one with mounts of its own, such as over `place`; or why there is none."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return "not played: mounts of one process need Linux and `unshare`"
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        trial = ["unshare", *options, "sh", "-c", _ON_A_FULL_DISK, "sh", str(place), "true"]
        if (ended := run_to_end(trial)).returncode == 0:
            return ["unshare", *options]
    return f"not played: no file system may be mounted here ({ended.stderr.strip()[-100:]})"


def make_topic_anew(
    project: cumulant.Project, ingestion: Ingestion, command: str, messages: Sequence[bytes]
) -> OutageReport:
    """Delete the topic while it is ingested, make another one of its name, and send messages to it.

    `command` does the first two; without one only a topic of files is replaced.

    Raises:
        StepFailedError: the command fails, or ingestion goes on.
    """
    kind, _, path = project.loaded.endpoints.streams.partition("://")
    if not command and kind != "folder":
        reason = "not played: a broker of others; --replace-topic names the command that does it"
        return OutageReport(fault=_OTHER_TOPIC, sent=0, exit_code=None, answer=reason, committed=0)
    before = project.streams.status(SOURCE)[0].rows
    if command:
        run_command(command)
    else:
        shutil.rmtree(Path(path) / TOPIC)
        add_topic(Path(path))
    project.streams.produce(TOPIC, messages)
    exit_code, answer = ingestion.await_end()
    return OutageReport(
        fault=_OTHER_TOPIC,
        sent=len(messages),
        exit_code=exit_code,
        answer=answer,
        committed=project.streams.status(SOURCE)[0].rows - before,
    )


def run_command(command: str) -> None:
    """Run a command of the caller's. Raises StepFailedError: it fails."""
    ended = run_to_end(shlex.split(command))
    if ended.returncode:
        raise StepFailedError(f"`{command}` failed: {ended.stderr.strip()[-300:]}")
