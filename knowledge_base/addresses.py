"""Which hosts documents may be fetched from: public ones, and those that are allowed by name."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pipeline.domain.errors import PermanentError, TemporaryError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""A host's name and port into its addresses. Raises OSError."""

_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA gave out for hosts on the internet; RFC 4291, 2.4."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses that this machine's resolver gives."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


@dataclass(frozen=True, slots=True)
class HostGuard:
    """Refuses hosts inside the own network: what is behind a URL from outside must not be read from there.

    ``allow_hosts``: names (``wiki.corp``), domains (``*.corp``) or addresses that may be internal; still never
    link-local ones, where clouds serve credentials, nor multicast.
    """

    allow_hosts: tuple[str, ...] = ()
    resolver: Resolver = resolve

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        """The addresses to connect to, and to no other ones.

        Raises PermanentError when one of them is not allowed, TemporaryError when the name cannot be resolved.
        """
        plain = host.rstrip(".").lower()
        literal = _literal(plain)
        try:
            texts = [plain] if literal else await self.resolver(plain, port)
            found = [ipaddress.ip_address(text.partition("%")[0]) for text in texts]
        except (OSError, UnicodeError, ValueError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise TemporaryError(f"{host} cannot be resolved: {reason}") from error
        if not found:
            raise TemporaryError(f"{host} has no address")
        allowed = self._is_allowed(plain)
        for address in found:
            real = _embedded(address)
            where = host if literal else f"{host} ({address})"
            if real.is_link_local or real.is_multicast or real.is_unspecified:
                raise PermanentError(f"{where}: link-local or for many hosts, no document may be read from there")
            if not allowed and not _is_public(real):
                raise PermanentError(f"{where}: no public address, add the host to SRE_KB_ALLOW_HOSTS to read from it")
        return tuple(dict.fromkeys(str(address) for address in found))

    def _is_allowed(self, host: str) -> bool:
        for allowed in self.allow_hosts:
            name = allowed.strip().strip("[]").rstrip(".").lower()
            if host == name or (name.startswith("*.") and host.endswith(name[1:])):
                return True
        return False


def _is_public(address: IpAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_reserved


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _embedded(address: IpAddress) -> IpAddress:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address
