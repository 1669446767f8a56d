"""The record of e-mail. Importing this loads nothing else."""

from __future__ import annotations

from cumulant.ports.driver import Driver

#: `smtp://HOST:587?from=A&to=B`: STARTTLS; `smtps://HOST:465?...`: encrypted from the first byte
server = Driver(clients={"notifier": "cumulant.drivers.mail.client:Mail"})
