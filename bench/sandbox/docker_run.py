"""``docker run`` to its first byte: the floor, plain and with the arguments that every sandbox gets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any


def flags_of(arguments: dict[str, Any], seccomp: Path) -> list[str]:
    """Returns the command's flags for the SDK's arguments.

    Left out: the entrypoint (the guest is ours, not Docker's), and ``network_disabled``, which the command
    does not have; it costs what ``--network=none`` costs.

    Args:
        arguments: As ``container_arguments`` gives them.
        seccomp: Where the profile is written, since the command reads a file.
    """
    flags = [
        f"--workdir={arguments['working_dir']}", f"--hostname={arguments['hostname']}", "--no-healthcheck",
        f"--user={arguments['user']}", "--read-only", f"--ipc={arguments['ipc_mode']}",
        f"--shm-size={arguments['shm_size']}", f"--memory={arguments['mem_limit']}",
        f"--memory-swap={arguments['memswap_limit']}", f"--cpus={arguments['nano_cpus'] / 1e9}",
        f"--pids-limit={arguments['pids_limit']}", f"--oom-score-adj={arguments['oom_score_adj']}",
        f"--log-driver={arguments['log_config'].type}",
    ]  # fmt: skip
    flags += [f"--cap-drop={name}" for name in arguments["cap_drop"]]
    flags += [f"--tmpfs={path}:{options}" for path, options in arguments["tmpfs"].items()]
    flags += [f"--ulimit={limit.name}={limit.soft}:{limit.hard}" for limit in arguments["ulimits"]]
    flags += [f"--log-opt={name}={value}" for name, value in arguments["log_config"].config.items()]
    flags += [f"--label={name}={value}" for name, value in arguments["labels"].items()]
    for mount in arguments["mounts"]:
        flags.append(f"--mount=type={mount['Type']},source={mount['Source']},target={mount['Target']},readonly")
    for option in arguments["security_opt"]:
        name, _, profile = option.partition("=")
        if name == "seccomp":
            seccomp.write_text(profile)
            option = f"seccomp={seccomp}"
        flags.append(f"--security-opt={option}")
    return flags


async def first_byte(docker_host: str, runtime: str, image: str, flags: list[str]) -> float:
    """Runs ``echo x`` and returns the milliseconds until its byte came."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        "docker", "-H", docker_host, "run", "--rm", f"--runtime={runtime}", "--network=none", *flags,
        image, "echo", "x", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readexactly(1)
    taken = time.perf_counter() - began
    await process.wait()
    return taken * 1000
