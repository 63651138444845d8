"""Ways out over a network."""

from __future__ import annotations

import os
import socket
import struct

from harness import WHERE, Refused, call

HELLO = b"awgp-escape?"


def _tcp(address: str, port: int, family: int = socket.AF_INET, scope: int = 0) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(3)
        probe.connect((address, port) if family == socket.AF_INET else (address, port, 0, scope))
        probe.sendall(HELLO)
        answer = probe.recv(64)
    if not answer:
        raise Refused("connected, and nobody answered")
    return f"{address}:{port} answered {answer!r}"


def _udp(address: str, port: int, family: int = socket.AF_INET, payload: bytes = HELLO) -> str:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.settimeout(3)
        probe.sendto(payload, (address, port))
        answer, sender = probe.recvfrom(512)
    return f"{sender[0]}:{sender[1]} answered {answer!r}"


def tcp_ipv4() -> str:
    return _tcp("1.1.1.1", 443)


def udp_ipv4() -> str:
    return _udp("1.1.1.1", 443)


def tcp_ipv6() -> str:
    return _tcp("2606:4700:4700::1111", 443, socket.AF_INET6)


def udp_ipv6() -> str:
    return _udp("2606:4700:4700::1111", 443, socket.AF_INET6)


def ipv4_mapped() -> str:
    return _tcp("::ffff:1.1.1.1", 443, socket.AF_INET6)


def dns_query() -> str:
    """A query by hand: no resolver of the image is asked."""
    name = b"".join(bytes([len(part)]) + part for part in (b"example", b"com")) + b"\0"
    query = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack(">HH", 1, 1)
    return _udp("8.8.8.8", 53, payload=query)


def dns_of_docker() -> str:
    return _udp("127.0.0.11", 53)


def metadata_ipv4() -> str:
    return _tcp("169.254.169.254", 80)


def metadata_ipv6() -> str:
    return _tcp("fd00:ec2::254", 80, socket.AF_INET6)


def link_local() -> str:
    """On every interface there is."""
    last: OSError = OSError("no interface")
    for index, _ in socket.if_nameindex():
        try:
            return _tcp("fe80::1", 443, socket.AF_INET6, index)
        except OSError as error:
            last = error
    raise last


def loopback_of_the_host() -> str:
    """A service that listens on the host's loopback alone, such as a database."""
    return _tcp("127.0.0.1", 5432)


def docker_over_tcp() -> str:
    return _tcp("127.0.0.1", 2375)


def gateway_of_docker() -> str:
    return _tcp("172.17.0.1", 443)


def private_network() -> str:
    return _tcp("10.0.0.1", 443)


def multicast() -> str:
    return _udp("224.0.0.251", 5353)


def icmp_by_ping_socket() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as probe:
        probe.settimeout(3)
        probe.sendto(struct.pack(">BBHHH", 8, 0, 0, 0, 1) + HELLO, ("1.1.1.1", 0))
        return f"an echo of {len(probe.recv(512))} bytes"


def icmp_by_raw_socket() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return "a raw socket was opened"


def raw_ipv6() -> str:
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58):
        return "a raw socket was opened"


def packet_socket() -> str:
    with socket.socket(17, socket.SOCK_RAW, socket.htons(3)):
        return "a packet socket was opened"


def vsock() -> str:
    """To the hypervisor beside all networks."""
    with socket.socket(40, socket.SOCK_STREAM):
        return "a socket to the hypervisor was opened"


def kernel_crypto() -> str:
    """AF_ALG: a long way into the host's kernel for whoever may open it."""
    with socket.socket(38, socket.SOCK_SEQPACKET):
        return "a socket to the kernel's cryptography was opened"


def exotic_family() -> str:
    """Families that nothing in a sandbox needs, each with a past of its own."""
    refused: OSError = OSError("none")
    for family in (21, 30, 31, 44):  # RDS, TIPC, Bluetooth, XDP
        try:
            with socket.socket(family, socket.SOCK_RAW):
                return f"a socket of family {family} was opened"
        except OSError as error:
            refused = error
    raise refused


def abstract_socket() -> str:
    """A name that belongs to no folder, only to a network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(3)
        probe.connect("\0awgp-escape")
        return f"the host's abstract socket answered {probe.recv(64)!r}"


def netlink_new_address() -> str:
    """RTM_NEWADDR: an address of our own on lo would be a beginning."""
    address = struct.pack("BBBBi", socket.AF_INET, 8, 0, 0, 1)
    address += struct.pack("HH4s", 8, 2, socket.inet_aton("10.99.0.1"))
    return _netlink(0, struct.pack("IHHII", 16 + len(address), 20, 0x605, 1, 0) + address, wants_ack=True)


def netlink_sockets_of_the_host() -> str:
    """NETLINK_SOCK_DIAG lists the Unix sockets of a network namespace."""
    request = struct.pack("BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, 1, 0xFFFFFFFF, 0xFFFFFFFF)
    return _netlink(4, struct.pack("IHHII", 16 + len(request), 20, 0x301, 1, 0) + request, wants_ack=False)


def _netlink(protocol: int, message: bytes, *, wants_ack: bool) -> str:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as link:
        link.settimeout(3)
        link.bind((0, 0))
        link.send(message)
        answer = link.recv(65536)
    kind = struct.unpack_from("H", answer, 4)[0]
    code = -struct.unpack_from("i", answer, 16)[0] if kind == 2 else 0
    if code:
        raise OSError(code, os.strerror(code))
    if not wants_ack and kind != 20:
        raise Refused("an empty list")
    return f"the kernel did it: {len(answer)} bytes"


def join_network_namespace() -> str:
    """Through the descriptor of the guest's namespace, or the host's where it shows."""
    descriptor = os.open("/proc/1/ns/net", os.O_RDONLY)
    call("setns", descriptor, 0x40000000)
    if os.stat("/proc/self/ns/net").st_ino != WHERE["init_net"]:
        raise Refused("joined its own")
    return "joined the host's network"
