"""Files of a source that cannot be read: set aside by name and reason, while the other files are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from cumulant.core.errors import DataError
from cumulant.data.snapshot import UnreadableFile

File = TypeVar("File")
Read = TypeVar("Read")

#: of many texts, those that are shown
_LISTED = 10


class UnreadableFileError(DataError):
    """A file cannot be read; `error` is the reason."""

    def __init__(self, error: DataError) -> None:
        super().__init__(error.message, subject=error.subject, hint=error.hint)
        self.error = error


@contextmanager
def reading_file() -> Iterator[None]:
    """What is wrong with a file, as UnreadableFileError: other errors are of the declaration, or of its rows."""
    try:
        yield
    except UnreadableFileError:
        raise
    except DataError as error:
        raise UnreadableFileError(error) from error


def refuse_all(source: str, errors: Sequence[UnreadableFileError], earlier: Sequence[UnreadableFile]) -> None:
    """Raise DataError for a source of which no file can be read: of one file its own error."""
    if len(errors) == 1 and not earlier:
        raise errors[0].error
    reasons = [*(error.message for error in errors), *(file.reason for file in earlier)]
    raise DataError(
        f"source {source}: none of its {len(reasons):,} files can be read: {'; '.join(shorten_list(reasons))}",
        subject=source,
        hint=errors[0].hint if errors else "write the files again",
    )


def read_each(files: Iterable[File], read: Callable[[File], Read]) -> list[Read]:
    """What `read` gives of each file, in their order.

    Raises:
        DataError: files cannot be read; it names all of them.
    """
    results: list[Read] = []
    errors: list[DataError] = []
    for file in files:
        try:
            results.append(read(file))
        except DataError as error:
            errors.append(error)
    if errors:
        raise join_errors(errors, len(results) + len(errors))
    return results


def join_errors(errors: Sequence[DataError], files: int) -> DataError:
    """The errors of some of so many files as one."""
    if len(errors) == 1:
        return errors[0]
    reasons = shorten_list([error.message for error in errors])
    hints = list(dict.fromkeys(error.hint for error in errors if error.hint))
    return DataError(
        f"{len(errors):,} of {files:,} files cannot be read: {'; '.join(reasons)}",
        subject=errors[0].subject,
        hint=hints[0] if len(hints) == 1 else "write the files again, or take them away",
    )


def shorten_list(texts: Sequence[str]) -> tuple[str, ...]:
    """The first few of many texts, and how many more there are: each of many files may break a rule."""
    rest = len(texts) - _LISTED
    return (*texts[:_LISTED], *([f"and {rest:,} more"] if rest > 0 else []))
