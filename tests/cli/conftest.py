"""The command's tests speak to the API that the API's own tests serve."""

from __future__ import annotations

from tests.api.conftest import api, deps, fast_path, issuer

__all__ = ["api", "deps", "fast_path", "issuer"]
