"""Which addresses may be reached: by what they are, whatever form they are written in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE = IPv6Network("::/96")
_METADATA = frozenset({IPv6Address("fd00:ec2::254"), IPv6Address("fd20:ce::254"), IPv4Address("100.100.100.200")})
"""Where clouds answer questions about a machine, beside the link-local 169.254.169.254."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet: not private, loopback, link-local, shared, multicast, reserved.

    An IPv6 address that carries an IPv4 one (mapped, compatible, 6to4, Teredo, NAT64) is public only if that is too.

    Raises:
        ValueError: It is no IP address.
    """
    return all(_is_public(one) for one in _meant(address))


def may_be_private(address: str) -> bool:
    """Whether an address that is not public may be reached by whoever is allowed private ones.

    Never: link-local (a cloud's metadata), multicast, the unspecified and broadcast addresses.

    Raises:
        ValueError: It is no IP address.
    """
    return not any(
        one.is_link_local
        or one.is_multicast
        or one.is_unspecified
        or one in _METADATA
        or (isinstance(one, IPv4Address) and (one in _BROADCAST or one.packed[0] == 0))
        for one in _meant(address)
    )


_BROADCAST = frozenset({IPv4Address("255.255.255.255")})


def _is_public(one: IPv4Address | IPv6Address) -> bool:
    return one.is_global and not (one.is_multicast or one.is_reserved or one.is_unspecified)


def _meant(address: str) -> list[IPv4Address | IPv6Address]:
    """The address, and the ones that it carries."""
    one = ip_address(address.partition("%")[0])
    if isinstance(one, IPv4Address):
        return [one]
    if one.ipv4_mapped is not None:
        return [one.ipv4_mapped]
    last = IPv4Address(int(one) & 0xFFFFFFFF)
    carried: list[IPv4Address | IPv6Address] = [one]
    if one.sixtofour is not None:
        carried.append(one.sixtofour)
    if one.teredo is not None:
        carried += one.teredo
    if any(one in network for network in _NAT64):
        # 64:ff9b::/96 is global: what counts is where it leads.
        carried = [last]
    if one in _COMPATIBLE and int(one) > 1:
        carried.append(last)
    return carried
