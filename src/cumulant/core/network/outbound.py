"""Where requests from outside the data plane may go: never to the addresses at which clouds serve credentials of their
machines, and where the operator lists hosts (`CUMULANT_OUTBOUND`), to these and to this machine alone.

Addresses are those that a connection has, so that a name cannot lead elsewhere after it was looked up.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cumulant.core.errors import UsageError
from cumulant.core.network.hosts import host_name, is_loopback

VARIABLE = "CUMULANT_OUTBOUND"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: beside link-local ones: by IPv6 of AWS, Google and Oracle; Azure, Alibaba, Oracle
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        (
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
        ),
    )
)
#: networks of IPv6 that gateways translate to the address of IPv4 in the last 32 bits (RFC 6052), and those of the
#: deprecated addresses that have it there too (RFC 4291)
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96")))


class OutboundRefusedError(Exception):
    """A request may not go there. The text names no URL."""


class OutboundHosts(NamedTuple):
    """The hosts of a list: names, endings of names (`.example.com`) and networks."""

    names: frozenset[str]
    endings: tuple[str, ...]
    networks: tuple[Network, ...]

    def has_name(self, host: str) -> bool:
        return host in self.names or host.endswith(self.endings)

    def has_address(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def outbound_hosts(variables: Mapping[str, str]) -> OutboundHosts | None:
    """The list of the variable; None where there is none.

    Raises:
        UsageError: an entry is neither a name, an ending of names nor a network.
    """
    entries = variables.get(VARIABLE, "").replace(",", " ").split()
    if not entries:
        return None
    names, endings, networks = set(), [], []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry))
            continue
        except ValueError:
            pass
        name = host_name(entry.removeprefix("*."))
        if "*" in name:
            hint = "write hooks.example.com, *.example.com or 10.0.0.0/8"
            raise UsageError(f'{VARIABLE} has "{entry[:80]}", which names no hosts', subject=VARIABLE, hint=hint)
        if entry.startswith("*."):
            endings.append(f".{name}")
        else:
            names.add(name)
    return OutboundHosts(frozenset(names), tuple(endings), tuple(networks))


class Destination:
    """Where one request goes. `through_proxy`: its connection is to a proxy, which looks the name up."""

    def __init__(self, url: str, hosts: OutboundHosts | None, *, through_proxy: bool) -> None:
        """Raises OutboundRefusedError: already its name or address may not be reached."""
        self._host = (urlsplit(url).hostname or "").removesuffix(".")
        self._hosts, self._through_proxy = hosts, through_proxy
        address = _address(self._host)
        if address is not None:
            self._check_address(address)
        elif hosts is not None and not hosts.has_name(self._host) and (through_proxy or not hosts.networks):
            self._check_listed(self._host)

    def on_event(self, event: str, info: Mapping[str, Any]) -> None:
        """What httpx reports while it sends: a connection is checked before anything is sent on it.

        Raises:
            OutboundRefusedError: its address may not be reached.
        """
        if event != "connection.connect_tcp.complete" or self._through_proxy:
            return
        connection = info["return_value"]
        try:
            self._check_address(ipaddress.ip_address(str(connection.get_extra_info("server_addr")[0])))
        except OutboundRefusedError:
            connection.close()
            raise

    def _check_address(self, address: Address) -> None:
        address = _plain(address)
        if address.is_link_local or address in _METADATA:
            raise OutboundRefusedError("requests to link-local addresses are refused")
        if self._hosts is not None and not self._hosts.has_name(self._host) and not self._hosts.has_address(address):
            self._check_listed(str(address))

    def _check_listed(self, host: str) -> None:
        if not is_loopback(host):
            raise OutboundRefusedError(f"its host is not listed in {VARIABLE}")


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _plain(address: Address) -> Address:
    """The address of IPv4 where one of IPv6 stands for it or leads to it; else the address itself."""
    if not isinstance(address, ipaddress.IPv6Address) or address.is_loopback:
        return address
    if any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address
