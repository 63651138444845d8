"""Ways to the host's files."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
from pathlib import Path

from harness import WHERE, Refused, call, opened

_CREDENTIAL = re.compile(rb"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}|awgp_[a-z]{2}_[\w-]{8,}|sk-[\w-]{16,}|-----BEGIN")


def _content(path: str) -> str:
    text = Path(path).read_text()
    if hashlib.sha256(text.encode()).hexdigest() != WHERE["canary_sha256"]:
        raise Refused(f"{path} is another file")
    return f"read {path}"


def by_its_path() -> str:
    return _content(WHERE["canary"])


def by_dots() -> str:
    """Up from each thing that is mounted, by every depth."""
    last: OSError | Refused = Refused("nothing")
    for start in ("/awgp/run", "/awgp/in", "/awgp/guest/..", "/proc/self/cwd", "/workspace"):
        for depth in range(1, 12):
            try:
                return _content(f"{start}/{'../' * depth}{WHERE['canary'].lstrip('/')}")
            except (OSError, Refused) as error:
                last = error
    raise last


def by_descriptor_of_a_mount() -> str:
    """Openat from a folder's descriptor: where a bind mount may be left if its folder moves."""
    folder = os.open("/awgp/run", os.O_PATH | os.O_DIRECTORY)
    for depth in range(1, 12):
        try:
            inner = os.open("../" * depth + "mounts", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        except OSError:
            continue
        return f"the folder of all runs holds {os.listdir(inner)}"
    raise Refused("no depth leads to the folder of all runs")


def _other_run(under: str) -> str:
    for folder, _, names in os.walk(under):
        if WHERE["other_run"] in folder and names:
            return f"{folder} holds {names}"
    raise Refused(f"no other run under {under}")


def folder_of_another_run() -> str:
    return _other_run("/awgp")


def by_root_of_pid_1() -> str:
    return _content(f"/proc/1/root{WHERE['canary']}")


def by_any_process() -> str:
    """Root, working folder and open files of every process that shows."""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        for way in ("root", "cwd"):
            try:
                return _content(f"{process}/{way}/{WHERE['canary']}")
            except (OSError, Refused):
                continue
    raise Refused("no process leads there")


def by_file_handle() -> str:
    """Opens by inode and file system, past every folder (CVE-2014-9357's neighbour)."""
    raw = bytes.fromhex(WHERE["handle"])
    handle = ctypes.create_string_buffer(raw, len(raw))
    mount = os.open("/awgp/run", os.O_RDONLY)
    descriptor = call("open_by_handle_at", mount, handle, os.O_RDONLY)
    return _content(f"/proc/self/fd/{descriptor}")


def by_symlink_in_workspace() -> str:
    link = "/workspace/to-the-host"
    os.symlink(WHERE["canary"], link)
    return _content(link)


def write_into_run() -> str:
    Path("/awgp/run/planted").write_text("x")
    return "a file was planted beside the socket"


def write_into_inputs() -> str:
    Path("/awgp/in/planted").write_text("x")
    return "a file was planted among the inputs"


def overwrite_an_input() -> str:
    with Path(WHERE["input"]).open("r+"):
        return "an input can be changed"


def reopen_an_input_by_proc() -> str:
    """A descriptor for reading, opened again for writing through /proc."""
    descriptor = os.open(WHERE["input"], os.O_RDONLY)
    return opened(f"/proc/self/fd/{descriptor}", os.O_RDWR)


def change_mode_of_an_input() -> str:
    Path(WHERE["input"]).chmod(0o4755)
    return "an input got a setuid bit"


def overwrite_the_guest() -> str:
    return opened("/awgp/guest", os.O_WRONLY)


def change_guest_json() -> str:
    return opened("/awgp/run/guest.json", os.O_WRONLY)


def write_into_the_image() -> str:
    Path("/etc/awgp-planted").write_text("x")
    return "the image was written"


def write_beside_awgp() -> str:
    Path("/awgp/planted").write_text("x")
    return "a file beside the mounts"


def host_sockets() -> str:
    """The control sockets of engines, at the paths that everybody knows and at this engine's own."""
    import socket

    paths = ("/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock", WHERE["engine"])
    last: OSError = OSError("none")
    for path in paths:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(path)
                probe.sendall(b"GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
                return f"{path} answered {probe.recv(20)!r}"
        except OSError as error:
            last = error
    raise last


def _secrets(text: bytes, where: str) -> str:
    for word in re.split(rb"[\0\s\"'=,:]+", text):
        if hashlib.sha256(word).hexdigest() == WHERE["secret_sha256"]:
            return f"{where} holds the host's secret"
    found = _CREDENTIAL.search(text)
    if found:
        return f"{where} holds a credential: {found.group()[:12]!r}…"
    raise Refused(f"no secret in {where}")


def secret_in_environment() -> str:
    return _secrets(json.dumps(dict(os.environ)).encode(), "the environment")


def secret_in_guest_json() -> str:
    return _secrets(Path("/awgp/run/guest.json").read_bytes(), "guest.json")


def secret_of_processes() -> str:
    """Environment and arguments of every process, the guest's too."""
    for process in Path("/proc").iterdir():
        for name in ("environ", "cmdline"):
            try:
                return _secrets((process / name).read_bytes(), f"{process}/{name}")
            except (OSError, Refused):
                continue
    raise Refused("no process holds one")
