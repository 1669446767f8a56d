"""The error that a fault of the object store, or of the way to it, becomes.

The engine's text is one line of words, then its own structure, which alone has the cause of a missing answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec
from obstore.exceptions import InvalidPathError, PermissionDeniedError, UnauthenticatedError

from cumulant.core.errors import (
    CredentialsError,
    CumulantError,
    EngineUnavailableError,
    NotFoundError,
    StorageError,
    UsageError,
)

NO_BUCKET = re.compile(r"<Code>(NoSuchBucket|ContainerNotFound)</Code>")
#: a refusal that is not of what the credentials may do, but of the credentials: of stores, and of OAuth 2
_CREDENTIALS = re.compile(
    r"<Code>(SignatureDoesNotMatch|InvalidAccessKeyId|InvalidToken|ExpiredToken|AuthenticationFailed)</Code>"
    r'|"error"\s*:\s*"(invalid_grant|invalid_client|unauthorized_client)"'
)
#: where machines of a cloud get credentials
_IDENTITY_SERVICE = re.compile(r"//(169\.254\.169\.254|169\.254\.170\.2|metadata)\b")
_ADDRESS = re.compile(r"Error performing [A-Z]+ (\w+://[^/\s]+)")
_USER = re.compile(r"(?<=://)[^/?#\s\"]*@")
_STATUS = re.compile(r"\b(?:status code:|status) (\d{3}(?: [A-Za-z -]+)?)(?: <[^>]*>)?(?:: )?")
_CODE, _MESSAGE = re.compile(r"<Code>([^<]+)</Code>"), re.compile(r"<Message>([^<]+)</Message>")
_JSON_MESSAGE = re.compile(r'"(?:message|error_description)"\s*:\s*("(?:[^"\\]|\\.)*")')
_TAG = re.compile(r"<[^>]*>")
_ENGINE = re.compile(r"^Generic \w+ error: ")
#: the cause of a missing answer in the engine's structure, in the order in which to look for it
_CAUSES = (
    (re.compile(r'"dns error"'), "the name of its host is not known"),
    (re.compile(r'message: "([^"]+)"'), ""),
    (re.compile(r"kind: Timeout\b|\bTimedOut\b"), "no answer came in time"),
    (re.compile(r"InvalidContentType"), "it does not use TLS"),
    (re.compile(r"InvalidCertificate|UnknownIssuer"), "its certificate is not trusted"),
    (re.compile(r"\bIncompleteMessage\b"), "it closed the connection"),
)
#: what is wrong with an answer that came
_UNREADABLE = (
    (re.compile(r"\bIncompleteBody\b"), "it was cut off"),
    (re.compile(r"\bParse\("), "it is not HTTP"),
)
#: names of the address and of the credentials, by scheme, as secrets or variables
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
IDENTITY = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_DETAIL = 200


def explain(error: Exception, where: str, address: str = "") -> CumulantError:
    """The error of a call about `where`, a URL that begins with the store's scheme.

    `address` is the store's own, for errors in which the engine leaves it out.
    """
    text, scheme = without_user(str(error)).strip(), where.partition("://")[0]
    answer = text.partition("\nDebug source")[0]
    unknown = isinstance(error, UnauthenticatedError) or _CREDENTIALS.search(answer)
    if unknown or isinstance(error, (PermissionDeniedError, PermissionError)):
        return (CredentialsError if unknown else StorageError)(
            f"the object store does not allow this: {_refusal(answer)}",
            subject=where,
            hint="check the credentials and what they may do with this bucket",
        )
    # A missing object is no error to any method; what is missing when one is written or listed is the bucket.
    if isinstance(error, FileNotFoundError) or NO_BUCKET.search(answer):
        hint = "make the bucket, or check its name and the account"
        return NotFoundError("there is no such bucket or container", subject=where, hint=hint)
    if isinstance(error, (InvalidPathError, ValueError)):
        return UsageError(f"the object store cannot hold this name: {_first_line(text)}", subject=where)
    if _IDENTITY_SERVICE.search(_first_line(text)):
        # Where no credentials are given, the client requests some from the machine's cloud.
        return EngineUnavailableError(
            "no credentials for the object store: none are set, and this machine has no identity of its own",
            subject=where,
            hint=f"set {IDENTITY.get(scheme, 'them')} as secrets or variables",
        )
    return _unavailable(text, where, _named(text, address))


def unreadable(reason: str, where: str, address: str) -> EngineUnavailableError:
    """The error of an answer that no object store gives."""
    return _unreadable(reason, where, _named("", address))


def without_user(text: str) -> str:
    """The text without the user names and passwords in its URLs."""
    return _USER.sub("", text)


def _named(text: str, address: str) -> str:
    if match := _ADDRESS.search(text):
        address = match[1]
    return f"the object store at {address}" if address else "the object store"


def _unavailable(text: str, where: str, store: str) -> EngineUnavailableError:
    """Without the number of attempts and their time, which would make each report of one fault another text."""
    if _STATUS.search(_first_line(text)):
        return EngineUnavailableError(
            f"{store} does not answer as it should: {_refusal(text.partition(chr(10) + 'Debug source')[0])}",
            subject=where,
            hint="see the store's log; then run the same command again: finished steps are reused",
        )
    if (cause := _find(_CAUSES, text)) is not None:
        return EngineUnavailableError(
            f"{store} does not answer: {cause}",
            subject=where,
            hint=f"start the store, or check {_endpoint(where)} and the network; then run the same command again:"
            " finished steps are reused",
        )
    last = _ENGINE.sub("", _first_line(text).rpartition(" - ")[2])
    return _unreadable(_find(_UNREADABLE, text) or last[:_DETAIL], where, store)


def _unreadable(reason: str, where: str, store: str) -> EngineUnavailableError:
    region = " and the region" if where.startswith("s3:") else ""
    return EngineUnavailableError(
        f"{store} gave an answer that cannot be read: {reason}",
        subject=where,
        hint=f"check {_endpoint(where)}{region}, and whether a proxy answers in the store's place",
    )


def _endpoint(where: str) -> str:
    return ENDPOINTS.get(where.partition("://")[0], "its address")


def _refusal(answer: str) -> str:
    """`403 Forbidden, AccessDenied: Access Denied` of an answer, else the engine's words."""
    status = _STATUS.search(answer)
    body = answer[status.end() :] if status else answer
    code, message = _CODE.search(body), _message(body)
    reply = ", ".join(match[1].strip() for match in (status, code) if match)
    if reply and message:
        reply += f": {message}"
    return (reply or _first_line(answer))[:_DETAIL]


def _message(body: str) -> str:
    """The first line of the message in XML or JSON, else the text itself; without control characters."""
    if match := _MESSAGE.search(body):
        text = match[1]
    elif match := _JSON_MESSAGE.search(body):
        text = _unquoted(match[1])
    elif _CODE.search(body):
        text = ""
    else:
        text = " ".join(_TAG.sub(" ", body).split())
    return "".join(filter(str.isprintable, _first_line(text.strip())))


def _unquoted(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text.strip('"')


def _find(forms: Iterable[tuple[re.Pattern[str], str]], text: str) -> str | None:
    """The words of the first form that the text has, else what the form matches."""
    return next((words or match[1] for form, words in forms if (match := form.search(text))), None)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()
