"""LiteLLM's proxy with a budget in Redis, in an environment of its own: built on demand, never a dependency of ours."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

VERSION = "1.106.0"
KEY = "sk-bench"
AUTH = '''"""Lets everybody in under a budget that is never used up."""

from litellm.proxy._types import UserAPIKeyAuth


async def allow(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, max_budget=1000000.0)
'''
CONFIG = """
model_list:
  - model_name: awgp/scripted
    litellm_params:
      model: openai/scripted
      api_base: {upstream}/v1
      api_key: none
      input_cost_per_token: 0.0000005
      output_cost_per_token: 0.0000015
general_settings:
  custom_auth: bench_auth.allow
router_settings:
  redis_host: {host}
  redis_port: {port}
  redis_username: {user}
  redis_password: {password}
  provider_budget_config:
    openai:
      budget_limit: 1000000
      time_period: 1d
litellm_settings:
  telemetry: false
  num_retries: 0
"""


def environment(cache: Path) -> Path:
    """The environment's folder, built where it is missing (742 MB)."""
    folder = cache / f"litellm-{VERSION}"
    if not (folder / "bin" / "litellm").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run([uv, "pip", "install", "-q", "--python", python, f"litellm[proxy]=={VERSION}"], check=True)
    return folder


def command(cache: Path, work: Path, upstream: str, redis_url: str, port: int) -> tuple[list[str], dict[str, str]]:
    """How to start it, and what it is told."""
    redis = urlsplit(redis_url)
    (work / "bench_auth.py").write_text(AUTH)
    config = work / "litellm.yaml"
    config.write_text(
        CONFIG.format(
            upstream=upstream, host=redis.hostname, port=redis.port, user=redis.username, password=redis.password
        )
    )
    told = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
        "REDIS_USERNAME": redis.username or "",
        "PYTHONPATH": str(work),
    }
    started = [str(environment(cache) / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    return [*started, "--port", str(port), "--num_workers", "1"], told
