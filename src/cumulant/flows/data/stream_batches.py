"""One batch of a stream: its messages checked, and stored under keys that nothing shows before they are committed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cumulant.core.errors import ContractBreachError, missing_part

if TYPE_CHECKING:
    import polars as pl

    from cumulant.data.streams.checking import CheckedMessages
    from cumulant.data.streams.decoding import ObjectDecoder
    from cumulant.data.streams.records import StreamBatch, StreamState
    from cumulant.ports.streams import Messages
    from cumulant.project.project import Project

#: from so many messages on, a batch of which none passes shows a wrong declaration rather than bad messages
_ALL_REFUSED = 100


def message_decoder(project: Project, source: str) -> ObjectDecoder | None:
    """What decodes the messages of a source; None: they are JSON.

    Raises:
        UsageError: the source needs a schema registry, and the environment names none.
        MissingPartError: the engine of its format is not installed.
    """
    spec = project.policies.source(source).spec
    kind = spec.registered
    if kind is None:
        return None
    try:
        importlib.import_module("fastavro" if kind == "avro" else "google.protobuf")
    except ModuleNotFoundError as error:
        raise missing_part(error.name or kind, "schemas") from None
    from cumulant.data.streams.registered.decoder import RegisteredDecoder

    return RegisteredDecoder(project.schemas(), kind, spec).objects_of


def check_batch(
    project: Project,
    source: str,
    state: StreamState,
    batch: Sequence[Messages],
    schema: Mapping[str, pl.DataType] | None,
    *,
    decoder: ObjectDecoder | None = None,
    accept_refused: bool,
) -> CheckedMessages:
    """The messages as rows, and those that break a rule. `schema`: of the batch before; `decoder`: see
    `message_decoder`.

    Raises:
        ContractBreachError: no message of a large batch passes, and that is not accepted.
    """
    from cumulant.data.parts.part import PartContext
    from cumulant.data.streams.checking import check_messages

    context = PartContext(source, project.policies.source(source), project.tables())
    checked = check_messages(batch, context, state.columns, schema, decoder)
    count = checked.faulty
    if count >= _ALL_REFUSED and not checked.rows.height and not accept_refused:
        rules = ", ".join(f"{rule} ({number:,})" for rule, number in checked.rules.most_common(3))
        raise ContractBreachError(
            f"source {source}: none of {count:,} messages of {state.topic} passes: {rules}",
            subject=source,
            hint="correct the declaration of the source, or take them as refused with --accept-refused",
        )
    return checked


def store_batch(
    project: Project,
    source: str,
    state: StreamState,
    batch: Sequence[Messages],
    checked: CheckedMessages,
    *,
    member: str,
) -> StreamBatch:
    """Store the rows and the refused messages of a batch that a member read. It has no number yet, and no positions.

    Raises:
        StorageError: they cannot be stored.
    """
    from cumulant.data.row_columns import LATE
    from cumulant.data.snapshot import RowRange
    from cumulant.data.streams.batches import content_of
    from cumulant.data.streams.checking import VALUE
    from cumulant.data.streams.event_times import event_times
    from cumulant.data.streams.records import StreamBatch, table_key
    from cumulant.ports.tables import Protection

    policy, now = project.policies.source(source), datetime.now(UTC)
    spec = policy.spec
    read = {str(messages.partition) for messages in batch}
    before = {number: position for number, position in state.positions.items() if number in read}
    content = content_of(batch, spec, before, state.columns)
    tables, rows, refused = project.tables(), None, None
    times = event_times(checked.rows, checked.numbers, batch, policy, state.event_times, now)
    if checked.rows.height:
        protect = Protection(columns=tuple(sorted(spec.personal)))
        frame = checked.rows if times.late is None else checked.rows.with_columns(times.late.alias(LATE))
        rows = tables.write(table_key(source, member, content, "rows"), frame, protect=protect)
    if checked.refused.height:
        protect = Protection(columns=(VALUE,) if spec.personal else ())
        refused = tables.write(table_key(source, member, content, "refused"), checked.refused, protect=protect)
    return StreamBatch(
        number=0,
        content=content,
        positions={},
        messages=sum(len(messages.values) for messages in batch),
        rows=None if rows is None else RowRange(rows.key, rows.rows, rows.bytes),
        refused=None if refused is None else RowRange(refused.key, refused.rows, refused.bytes),
        rules=dict(checked.rules),
        at=now,
        event_times=times.newest,
        late=0 if times.late is None else int(times.late.sum()),
    )
