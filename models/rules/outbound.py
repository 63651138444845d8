"""Where a connector may send a request. Pure: the name alone; its addresses are looked at when it is sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from models.domain.connector import HttpConnector, N8nConnector

_UNCLEAR = re.compile(r"%(2f|5c|00|25)", re.IGNORECASE)
"""An encoded slash, backslash, NUL or percent sign: the other side may read another path than we do."""
_PATH = re.compile(r"^/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*$")
_QUERY = re.compile(r"^[A-Za-z0-9._~!$&'()*+,;=:@/?%\[\]-]*$")
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$")
_PORTS = {"https": 443, "http": 80}


class NotAllowedError(ValueError):
    """The connector does not go there; the words say why."""


@dataclass(frozen=True)
class Target:
    """One place, in one spelling.

    Attributes:
        host: Lower case, without a final dot; an IPv6 address without brackets.
        path: As it is sent.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """Who is spoken to. A credential goes to no other."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The whole URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if _PORTS[self.scheme] == self.port else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}" + (f"?{self.query}" if self.query else "")


def parse(url: str) -> Target:
    """A URL in one spelling.

    Raises:
        NotAllowedError: It is no plain http(s) URL, or one that two readers could read differently.
    """
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        raise NotAllowedError("the URL holds characters that must be encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise NotAllowedError("the URL cannot be read") from error
    if parts.scheme not in _PORTS or not parts.hostname:
        raise NotAllowedError("the URL is https://host/path")
    if "@" in parts.netloc:
        raise NotAllowedError("the URL holds no user and no password")
    if port == 0:
        raise NotAllowedError("the URL names a port that there is not")
    host = parts.hostname.rstrip(".").lower()
    _check_host(host)
    path = parts.path or "/"
    _check_path(path)
    if not _QUERY.match(parts.query):
        raise NotAllowedError("the query holds characters that must be encoded")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], path, parts.query)


def target_of(config: HttpConnector | N8nConnector, *, path: str | None, url: str | None) -> Target:
    """Where an effect goes: below the base, or to a URL of its own.

    Raises:
        NotAllowedError: The connector does not go there.
    """
    if url is not None:
        found = parse(url)
    else:
        assert path is not None, "an effect has either"
        if config.base_url is None:
            raise NotAllowedError("this connector has no base URL: name the whole url")
        if not path.startswith("/"):
            path = f"/{path}"
        found = parse(config.base_url + path)
        # What was appended as a path must not have become anything else.
        if parse(config.base_url).origin != found.origin:
            raise NotAllowedError("the path leaves the base URL")
    check(config, found)
    return found


def check(config: HttpConnector | N8nConnector, target: Target) -> None:
    """Refuse a place that the connector does not go to; a redirect's as well.

    Raises:
        NotAllowedError: The words say which rule.
    """
    base = parse(config.base_url) if config.base_url is not None else None
    hosts = config.hosts if isinstance(config, HttpConnector) else ()
    if not (base is not None and target.origin == base.origin) and not _is_listed(hosts, target):
        raise NotAllowedError(f"this connector does not go to {target.scheme}://{target.host}:{target.port}")
    if target.scheme != "https" and not config.allow_private:
        raise NotAllowedError("this connector speaks https alone")
    # Below a base with a path nothing lies beside it.
    if base is not None and target.origin == base.origin and not _below(base.path, target.path):
        raise NotAllowedError(f"this connector does not leave {base.path}")
    if config.path_prefixes and not any(_below(prefix, target.path) for prefix in config.path_prefixes):
        raise NotAllowedError(f"this connector goes to {', '.join(config.path_prefixes)} alone")


def _is_listed(hosts: Sequence[str], target: Target) -> bool:
    if target.scheme not in _PORTS:
        return False
    for pattern in hosts:
        name, _, port = pattern.partition(":")
        if (int(port) if port else _PORTS[target.scheme]) != target.port:
            continue
        if name == target.host or (name.startswith("*.") and target.host.endswith(name[1:])):
            return True
    return False


def _below(prefix: str, path: str) -> bool:
    return path.startswith(prefix) if prefix.endswith("/") else path == prefix or path.startswith(f"{prefix}/")


def _check_host(host: str) -> None:
    """One spelling of a host: a name, or an address as `ipaddress` writes it.

    `2130706433`, `0x7f.1` and `127.1` are addresses to some resolvers and names to others.
    """
    try:
        if str(ip_address(host)) != host:
            raise NotAllowedError("write the address in its usual form")
        return
    except ValueError as error:
        if isinstance(error, NotAllowedError):
            raise
    last = host.rpartition(".")[2]
    if not _NAME.match(host) or len(host) > 253 or last.isdigit() or re.match(r"^0x[0-9a-f]*$", last):
        raise NotAllowedError("the host is neither a name nor an address in its usual form")


def _check_path(path: str) -> None:
    if not _PATH.match(path) or re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise NotAllowedError("the path holds characters that must be encoded")
    if _UNCLEAR.search(path):
        raise NotAllowedError("the path holds an encoded slash, backslash or percent sign")
    # What follows a `;` is a parameter to some readers: `..;x` climbs there.
    if any(unquote(segment).partition(";")[0] in (".", "..") for segment in path.split("/")):
        raise NotAllowedError("the path climbs")
