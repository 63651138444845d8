"""What can be done in the folder with the run's sockets."""

from __future__ import annotations

import array
import os
import socket
from pathlib import Path

from harness import WHERE, Refused

RUN = Path("/awgp/run")


def create_a_socket() -> str:
    with socket.socket(socket.AF_UNIX) as mine:
        mine.bind(str(RUN / "mine.sock"))
        return "a socket of the agent's stands beside the run's"


def unlink_the_socket() -> str:
    (RUN / "unlink.sock").unlink()
    return "a socket of the host's was removed"


def rename_the_socket() -> str:
    (RUN / "rename.sock").rename(RUN / "away.sock")
    return "a socket of the host's was renamed"


def replace_by_a_link() -> str:
    (RUN / "llm.sock.new").symlink_to("/awgp/run/guest.sock")
    return "a link stands in the folder"


def hardlink_the_socket() -> str:
    os.link(RUN / "link.sock", RUN / "copy.sock")
    return "the socket has a second name"


def close_the_socket_to_others() -> str:
    (RUN / "mode.sock").chmod(0)
    return "the socket's mode was changed"


def socket_of_another_run() -> str:
    """By every path that could lead to it."""
    last: OSError = OSError("none")
    other = WHERE["other_run"]
    for path in (f"/awgp/runs/{other}", f"/awgp/run/../../{other}", f"/awgp/run/../{other}", WHERE["other_folder"]):
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(f"{path}/run/canary.sock")
                return "connected to another run's socket"
        except OSError as error:
            last = error
    raise last


def pass_a_descriptor() -> str:
    """SCM_RIGHTS to the host's side: it answers with how many arrived."""
    with socket.socket(socket.AF_UNIX) as probe, Path("/etc/passwd").open() as file:
        probe.settimeout(5)
        probe.connect(str(RUN / "canary.sock"))
        rights = array.array("i", [file.fileno()])
        probe.sendmsg([b"take"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        answer = probe.recv(16)
    if answer != b"1":
        raise Refused(f"the host got {answer!r} descriptors")
    return "a descriptor reached the host"


def take_a_descriptor() -> str:
    """Asks every socket of the host's for one of its descriptors: gVisor would let it in."""
    for name in WHERE["sockets"]:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2)
            probe.connect(str(RUN / name))
            probe.sendall(b"give")
            try:
                _, ancillary, _, _ = probe.recvmsg(16, socket.CMSG_SPACE(4))
            except TimeoutError:
                continue
        if ancillary:
            number = int.from_bytes(ancillary[0][2][:4], "little")
            return f"a descriptor of the host's arrived: {os.read(number, 8)!r}"
    raise Refused("no descriptor came")
