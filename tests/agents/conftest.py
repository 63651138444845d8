"""The engine and the runner of the sandbox's own tests."""

from __future__ import annotations

from tests.sandbox.conftest import engine_host as engine_host
from tests.sandbox.conftest import real as real
