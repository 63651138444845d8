"""Seeding: who is there at first, and the one-time tokens by which the tenants' runtimes enrol."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from workers.stack.credentials import private_folder, write_private
from workers.stack.paths import CHECKOUT, Paths
from workers.stack.steps import SetupError, run


def tenants(seed_file: Path) -> list[str]:
    """Slugs of the seeded tenants, in the file's order.

    Raises:
        SetupError: The file is not there or has another shape.
    """
    try:
        seed = cast("dict[str, Any]", yaml.safe_load(seed_file.read_text()))
        return [str(tenant["slug"]) for tenant in seed["tenants"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        what = f"the seed file {seed_file} cannot be read: {error}"
        raise SetupError(what, "git checkout deploy/seed.yaml") from error


def seed(environment: Mapping[str, str]) -> None:
    """Write tenants, principals, assistants, budgets; safe to repeat."""
    command = [sys.executable, "-m", "models.services.seed"]
    run(command, "make reset && make up", env=environment, cwd=CHECKOUT, timeout=120)


def prices(environment: Mapping[str, str]) -> None:
    """Write the prices of models that are known without asking anybody; safe to repeat."""
    run([sys.executable, "-m", "workers.prices"], "make up", env=environment, cwd=CHECKOUT, timeout=120)


def hand_enrolment_token(paths: Paths, tenant: str, environment: Mapping[str, str]) -> None:
    """Give a tenant's runtime a one-time token, unless it has enrolled already."""
    folder = private_folder(paths.secrets / f"runtime-{tenant}")
    token_file = folder / "awgp_runtime_enrolment_token"
    state = paths.runtime(tenant)
    if (state / "identity.json").exists():
        token_file.unlink(missing_ok=True)
        return
    private_folder(state.parent)
    private_folder(state)
    private_folder(paths.runs / tenant)
    command = [sys.executable, "-m", "models.services.enrolment", "--tenant", tenant]
    token = run(command, "make up", env=environment, cwd=CHECKOUT, timeout=60).split()
    if not token:
        raise SetupError(f"no enrolment token was issued for {tenant}", "make reset && make up")
    write_private(token_file, token[-1])
