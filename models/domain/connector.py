"""How a connector is set up: where it may go, as whom, and how an answer is awaited."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models.domain.action import ConnectorKind, HeaderName, HttpMethod
from models.domain.work_item import ExternalEffect, Slug

SecretName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
_HOST = r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
HostPattern = Annotated[str, StringConstraints(pattern=rf"^{_HOST}(:[0-9]{{1,5}})?$", max_length=253)]
"""`api.example.com`, `*.example.com` (below it, at any depth), `api.example.com:8443`; without a port: 443."""
FORBIDDEN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "cookie"}
    | {"authorization", "proxy-authorization", "forwarded", "keep-alive", "accept-encoding"}
)
"""Headers that an agent never sets: they frame the message, or say who sends it."""


def _base(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("is https://host[:port][/path]")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("holds no user, password, query or fragment")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueError("is printable ASCII")
    if parts.port == 0:
        raise ValueError("names a port that there is not")
    return text.rstrip("/")


BaseUrl = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_base)]
PathPrefix = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@/-]*$", max_length=512)]
"""`/v1/payments` allows that path and what lies below it; one that ends in `/` only what lies below."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Credential(_Value):
    """A secret of the company, and how it is shown to the other side.

    Attributes:
        secret: Its name in the secret store.
        shown_as: `bearer` and `header`: the secret as it is; `basic`: it is `user:password`.
        header_name: Of `header`.
    """

    secret: SecretName
    shown_as: Annotated[Literal["bearer", "header", "basic"], Field(alias="as")] = "bearer"
    header_name: HeaderName | None = None

    @model_validator(mode="after")
    def _a_header_has_a_name(self) -> Self:
        if (self.shown_as == "header") != (self.header_name is not None):
            raise ValueError("header_name goes with as: header, and with it alone")
        if self.header_name is not None and self.header_name.lower() in FORBIDDEN_HEADERS - {"authorization", "cookie"}:
            raise ValueError(f"{self.header_name} is no header of a credential")
        return self


class _Sending(_Value):
    """What connectors that send have in common.

    Attributes:
        idempotency_header: The header in which the other side takes a key, so that a repeat is done once: the action's
            id is sent in it. None: it takes none, and what has no answer is never sent again unasked.
        allow_private: Private addresses may be reached, where the installation lets connectors do so.
        external_effect: Who notices what it does; left out: outsiders.
    """

    credential: Credential | None = None
    idempotency_header: HeaderName | None = None
    allow_private: bool = False
    timeout_seconds: Annotated[int, Field(ge=1, le=60, strict=True)] = 30
    most_response_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024, strict=True)] = 1024 * 1024
    external_effect: ExternalEffect | None = None

    @model_validator(mode="after")
    def _the_key_is_not_the_credential(self) -> Self:
        name = (self.idempotency_header or "").lower()
        # Where the credential stood in its place no key would be sent, and a repeat be done twice.
        shown = self.credential.header_name if self.credential is not None else None
        if name in FORBIDDEN_HEADERS | {"content-type", "accept", "user-agent", (shown or "authorization").lower()}:
            raise ValueError(f"idempotency_header: {self.idempotency_header} has another meaning")
        return self


class HttpConnector(_Sending):
    """HTTP requests to hosts that are listed.

    Attributes:
        base_url: What an effect's `path` is below; an effect's `url` may name its host too.
        hosts: Further hosts that an effect's `url` may name.
        methods: What may be asked for.
        path_prefixes: Below which paths; none: any.
    """

    base_url: BaseUrl | None = None
    hosts: Annotated[tuple[HostPattern, ...], Field(max_length=64)] = ()
    methods: Annotated[tuple[HttpMethod, ...], Field(min_length=1, max_length=6)] = ("GET", "POST")
    path_prefixes: Annotated[tuple[PathPrefix, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if self.base_url is None and not self.hosts:
            raise ValueError("takes base_url, hosts, or both")
        _require_tls(self.base_url, private=self.allow_private)
        return self


class N8nConnector(_Sending):
    """Webhooks of one n8n."""

    base_url: BaseUrl
    path_prefixes: Annotated[tuple[PathPrefix, ...], Field(min_length=1, max_length=64)] = ("/webhook/",)

    @model_validator(mode="after")
    def _is_encrypted(self) -> Self:
        _require_tls(self.base_url, private=self.allow_private)
        return self


class FileConnector(_Value):
    """Hands artifacts of a run to whoever asked for the work.

    Attributes:
        most_bytes: Of one file.
    """

    most_bytes: Annotated[int, Field(ge=1, le=2**34, strict=True)] = 64 * 1024 * 1024


Connector = HttpConnector | N8nConnector | FileConnector
CONFIGS: dict[ConnectorKind, type[HttpConnector] | type[N8nConnector] | type[FileConnector]] = {
    ConnectorKind.HTTP: HttpConnector,
    ConnectorKind.N8N: N8nConnector,
    ConnectorKind.FILE: FileConnector,
}


class NewConnector(_Value):
    """A connector to be made.

    Attributes:
        config: By its kind.
    """

    name: Slug
    kind: ConnectorKind
    config: dict[str, Any]
    enabled: bool = True


def _require_tls(base_url: str | None, *, private: bool) -> None:
    if base_url is not None and base_url.startswith("http:") and not private:
        raise ValueError("base_url starts with https:// (http:// goes with allow_private alone)")
