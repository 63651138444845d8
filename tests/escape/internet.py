"""The whole internet in one network namespace: everything that an attack would like to reach, answering.

Run as ``unshare --net python internet.py``: it holds the namespace in which the suite's engine stands, so a control
without the sandbox's *no network* reaches these and nothing of the machine. Ends when its input ends.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import subprocess
import sys
from pathlib import Path

ADDRESSES = (
    "1.1.1.1/32", "8.8.8.8/32", "169.254.169.254/32", "172.17.0.1/32", "10.0.0.1/32",
    "2606:4700:4700::1111/128", "fd00:ec2::254/128", "fe80::1/64",
)  # fmt: skip
TCP = (80, 443, 2375, 5432)
UDP = (53, 443, 5353)
ANSWER = b"reached\n"


def settle() -> None:
    """Gives the loopback its addresses."""
    subprocess.run(["ip", "link", "set", "lo", "up", "multicast", "on"], check=True)
    for address in ADDRESSES:
        extra = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", "lo", *extra], check=True)
    subprocess.run(["ip", "route", "add", "224.0.0.0/4", "dev", "lo"], check=True)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")


def listeners() -> list[socket.socket]:
    """Every port, for IPv4 and IPv6 at once, and the abstract name."""
    made: list[socket.socket] = []
    for kind, ports in ((socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)):
        for port in ports:
            listener = socket.socket(socket.AF_INET6, kind)
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("::", port))
            made.append(listener)
    group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    group.bind(("224.0.0.251", 5353))
    member = struct.pack("4s4s", socket.inet_aton("224.0.0.251"), socket.inet_aton("127.0.0.1"))
    group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0awgp-escape")
    made += [group, abstract]
    for listener in made:
        if listener.type == socket.SOCK_STREAM:
            listener.listen(16)
    return made


def answer(listener: socket.socket) -> None:
    """Says *reached* to whoever is there."""
    with contextlib.suppress(OSError):
        if listener.type == socket.SOCK_DGRAM:
            _, sender = listener.recvfrom(2048)
            listener.sendto(ANSWER, sender)
            return
        connection, _ = listener.accept()
        with connection:
            connection.sendall(ANSWER)
            connection.settimeout(1)
            connection.recv(2048)


def main() -> None:
    settle()
    with selectors.DefaultSelector() as selector:
        for listener in listeners():
            selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if isinstance(key.fileobj, socket.socket):
                    answer(key.fileobj)


if __name__ == "__main__":
    main()
