"""Posted rows of many callers, committed together on one thread, so that they share one write to the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Self

from cumulant.core.errors import UsageError
from cumulant.features.online.state_writer import StateWriter
from cumulant.features.posted.post_reader import AdvanceResult, Post, PostReader
from cumulant.features.posted.state_update import commit, sum_results

#: rows of one transaction; fewer in a store over a network, which answers no reader meanwhile
_MOST_ROWS, _MOST_REMOTE_ROWS = 512, 128


class _PendingPost(NamedTuple):
    post: Post
    left_out: AdvanceResult
    done: Future[AdvanceResult]


class Advancer:
    """Updates tables of one store together: posts during a commit share the next one, up to 512 rows, 128 in a store
    that is read over a network; a larger post is divided. Thread-safe.

    `close`, or leaving it as a context, commits what waits. Rows dated more than `skew_us` after now are left out;
    None: only corrections and deletions are (`commit`).
    """

    def __init__(self, writers: Sequence[StateWriter], *, skew_us: int | None = None) -> None:
        self._writers, self._skew_us = list(writers), skew_us
        self._most_rows = _MOST_REMOTE_ROWS if any(writer.store.remote for writer in writers) else _MOST_ROWS
        self._reader = PostReader(self._writers, skew_us=skew_us)
        self._waiting: deque[_PendingPost] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cumulant-advance", daemon=True)
        self._thread.start()

    def is_ahead(self, source: str, row: Mapping[str, object]) -> bool:
        """Whether a row is left out because of its date.

        Raises:
            RequestError: a value does not fit its field.
        """
        return self._reader.is_ahead(source, row)

    def post(self, source: str, rows: Sequence[Mapping[str, object]], *, scored: bool = False) -> Future[AdvanceResult]:
        """Accept rows of a source; `scored` ones are those of requests, which correct nothing.

        The future is done once they are durable, or with the error; its callbacks run on the committing thread. Posting
        again after an error counts nothing twice.

        Raises:
            RequestError: a value does not fit its field.
            UsageError: it is closed.
        """
        post, left_out = self._reader.read(source, rows, scored=scored)
        done: Future[AdvanceResult] = Future()
        done.set_running_or_notify_cancel()
        with self._news:
            if self._closed:
                raise UsageError("this advancer is closed")
            self._waiting.append(_PendingPost(post, left_out, done))
            self._news.notify()
        return done

    def close(self) -> None:
        """Commit what waits and end the thread; errors are set on the futures."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while batch := self._next():
            try:
                results = self._commit([waiting.post for waiting in batch])
            except Exception as error:  # noqa: BLE001  (an edge: whatever it was, it belongs to those who wait)
                for waiting in batch:
                    waiting.done.set_exception(error)
                continue
            for waiting, result in zip(batch, results, strict=True):
                waiting.done.set_result(sum_results([waiting.left_out, result]))

    def _commit(self, posts: Sequence[Post]) -> list[AdvanceResult]:
        """Write the posts in one transaction; one that is larger than a transaction in several."""
        if len(posts) > 1:
            return commit(self._writers, posts, skew_us=self._skew_us)
        (source, rows), results = posts[0], list[AdvanceResult]()
        for at in range(0, len(rows), self._most_rows):
            part = Post(source, rows[at : at + self._most_rows])
            results += commit(self._writers, [part], skew_us=self._skew_us)
        return [sum_results(results)]

    def _next(self) -> list[_PendingPost]:
        """What is committed next; nothing once it is closed and nothing waits."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            batch: list[_PendingPost] = []
            count = 0
            while self._waiting and (not batch or count + len(self._waiting[0].post.rows) <= self._most_rows):
                batch.append(self._waiting.popleft())
                count += len(batch[-1].post.rows)
            return batch
