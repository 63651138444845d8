"""supervisord's configuration: rendered, never edited."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from workers.stack.paths import CHECKOUT, Paths
from workers.stack.postgres import as_user
from workers.stack.processes import Process

# Practically for ever: a process whose dependency is away goes on trying, and says so in its log.
START_RETRIES = 1_000_000_000

# Writes who it is (pid and start time, so that a later process with the same pid is never taken for it), takes its
# variables, and becomes the program.
LAUNCHER = """#!/bin/sh
# usage: launch <name> <command…>   (written by workers/stack/supervisor.py)
folder={folder}
name=$1; shift
stat=$(cat /proc/$$/stat)
set -- "$name" "$@"
start=$(echo "${{stat##*) }}" | cut -d' ' -f20)
echo "$$ $start" >"$folder/pids/$name.partial" && mv "$folder/pids/$name.partial" "$folder/pids/$name"
. "$folder/env/$name"
shift
exec "$@"
"""


def write(paths: Paths, processes: list[Process]) -> Path:
    """Write configuration, launcher and the processes' variables; returns the configuration's path."""
    folder = paths.supervisor
    for name in ("pids", "env"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o700)
    launcher = folder / "launch"
    launcher.write_text(LAUNCHER.format(folder=shlex.quote(str(folder))))
    launcher.chmod(0o700)
    for process in processes:
        lines = (f"export {name}={shlex.quote(value)}" for name, value in sorted(process.environment.items()))
        (folder / "env" / process.name).write_text("\n".join(lines) + "\n")
    target = folder / "supervisord.conf"
    target.write_text(render(paths, processes))
    return target


def render(paths: Paths, processes: list[Process]) -> str:
    """Supervisord's configuration for these processes."""
    socket = socket_path(paths)
    head = (
        f"[unix_http_server]\nfile={socket}\nchmod=0700\n\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\n"
        f"[supervisord]\nlogfile={paths.log}/supervisord.log\npidfile={paths.supervisor}/supervisord.pid\n"
        f"directory={CHECKOUT}\nidentifier=awgp-{paths.tag}\nminfds=4096\nnocleanup=true\n\n"
        f"[supervisorctl]\nserverurl=unix://{socket}\n\n"
    )
    return _escape(head) + "\n".join(_escape(program(paths, process)) for process in processes)


def program(paths: Paths, process: Process) -> str:
    """One program's section."""
    command = [str(paths.supervisor / "launch"), process.name, *_tied(process), *process.command]
    return (
        f"[program:{process.name}]\n"
        f"command={' '.join(_quote(word) for word in command)}\n"
        f"directory={'/' if process.as_server_user else CHECKOUT}\n"
        f"priority={process.order}\nautostart={str(process.is_server).lower()}\nautorestart=true\n"
        f"startsecs=1\nstartretries={START_RETRIES}\n"
        f"stopsignal={process.stop_signal}\nstopwaitsecs=20\n"
        f"redirect_stderr=true\nstdout_logfile={paths.log}/{process.name}.log\n"
        "stdout_logfile_maxbytes=20MB\nstdout_logfile_backups=2\n"
    )


def base_environment() -> dict[str, str]:
    """All that supervisord and its children inherit."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR", "SSL_CERT_FILE")
    return {"PATH": os.defpath, **{name: os.environ[name] for name in kept if name in os.environ}}


def daemon_command(configuration: Path) -> list[str]:
    """Supervisord's command line; it goes to the background by itself."""
    return [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]


def socket_path(paths: Paths) -> Path:
    """Where supervisord listens for commands."""
    return paths.supervisor / "supervisor.sock"


def _tied(process: Process) -> list[str]:
    """Prefix that lets the process die with supervisord."""
    tie = f"--pdeathsig={process.death_signal}"
    return as_user(tie, "--") if process.as_server_user else ["setpriv", tie, "--"]


def _quote(word: str) -> str:
    # supervisord reads commands by shlex, so a shell's quoting is right.
    return shlex.quote(word)


def _escape(text: str) -> str:
    # A per cent sign starts an expansion in supervisord's files.
    return text.replace("%", "%%")
