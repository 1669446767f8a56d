"""Limit of the rows of one request."""

from cumulant.core.errors import RequestError
from cumulant.serving.errors import HttpError

#: plain rows are read on the event loop, some 10 microseconds each: more of them would delay every other request
MOST_ROWS = 10_000


def check_count(rows: int) -> None:
    """Raises HttpError (413) for more rows than one request may have; called before they are decoded."""
    if rows > MOST_ROWS:
        raise row_count_error(rows)


def row_count_error(rows: int) -> RequestError:
    """Error for a request without rows, or with more than `MOST_ROWS`."""
    if rows:
        text = f"{rows} rows in one request, where {MOST_ROWS} may be"
        return HttpError(413, text, hint="send them in several requests")
    return RequestError("there are no rows to score", hint="send one row or more, as an object with its fields each")
