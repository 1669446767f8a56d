"""Scopes that a store must keep apart: each differs from the first in one part, in a letter's case, or by a prefix."""

from __future__ import annotations

from cumulant.core.scope import Scope

SCOPES = (
    Scope(tenant="acme", project="flights", environment="prod"),
    Scope(tenant="acme", project="flights", environment="staging"),
    Scope(tenant="acme", project="flight", environment="prod"),
    Scope(tenant="acme", project="Flights", environment="prod"),
    Scope(tenant="acme-eu", project="flights", environment="prod"),
    Scope(tenant="flights", project="acme", environment="prod"),
    Scope(tenant="aux", project="CON", environment="com1"),
)
