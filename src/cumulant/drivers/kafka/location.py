"""The connection settings of a Kafka URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, unquote

import msgspec

from cumulant.core.errors import UsageError
from cumulant.core.network.urls import check_secret_name, host_port
from cumulant.ports.secrets import Secrets

#: options of an encrypted connection, each a file, and the client's setting: the authorities that are trusted, and the
#: client's own certificate and its key
_FILES = {"ca": "ssl.ca.location", "cert": "ssl.certificate.location", "key": "ssl.key.location"}
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
#: classes of the client of Java
_LOGINS = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_HINT = "write kafka://HOST:PORT,HOST:PORT, or kafkas:// for an encrypted connection"
_PORT = 9092


class KafkaAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The brokers that are asked first. `settings`: of the client's encrypted connection; `secret`: name of the
    password.
    """

    brokers: tuple[str, ...]
    encrypted: bool
    settings: dict[str, str]
    user: str | None = None
    secret: str | None = None
    mechanism: str = "SCRAM-SHA-512"

    def java_settings(self, secrets: Secrets | None) -> dict[str, str]:
        """The settings of a client of Java, which gets what files have: it runs on other machines.

        Raises:
            UsageError: it would need a certificate of its own, or a file cannot be read; and as `client_settings`.
        """
        own = self.client_settings(secrets)
        settings = {key: str(own[key]) for key in ("bootstrap.servers", "security.protocol")}
        if "ssl.certificate.location" in self.settings:
            hint = "use a user and a password: kafkas://USER@HOST:PORT?password=SECRET"
            raise UsageError("a job of another engine is given no key of a certificate", subject="streams", hint=hint)
        if authority := self.settings.get("ssl.ca.location"):
            try:
                pem = Path(authority).read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError):
                raise UsageError("the file of authorities cannot be read", subject=authority) from None
            settings |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": pem.strip()}
        if "sasl.username" in own:
            user, password = (_quoted(str(own[key])) for key in ("sasl.username", "sasl.password"))
            module = _LOGINS["PLAIN" if self.mechanism == "PLAIN" else "SCRAM"]
            settings["sasl.mechanism"] = self.mechanism
            settings["sasl.jaas.config"] = f"{module} required username={user} password={password};"
        return settings

    def client_settings(self, secrets: Secrets | None) -> dict[str, object]:
        """The settings of a client's connection.

        Raises:
            UsageError: the password is a secret, and no store of secrets is given.
            NotFoundError: there is no such secret.
        """
        protocol = ("SASL_" if self.user else "") + ("SSL" if self.encrypted else "PLAINTEXT")
        settings: dict[str, object] = {"bootstrap.servers": ",".join(self.brokers), "security.protocol": protocol}
        settings |= self.settings
        if self.user is not None and self.secret is not None:
            if secrets is None:
                raise UsageError("the password of the brokers is a secret, and no store of secrets is given")
            password = secrets.get(self.secret)
            settings |= {"sasl.mechanism": self.mechanism, "sasl.username": self.user, "sasl.password": password}
        return settings


def parse_kafka_url(url: str) -> KafkaAddress:
    """`kafka://[USER@]HOST[:PORT][,HOST...][?password=SECRET&mechanism=NAME]`; `kafkas://` is encrypted, and also takes
    `ca`, `cert` and `key`.

    Raises:
        UsageError: the URL is invalid, or contains a password.
    """
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    credentials, at, hosts = place.rpartition("@")
    encrypted = scheme.lower() == "kafkas"
    if ":" in credentials:
        hint = "write ?password=NAME, where NAME is a secret"
        raise UsageError("the address of the brokers holds a password, which others can read there", hint=hint)
    listed = hosts.rstrip("/").split(",")
    brokers = tuple(broker for text in listed if (broker := host_port(text, _PORT)))
    if len(brokers) < len(listed):
        raise UsageError(f"{url} is no address of brokers", subject=url, hint=_HINT)
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = {"password", "mechanism", *(_FILES if encrypted else ())}
    if unknown := [name for name in options if name not in known]:
        takes = "an address takes password and mechanism; kafkas:// also ca=FILE, cert=FILE and key=FILE"
        raise UsageError(f'the address of the brokers has an option "{unknown[0][:100]}"', subject=url, hint=takes)
    user, secret = unquote(credentials) if at else None, options.get("password") or None
    if (user is None) != (secret is None):
        hint = "write kafkas://USER@HOST:PORT?password=NAME, where NAME is a secret"
        raise UsageError("a user of the brokers needs a password, and a password a user", subject=url, hint=hint)
    check_secret_name(secret, "password")
    mechanism = options.get("mechanism", "SCRAM-SHA-512")
    if mechanism not in _MECHANISMS:
        hint = f"it can be {', '.join(_MECHANISMS)}"
        raise UsageError(f'no mechanism of passwords is named "{mechanism[:100]}"', subject=url, hint=hint)
    if mechanism == "PLAIN" and not encrypted:
        hint = "write kafkas://, or use SCRAM-SHA-512"
        raise UsageError("with PLAIN the password would be sent as it is", subject=url, hint=hint)
    files = {_FILES[name]: value for name, value in options.items() if name in _FILES}
    for file in files.values():
        if not Path(file).is_file():
            raise UsageError("a file that the address of the brokers names does not exist", subject=file)
    return KafkaAddress(
        brokers=brokers, encrypted=encrypted, settings=files, user=user, secret=secret, mechanism=mechanism
    )


def _quoted(text: str) -> str:
    """A text of a configuration of JAAS."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
