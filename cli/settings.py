"""What the command is told: environment, or what the embedded stack kept at set-up."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parents[1]


class CliSettings(BaseSettings):
    """Settings of the command; the environment wins over the stack's `config.env`."""

    model_config = SettingsConfigDict(env_prefix="AWGP_", extra="ignore")

    data: Path = Field(CHECKOUT / ".awgp", description="The stack's data folder; tokens are kept in `cli/` below it.")
    api_url: str = Field("http://127.0.0.1:4000", description="The API.")
    token: SecretStr | None = Field(None, description="A bearer token; otherwise the stored one is used.")
    dev_issuer_host: str = Field("127.0.0.1", description="The development issuer's address.")
    dev_issuer_port: int = Field(4200, description="The development issuer's port.")
    dev_issuer_password: SecretStr | None = Field(None, description="What the development issuer asks for.")

    @property
    def dev_issuer_url(self) -> str:
        """Where the development issuer listens."""
        return f"http://{self.dev_issuer_host}:{self.dev_issuer_port}"

    @property
    def tokens(self) -> Path:
        """The folder in which tokens are kept."""
        return self.data / "cli"

    def issuer_password(self) -> str | None:
        """The development issuer's password: from the environment, or from the stack's secrets."""
        if self.dev_issuer_password is not None:
            return self.dev_issuer_password.get_secret_value()
        kept = self.data / "secrets" / "cli" / "awgp_dev_issuer_password"
        try:
            return kept.read_text(encoding="utf-8").strip()
        except OSError:
            return None


def load() -> CliSettings:
    """Read the settings."""
    data = Path(os.environ.get("AWGP_DATA") or CHECKOUT / ".awgp")
    kept = data / "config.env"
    api_port = _kept_value(kept, "AWGP_API_PORT")
    settings = CliSettings(_env_file=kept if kept.exists() else None)  # pyright: ignore[reportCallIssue] - pydantic-settings' own
    if api_port and "AWGP_API_URL" not in os.environ and _kept_value(kept, "AWGP_API_URL") is None:
        settings = settings.model_copy(update={"api_url": f"http://127.0.0.1:{api_port}"})
    return settings.model_copy(update={"api_url": settings.api_url.rstrip("/")})


def _kept_value(path: Path, name: str) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.partition("=")[2].strip("'\" ") for line in lines if line.partition("=")[0].strip() == name]
    return found[-1] if found else None
