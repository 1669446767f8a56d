"""What PyArrow raises for a file that it cannot read, as a DataError that names the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cumulant.core.errors import DataError
from cumulant.data.formats.parquet_memory import out_of_memory_error

#: in what PyArrow raises for a time that 64 bits of nanoseconds cannot hold
_OUT_OF_RANGE = "out of range for nanosecond"


@contextmanager
def arrow_errors(message: str, url: str) -> Iterator[None]:
    """What pyarrow raises for bytes that it cannot read, as a DataError with this message."""
    import pyarrow as pa

    try:
        yield
    except pa.ArrowMemoryError as error:
        raise out_of_memory_error(url) from error
    except (pa.ArrowException, OSError) as error:
        if _OUT_OF_RANGE in str(error):
            raise DataError(
                f"{url} holds a time before 1677-09-22 or after 2262-04-11, which ORC files cannot be read with",
                subject=url,
                hint="write the file as Parquet, or such times as null",
            ) from error
        raise DataError(message, subject=url, hint="copy or write it again") from error
