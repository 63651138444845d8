"""`python -m api.openapi`: write the API's description to `docs/openapi.json`; a test keeps it current."""

from __future__ import annotations

import json
from pathlib import Path

from api.app import describe

TARGET = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def text() -> str:
    """The description as it is kept."""
    return json.dumps(describe().openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write it."""
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
