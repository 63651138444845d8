"""Every setting is documented, and nothing documented is gone."""

import re
from pathlib import Path

from models.settings import Settings
from sandbox.runtime_settings import RuntimeSettings

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_setting_stands_in_the_operations_guide() -> None:
    rows = set(re.findall(r"^\| `(AWGP_[A-Z_]+)`", OPERATIONS.read_text(), re.MULTILINE))
    known = {f"AWGP_{name.upper()}" for name in Settings.model_fields}
    known |= {f"AWGP_RUNTIME_{name.upper()}" for name in RuntimeSettings.model_fields}
    assert rows == known
