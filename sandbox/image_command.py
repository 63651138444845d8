"""What an OCI image would run: ENTRYPOINT, CMD, ENV and WORKDIR, resolved outside of the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.runner import StartFailedError
from sandbox.spec import Continuation, RunOutcome, RunSpec

STATE_PATH = ".awgp/state"
DECISIONS_PATH = ".awgp/decisions.json"
"""Under the inputs: what an attempt goes on from."""


@dataclass(frozen=True)
class ImageCommand:
    """What the guest is to start.

    Attributes:
        volumes: Paths the image declares as VOLUME; each would be a folder on the host without limit.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    workdir: str
    volumes: tuple[str, ...]


def resolve_command(image: Mapping[str, Any], spec: RunSpec) -> ImageCommand:
    """Combines an image's config with the spec as ``docker run`` would.

    Args:
        image: The engine's answer to *inspect image*.
        spec: What was asked for.

    Raises:
        StartFailedError: The image is another one than the spec names, or nothing is left to run.
    """
    _check_digest(image, spec)
    config: Mapping[str, Any] = image.get("Config") or {}
    entrypoint = tuple(config.get("Entrypoint") or ())
    command = tuple(config.get("Cmd") or ())
    if spec.entrypoint is not None:
        entrypoint, command = spec.entrypoint, ()
    if spec.command is not None:
        command = spec.command
    argv = entrypoint + command
    if not argv or not argv[0]:
        raise StartFailedError(RunOutcome.START_FAILED, "neither the image nor the assistant names a command")
    if any("\0" in text for text in (*argv, *spec.env, *spec.env.values())):
        raise StartFailedError(RunOutcome.START_FAILED, "a NUL byte in the command or its environment")
    env = dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry)
    env |= spec.env | {
        "HOME": "/workspace",
        "AWGP_INPUT_DIR": "/awgp/in",
        "AWGP_OUTPUT_DIR": "/workspace/out",
        "AWGP_RUN_ID": str(spec.run_id),
        "AWGP_WORK_ITEM_ID": str(spec.work_item_id),
    }
    workdir = config.get("WorkingDir") or "/workspace"
    return ImageCommand(argv, env, workdir, volumes_of(image))


def volumes_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the paths that an image declares as VOLUME."""
    config: Mapping[str, Any] = image.get("Config") or {}
    return tuple(config.get("Volumes") or ())


def continuation_env(continuation: Continuation | None) -> dict[str, str]:
    """Names what an attempt goes on from; empty for one that begins."""
    if continuation is None:
        return {}
    saved = {"AWGP_STATE": f"/awgp/in/{STATE_PATH}"} if continuation.state is not None else {}
    return saved | {"AWGP_DECISIONS": f"/awgp/in/{DECISIONS_PATH}"}


def fits_digest(image: Mapping[str, Any], wanted: str) -> bool:
    """Whether this is the image, by its id or by one of its repository digests."""
    return image.get("Id") == wanted or any(digest.endswith("@" + wanted) for digest in image.get("RepoDigests") or ())


def _check_digest(image: Mapping[str, Any], spec: RunSpec) -> None:
    wanted = spec.image_digest
    if wanted is None or fits_digest(image, wanted):
        return
    raise StartFailedError(RunOutcome.IMAGE_MISSING, f"{spec.image} is {image.get('Id')} on this host, not {wanted}")
