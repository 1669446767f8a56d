"""`project.streams`: messages into the topics of a project's sources, and how far these are ingested."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cumulant.api.errors import short_methods
from cumulant.api.group import MethodGroup
from cumulant.flows.ledger.actions import check

if TYPE_CHECKING:
    from cumulant.flows.data.stream_views import StreamStatus


@short_methods
class ProjectStreams(MethodGroup):
    """The topics that the sources of a project name."""

    def produce(self, topic: str, values: Iterable[bytes], *, partition: int = 0) -> int:
        """Append messages to a partition; they are durable when this returns the position after the last.

        Raises:
            UsageError: the topic cannot hold a message.
            EngineUnavailableError: the broker does not answer.
            StorageError: they cannot be written.
        """
        check(self._loaded, self._principal, "data.ingest")
        return self._loaded.streams().produce(topic, values, partition=partition)

    def status(self, *sources: str) -> Sequence[StreamStatus]:
        """How far the streams of these sources (default: all) are ingested, as `cumulant ingest status`.

        Raises:
            NotFoundError: there is no such source.
            UsageError: no source has a stream.
        """
        from cumulant.flows.data.stream_views import stream_status

        return stream_status(self._loaded, principal=self._principal, sources=sources)
