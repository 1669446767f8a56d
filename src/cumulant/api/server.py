"""A local server that was started from Python."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cumulant.api.display import ResultPage
from cumulant.core.errors import EngineUnavailableError, RequestError
from cumulant.flows.reports.request_example import curl

if TYPE_CHECKING:
    from cumulant.flows.serving.serve import PreparedService


class Server:
    """A server that answers at `.url` until `.stop()`, the end of a `with` block, or the end of this process.

    With `keep` its process runs on after all of them.

    Raises:
        PortInUseError: the address is taken.
        EngineUnavailableError: it did not begin to answer.
    """

    def __init__(self, service: PreparedService, *, port: int = 0, keep: bool = False) -> None:
        from cumulant.flows.serving import serve

        self.service = service
        self._stack = ExitStack()
        running = self._stack.enter_context(serve.run_server(service, http=f"127.0.0.1:{port}", keep=keep))
        self.url = running.url
        self.pid = running.pid

    def predict(self, *rows: dict[str, object]) -> list[dict[str, object]]:
        """Send rows in the request's schema; one answer a row.

        Raises:
            RequestError: the server refused them.
            EngineUnavailableError: it does not answer.
        """
        import msgspec

        from cumulant.core.network.http_client import HttpClient, NoResponseError

        target = f"{self.url}/v1/models/{self.service.model.name}/predict"
        headers, body = {"content-type": "application/json"}, msgspec.json.encode({"rows": rows})
        try:
            response = HttpClient(seconds=60).send("POST", target, headers=headers, content=body)
        except NoResponseError as error:
            raise EngineUnavailableError(f"the server does not answer: {error}", subject=target) from error
        document: dict[str, Any] = msgspec.json.decode(response.body or b"{}")
        if not response.ok:
            raise RequestError(str(document.get("error", response.status)), subject=target)
        return list(document["predictions"])

    def stop(self) -> None:
        """End the server; what it accepted is finished first."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Server({self.service.model.uri}, url={self.url!r})"

    def _repr_html_(self) -> str:
        from cumulant.servable.folder import load_servable

        line = curl(load_servable(Path(self.service.folder)), self.url)
        rows = [("url", self.url), ("model", self.service.model.uri), ("process", str(self.pid))]
        return ResultPage(title="Server", facts=rows, code=line).render()
