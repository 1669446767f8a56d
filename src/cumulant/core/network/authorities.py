"""A file of those who may have signed the certificates of servers, looked at before anybody relies on it."""

from __future__ import annotations

import ssl

from cumulant.core.errors import UsageError


def check_authority(path: str | None, *, named: str = "") -> None:
    """Return where the file holds PEM certificates, or none is given: a gateway would refuse all servers for another.

    Args:
        path: of the file.
        named: the option or key that names it.

    Raises:
        UsageError: it is no file of certificates.
    """
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # one of TLS is such an error too
        raise UsageError(
            f"{path} holds no certificates of authorities: {error.strerror or error}",
            subject=named or path,
            hint=f"{named} names a file of PEM certificates" if named else "name a file of PEM certificates",
        ) from None
