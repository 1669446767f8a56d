"""Versions of models as the words of a command and as the two parts of a path."""

from __future__ import annotations

#: in place of a version: the one that the registry resolves a name to
LATEST = "latest"


def join_uri(model: str, version: str) -> str:
    """`churn` and `3`, `@champion` or `latest` as the registry takes them."""
    if version == LATEST:
        return model
    return f"{model}{version}" if version.startswith("@") else f"{model}/{version}"


def split_uri(uri: str) -> tuple[str, str]:
    """`churn/3`, `churn@champion` or `churn` as the name and the version of a path."""
    text = uri.removeprefix("models:/")
    name, at, alias = text.partition("@")
    if at:
        return name, f"@{alias}"
    name, _, version = text.partition("/")
    return name, version or LATEST
