"""A client of Kinesis: its address and credentials, and its errors as those of the port."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.exceptions
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
)

from cumulant.core.errors import (
    CredentialsError,
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
)
from cumulant.ports.secrets import Secrets

#: names of secrets, as those of object stores, and the client's settings; the client itself reads variables
_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_REGION": "region_name",
    "AWS_ENDPOINT_URL": "endpoint_url",
    "AWS_ENDPOINT_URL_KINESIS": "endpoint_url",
}
#: seconds for a connection and for an answer, and how often the client tries at once
_CONNECT, _ANSWER, _TRIES = 5, 15, 3
_REGION = re.compile(r"[a-z0-9-]{0,40}")
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "LimitExceededException",
        "KMSThrottlingException",
        "ThrottlingException",
    }
)
_REFUSED = frozenset(
    {
        *("AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"),
        *("IncompleteSignatureException", "InvalidClientTokenId", "MissingAuthenticationTokenException"),
        *("MissingAuthenticationToken", "KMSAccessDeniedException", "OptInRequired"),
    }
)


class KinesisConnection:
    """`kinesis://[REGION][?endpoint=URL]`. The client is made on first use.

    Raises:
        UsageError: the URL is invalid.
    """

    def __init__(self, url: str, secrets: Secrets | None) -> None:
        self._region, self._endpoint = _parse(url)
        self._secrets = secrets
        self._client: Any = None

    @property
    def client(self) -> Any:
        """Raises UsageError: no region is known."""
        if self._client is None:
            settings = {own: value for name, own in _SETTINGS.items() if (value := self._secret(name)) is not None}
            settings |= {"region_name": self._region} if self._region else {}
            settings |= {"endpoint_url": self._endpoint} if self._endpoint else {}
            retries = {"mode": "standard", "total_max_attempts": _TRIES}
            config = Config(connect_timeout=_CONNECT, read_timeout=_ANSWER, retries=retries)
            session = botocore.session.Session()
            variables = session.get_config_variable  # which knows AWS_DEFAULT_REGION, and not AWS_REGION
            settings.setdefault("region_name", os.environ.get("AWS_REGION") or variables("region"))
            with self.errors(""):
                self._client = session.create_client("kinesis", config=config, **settings)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def errors(self, topic: str) -> Iterator[None]:
        """Errors of the client as those of the port."""
        try:
            yield
        except (ClientError, BotoCoreError, ValueError) as error:
            raise _fault(error, topic) from None  # an address with a password would be printed

    def _secret(self, name: str) -> str | None:
        with contextlib.suppress(NotFoundError):
            return self._secrets.get(name) if self._secrets is not None else None
        return None


def error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def is_throttled(error: ClientError) -> bool:
    return error_code(error) in _THROTTLED


def _parse(url: str) -> tuple[str, str | None]:
    rest, _, query = url.partition("://")[2].partition("?")
    endpoint = dict(parse_qsl(query)).get("endpoint")
    hint = "write kinesis://REGION, such as kinesis://eu-central-1"
    if not _REGION.fullmatch(rest):
        raise UsageError(f"{url} names no region of Kinesis", subject=url, hint=hint)
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            message = "?endpoint= is no address of a server, or has a user"
            raise UsageError(message, hint="write kinesis://REGION?endpoint=http://HOST:PORT")
    return rest, endpoint


def _fault(error: Exception, topic: str) -> CumulantError:
    if isinstance(error, ClientError):
        return _answer_fault(error, topic)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as secrets or variables"
        return CredentialsError("no credentials of AWS are known", subject=topic, hint=hint)
    if isinstance(error, NoRegionError):
        return UsageError("no region of Kinesis is known", hint="write kinesis://REGION")
    if isinstance(error, botocore.exceptions.ConnectionError | HTTPClientError):
        hint = "check the region, the network and AWS_ENDPOINT_URL"
        return EngineUnavailableError("Kinesis does not answer", subject=topic, hint=hint)
    if isinstance(error, ParamValidationError | ValueError):
        return UsageError("Kinesis cannot be asked so", subject=topic, hint="check region, endpoint and names")
    return StorageError(f"the client of Kinesis fails: {type(error).__name__}", subject=topic)


def _answer_fault(error: ClientError, topic: str) -> CumulantError:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "ResourceNotFoundException":
        return NotFoundError(
            f'there is no stream "{topic}" in Kinesis', subject=topic, hint="check its name and region"
        )
    if code in _REFUSED or status in (401, 403):
        hint = "check the credentials, and that they may list, describe and read the stream"
        return CredentialsError(f"Kinesis refuses these credentials: {code}", subject=topic, hint=hint)
    if code in _THROTTLED or status >= 500 or code == "ResourceInUseException":
        hint = "others may read the same stream, or it has too few shards"
        return EngineUnavailableError(f"Kinesis does not answer now: {code}", subject=topic, hint=hint)
    if code in ("ValidationException", "InvalidArgumentException"):
        return UsageError(f"Kinesis does not take this: {code}", subject=topic, hint="check names and sizes")
    return StorageError(f"Kinesis reports {code or status}", subject=topic)
