"""The error that a fault of the object store, or of the way to it, becomes.

The engine's text is one line of words, then its own structure, which alone has the cause of a missing answer.
"""

from __future__ import annotations

import re

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
#: a refusal that is not of what the credentials may do, but of the credentials
_CREDENTIALS = re.compile(
    r"<Code>(SignatureDoesNotMatch|InvalidAccessKeyId|InvalidToken|ExpiredToken|AuthenticationFailed)</Code>"
)
#: where machines of a cloud get credentials
_IDENTITY_SERVICE = re.compile(r"//(169\.254\.169\.254|169\.254\.170\.2|metadata)\b")
_ADDRESS = re.compile(r"Error performing [A-Z]+ (\w+://[^/\s]+)")
_STATUS = re.compile(r"\b(?:status code:|status) (\d{3} [A-Za-z -]+)")
_CODE, _MESSAGE = re.compile(r"<Code>([^<]+)</Code>"), re.compile(r"<Message>([^<]+)</Message>")
#: the cause in the engine's structure, in the order in which to look for it
_CAUSES = (
    (re.compile(r'"dns error"'), "the name of its host is not known"),
    (re.compile(r'message: "([^"]+)"'), ""),
    (re.compile(r"kind: Timeout\b|\bTimedOut\b"), "no answer came in time"),
    (re.compile(r"InvalidContentType"), "it does not speak TLS"),
    (re.compile(r"InvalidCertificate|UnknownIssuer"), "its certificate is not trusted"),
)
#: names of the address and of the credentials, by scheme, as secrets or variables
ENDPOINTS = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
_IDENTITY = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_DETAIL = 200


def explain(error: Exception, where: str) -> CumulantError:
    """The error of a call about `where`, an address that begins with the store's scheme."""
    text, scheme = str(error).strip(), where.partition("://")[0]
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError)):
        unknown = isinstance(error, UnauthenticatedError) or _CREDENTIALS.search(text)
        return (CredentialsError if unknown else StorageError)(
            f"the object store does not allow this: {_refusal(text)}",
            subject=where,
            hint="check the credentials and what they may do with this bucket",
        )
    # A missing object is no error to any method; what is missing when one is written or listed is the bucket.
    if isinstance(error, FileNotFoundError) or NO_BUCKET.search(text):
        hint = "make the bucket, or check its name and the account"
        return NotFoundError("there is no such bucket or container", subject=where, hint=hint)
    if isinstance(error, InvalidPathError):
        return UsageError(f"the object store cannot hold this name: {_first_line(text)}", subject=where)
    if _IDENTITY_SERVICE.search(_first_line(text)):
        # Where no credentials are given, the client asks the machine's cloud for some.
        return EngineUnavailableError(
            "no credentials for the object store: none are set, and this machine has no identity of its own",
            subject=where,
            hint=f"set {_IDENTITY.get(scheme, 'them')} as secrets or variables",
        )
    return _unreachable(text, where, ENDPOINTS.get(scheme, "its address"))


def _unreachable(text: str, where: str, endpoint: str) -> EngineUnavailableError:
    """Without the number of attempts and their time, which would make each report of one fault another text."""
    address = _ADDRESS.search(text)
    store = f"the object store at {address[1]}" if address else "the object store"
    if _STATUS.search(_first_line(text)):
        return EngineUnavailableError(
            f"{store} does not answer as it should: {_refusal(text)}",
            subject=where,
            hint="see the store's log; then run the same command again: finished steps are reused",
        )
    return EngineUnavailableError(
        f"{store} does not answer: {_cause(text)}",
        subject=where,
        hint=f"start the store, or check {endpoint} and the network; then run the same command again: finished steps"
        " are reused",
    )


def _refusal(text: str) -> str:
    """`403 Forbidden, AccessDenied: Access Denied` of an answer, else the engine's words."""
    answer = text.partition("\nDebug source")[0]
    parts = [match[1].strip() for form in (_STATUS, _CODE) if (match := form.search(answer))]
    message = _MESSAGE.search(answer)
    reply = ", ".join(parts) + (f": {message[1].strip()}" if message else "")
    return (reply or _first_line(text))[:_DETAIL]


def _cause(text: str) -> str:
    for form, words in _CAUSES:
        if match := form.search(text):
            return words or match[1]
    return _first_line(text).rpartition(" - ")[2][:_DETAIL]


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()
