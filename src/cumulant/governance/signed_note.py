"""Signed notes, as logs of checksums and certificates publish their checkpoints: a text with Ed25519 signatures.

TEXT, lines
(an empty line)
— NAME BASE64(4 bytes that name the key, 64 bytes of signature of TEXT)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

from cumulant.core.errors import IntegrityError, UsageError, missing_part

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_DASH = "\N{EM DASH} "
_KEY_HASH, _SIGNATURE = 4, 64


def new_private_key() -> bytes:
    """A new key as PEM (PKCS 8), which `openssl pkey` reads. Raises MissingPartError."""
    ed25519, serialization = _cryptography()
    return ed25519.Ed25519PrivateKey.generate().private_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private_key(pem: bytes, where: str) -> Ed25519PrivateKey:
    """The private key in a PEM text.

    Raises:
        UsageError: it is none of Ed25519, or it has a password.
        MissingPartError: the package that signs is not installed.
    """
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        hint = "make one with `openssl genpkey -algorithm ed25519`"
        raise UsageError("this is no private key of Ed25519 in PEM", subject=where, hint=hint)
    return key  # type: ignore[no-any-return]


def read_public_key(pem: bytes, where: str) -> Ed25519PublicKey:
    """The public key in a PEM text. Raises as `read_private_key`."""
    ed25519, serialization = _cryptography()
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        hint = "`cumulant events checkpoint --public-key FILE` writes it"
        raise UsageError("this is no public key of Ed25519 in PEM", subject=where, hint=hint)
    return key  # type: ignore[no-any-return]


def public_pem(key: Ed25519PublicKey) -> bytes:
    _, serialization = _cryptography()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_hash(key: Ed25519PublicKey, name: str) -> bytes:
    """The 4 bytes that name a key in a signature; two keys may have the same."""
    return hashlib.sha256(f"{name}\n".encode() + _ED25519 + key.public_bytes_raw()).digest()[:_KEY_HASH]


def sign_note(text: str, key: Ed25519PrivateKey, name: str) -> str:
    """The note of `text`, which ends with a newline and has no empty line."""
    signature = key_hash(key.public_key(), name) + key.sign(text.encode())
    return f"{text}\n{_DASH}{name} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, key: Ed25519PublicKey, name: str) -> str:
    """The text of a note that `key` has signed in this name.

    Raises:
        IntegrityError: it has not, or this is no note.
    """
    text, separator, signatures = note.partition("\n\n")
    if not separator or not note.endswith("\n"):
        raise IntegrityError("it is no signed note")
    text += "\n"
    if any(_is_signed(text, line, key, name) for line in signatures.splitlines()):
        return text
    raise IntegrityError(f"it has no signature of {name} by this key")


def names_key(note: str, key: Ed25519PublicKey, name: str) -> bool:
    """Whether a note has a signature that claims to be by `key`; it may be a wrong one."""
    named = (_signature(line, name) for line in note.partition("\n\n")[2].splitlines())
    return any(each is not None and each[:_KEY_HASH] == key_hash(key, name) for each in named)


def _is_signed(text: str, line: str, key: Ed25519PublicKey, name: str) -> bool:
    from cryptography.exceptions import InvalidSignature

    signature = _signature(line, name)
    if signature is None or signature[:_KEY_HASH] != key_hash(key, name):
        return False
    try:
        key.verify(signature[_KEY_HASH:], text.encode())
    except InvalidSignature:
        return False
    return True


def _signature(line: str, name: str) -> bytes | None:
    """The name of the key and the signature in a line, where it is one of `name`."""
    signer, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or signer != name:
        return None
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return None
    return decoded if len(decoded) == _KEY_HASH + _SIGNATURE else None


def _cryptography() -> tuple[Any, Any]:
    """The modules `ed25519` and `serialization`."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise missing_part("cryptography", "audit") from None
    return ed25519, serialization
