"""Every setting of the control plane's processes: environment (`AWGP_…`) and secret files, nowhere else.

The host runtime and the guest read their own (`sandbox/runtime_settings.py`).
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings, read once by a process's composition root.

    Secrets come from files named `awgp_<field>` in the folder `AWGP_SECRETS_DIR` (mode 0600; `/run/secrets` under
    Compose); each process is given only those that it may hold.
    """

    model_config = SettingsConfigDict(
        env_prefix="AWGP_",
        secrets_dir=os.environ.get("AWGP_SECRETS_DIR") or None,
        extra="ignore",
    )

    data: Path = Field(default=Path(".awgp"), description="Folder of everything that is kept.")
    log_level: str = Field(default="info", description="debug, info, warning or error.")
    api_host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    api_port: int = Field(default=4000, description="Port that the API listens on.")
    api_url: str = Field(default="http://127.0.0.1:4000", description="Where people reach the API; used in links.")
    max_body_bytes: int = Field(default=1_048_576, description="Largest JSON body that the API accepts, bytes.")
    max_file_bytes: int = Field(default=33_554_432, description="Largest input file, bytes.")
    database_app_url: SecretStr | None = Field(default=None, description="SQLAlchemy URL of the role awgp_app.")
    database_system_url: SecretStr | None = Field(default=None, description="SQLAlchemy URL of the role awgp_system.")
    database_owner_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of awgp_owner; migrations and seed only."
    )
    database_admin_url: SecretStr | None = Field(
        default=None, description="SQLAlchemy URL of a superuser; workers.setup alone."
    )
    database_pool_size: int = Field(default=10, description="Connections a process keeps at most.")
    redis_url: SecretStr | None = Field(default=None, description="Redis or Valkey, the control plane's own user.")
    redis_tenant_key: SecretStr | None = Field(
        default=None, description="Key from which tenants' Redis passwords are derived."
    )
    temporal_address: str = Field(default="127.0.0.1:7233", description="Temporal frontend.")
    temporal_namespace: str = Field(default="awgp", description="Temporal namespace.")
    blob_url: str = Field(default="", description="file:///… or s3://…; empty: the folder blobs in the data folder.")
    oidc_issuer: str = Field(default="", description="Issuer that tokens must name.")
    oidc_audience: str = Field(default="awgp", description="Audience that tokens must name.")
    oidc_jwks_url: str = Field(
        default="", description="Where the issuer's keys are; empty: <issuer>/protocol/openid-connect/certs."
    )
    dev_issuer_enabled: bool = Field(
        default=False, description="Development issuer on loopback; refuses beside a real issuer."
    )
    dev_issuer_host: str = Field(default="127.0.0.1", description="Loopback address of the development issuer.")
    dev_issuer_port: int = Field(default=4200, description="Port of the development issuer.")
    dev_issuer_key: SecretStr | None = Field(
        default=None, description="Private key (PEM, Ed25519) of the development issuer."
    )
    dev_issuer_password: SecretStr | None = Field(
        default=None, description="What a caller of the development issuer must show."
    )
    warrant_private_key: SecretStr | None = Field(
        default=None, description="Ed25519 private key (PEM); the control worker's alone."
    )
    warrant_public_jwks: str = Field(default="", description="JWK set (JSON) of the keys that verify warrants.")
    secret_store_key: SecretStr | None = Field(
        default=None, description="Fernet keys of the secret store, separated by white space; the first one seals."
    )
    allow_private_connectors: bool = Field(
        default=False, description="Connectors whose admin says so may reach private addresses, and speak plain HTTP."
    )
    broker_host: str = Field(default="127.0.0.1", description="Address that the broker listens on for runtimes.")
    broker_port: int = Field(default=4100, description="Port that the broker listens on.")
    broker_id: str = Field(default="", description="Name of this broker; empty: host name and process id.")
    gateway_host: str = Field(default="127.0.0.1", description="Address that the LLM gateway listens on.")
    gateway_port: int = Field(default=4300, description="Port that the LLM gateway listens on.")
    llm_upstream_url: str = Field(
        default="",
        description="Base URL of any API that speaks OpenAI's; empty: OpenRouter with a key, scripts without one.",
    )
    llm_upstream_key: SecretStr | None = Field(
        default=None, description="The model provider's key; the gateway's alone."
    )
    llm_scripted_url: str = Field(
        default="", description="The scripted upstream; empty: on its own host and port, `AWGP_SCRIPTED_PORT`."
    )
    llm_cap_field: str = Field(
        default="max_tokens", description="What the upstream calls the output cap that the gateway puts in."
    )
    agent_gateway_url: str = Field(
        default="http://127.0.0.1:4300", description="Model gateway as runtimes reach it; they are told by the broker."
    )
    agent_api_url: str = Field(
        default="", description="API as runtimes reach it, told by the broker; empty: `AWGP_API_URL`."
    )
    scripted_host: str = Field(default="127.0.0.1", description="Loopback address of the scripted upstream.")
    scripted_port: int = Field(default=4310, description="Port of the scripted upstream, which is not a model.")
    scripted_key: SecretStr | None = Field(
        default=None, description="What callers of the scripted upstream must show; empty: nothing."
    )
    scripted_log: Path | None = Field(default=None, description="Where the scripted upstream records each call.")
    scripted_cost: bool = Field(
        default=False, description="The scripted upstream says `usage.cost`, as OpenRouter does."
    )
    seed_file: Path = Field(
        default=Path("deploy/seed.yaml"), description="Tenants, users, assistants and budgets made at set-up."
    )
    allow_null_runner: bool = Field(
        default=False, description="Development only: let runtimes that execute nothing take work."
    )
    allow_private_webhooks: bool = Field(
        default=False, description="Development only: webhooks to private addresses, without TLS."
    )

    def secret(self, field: str) -> str:
        """The value of a secret setting.

        Raises:
            SystemExit: It is missing; the message names the setting and the file that would hold it.
        """
        value = getattr(self, field)
        if not isinstance(value, SecretStr) or not value.get_secret_value():
            raise SystemExit(f"setting AWGP_{field.upper()} is missing (or a file awgp_{field} in AWGP_SECRETS_DIR)")
        return value.get_secret_value().strip()

    @property
    def llm_key(self) -> str:
        """The provider's key; empty: there is none."""
        return self.llm_upstream_key.get_secret_value().strip() if self.llm_upstream_key else ""

    @property
    def llm_upstream(self) -> str:
        """Where model calls go."""
        scripted = self.llm_scripted_url or f"http://{self.scripted_host}:{self.scripted_port}/v1"
        return self.llm_upstream_url or ("https://openrouter.ai/api/v1" if self.llm_key else scripted)

    @property
    def blobs(self) -> str:
        """URL of the blob store."""
        return self.blob_url or f"file://{self.data.resolve()}/blobs"

    @property
    def jwks_url(self) -> str:
        """Where the issuer's keys are read."""
        return self.oidc_jwks_url or f"{self.oidc_issuer.rstrip('/')}/protocol/openid-connect/certs"
