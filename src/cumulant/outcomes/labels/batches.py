"""The batches of labels: each is one part of the log `labels`, named by what it was made of.

CONTENT           the labels of one file, by the hash of its content
posted-HASH       the labels of some posts, by the hash of their names
merged-LEVEL-*    the labels of many batches; until they are deleted, those it covers hold nothing new

The facts of a batch are in the part's metadata, so that labels and facts appear at once, whole and only once.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property

import msgspec

from cumulant.core.errors import StorageError
from cumulant.ports.log import UNDATED, Log, PartInfo

MERGED, POSTED = "merged-", "posted-"
#: of a part's metadata, its `IngestedFile`
FACTS_KEY = "cumulant.batch"


class IngestedFile(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one file. `rows` were read; `problems` counts those that cannot be used, by reason."""

    name: str
    content: str
    received: datetime
    rows: int
    problems: dict[str, int] = {}
    #: of a batch of posts: their identities in the inbox
    posts: tuple[str, ...] = ()
    #: of a merged one: how often its rows were merged, and what it is made of: as it was known, and by name
    level: int = 0
    covers: tuple[IngestedFile, ...] = ()
    made_of: tuple[str, ...] = ()


def batch_part(name: str) -> PartInfo:
    """The part of the batch of that name."""
    return PartInfo(UNDATED, name, 1, 1)


class LabelBatches:
    """The batches of the log `labels` as they were listed once.

    Raises, in every method:
        StorageError: the log cannot be read, or a part is damaged.
        EngineUnavailableError: its store does not answer.
    """

    def __init__(self, labels: Log) -> None:
        self._labels = labels
        self._parts = {part.life: part for part in labels.parts(UNDATED)}
        self._facts: dict[str, IngestedFile | None] = {}

    @cached_property
    def names(self) -> list[str]:
        """The names of the batches, each row once."""
        return sorted(set(self._parts) - self._covered.keys())

    @cached_property
    def merged(self) -> list[IngestedFile]:
        """The merged batches."""
        listed = (self._own_facts(name) for name in sorted(self._parts) if name.startswith(MERGED))
        return [batch for batch in listed if batch is not None]

    def find(self, name: str) -> IngestedFile | None:
        """The facts of the batch of that name, be it merged; None where it was not ingested."""
        own = self._own_facts(name) if name in self._parts else None
        return own or self._covered.get(name)

    def part(self, name: str) -> PartInfo:
        """Raises FileNotFoundError: there was none when the batches were listed."""
        try:
            return self._parts[name]
        except KeyError:
            raise FileNotFoundError(name) from None

    def covered_parts(self, batch: IngestedFile) -> list[PartInfo]:
        """The parts that are still there of what was merged into a batch."""
        return [self._parts[covered.content] for covered in batch.covers if covered.content in self._parts]

    @cached_property
    def _covered(self) -> dict[str, IngestedFile]:
        return {part.content: part for merged in self.merged for part in merged.covers}

    def _own_facts(self, name: str) -> IngestedFile | None:
        """None where the part was merged and deleted since it was listed."""
        if name not in self._facts:
            self._facts[name] = read_facts(self._labels, self._parts[name])
        return self._facts[name]


def read_facts(labels: Log, part: PartInfo) -> IngestedFile | None:
    """The facts of a part; None where it is gone.

    Raises:
        StorageError: it is damaged.
    """
    import polars as pl  # pyarrow takes 0.8 CPU s to import

    try:
        with labels.open(part) as file:
            return msgspec.json.decode(pl.read_parquet_metadata(file)[FACTS_KEY], type=IngestedFile)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, msgspec.MsgspecError, pl.exceptions.PolarsError) as error:
        raise unreadable_part(labels, part, error) from error


def unreadable_part(log: Log, part: PartInfo, error: Exception) -> StorageError:
    return StorageError(
        f"a part of the outcomes cannot be read: {error}",
        subject=f"{log.location}/{part.key}",
        hint="if it is damaged, move it away, and ingest the labels again",
    )
