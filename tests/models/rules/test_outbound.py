"""Where a connector goes: by its list, in one spelling; and which addresses may be reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.connector import HttpConnector, N8nConnector
from models.rules.address import is_public, may_be_private
from models.rules.outbound import NotAllowedError, check, parse, target_of

BASE = HttpConnector(base_url="https://api.example.com/v1", path_prefixes=("/v1/payments", "/v1/files/"))
LISTED = HttpConnector(hosts=("hooks.example.com", "*.partner.example", "odd.example.com:8443"))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "169.254.0.1",
        "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.9", "224.0.0.1", "224.0.1.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1",
        "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "ff0e::1", "2001:db8::1",
        "2002:7f00:1::", "2002:a00:1::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1", "2001:0:7f00:1:0:0:0:1", "100::1",
    ],
)  # fmt: skip
def test_what_is_not_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_what_is_of_the_internet_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fd12::1", "100.64.0.1", "::ffff:10.0.0.1"])
def test_private_addresses_may_be_allowed(address: str) -> None:
    assert may_be_private(address)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1",
        "fd00:ec2::254", "100.100.100.200", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "0.0.0.1",
    ],
)  # fmt: skip
def test_some_addresses_never_are(address: str) -> None:
    assert not may_be_private(address)


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_the_same(address: object) -> None:
    assert is_public(f"::ffff:{address}") == is_public(str(address))


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/payments", "https://api.example.com/v1/payments"),
        ("payments/12?x=1", "https://api.example.com/v1/payments/12?x=1"),
        ("/files/a%20b", "https://api.example.com/v1/files/a%20b"),
    ],
)
def test_a_path_lies_below_the_base(path: str, url: str) -> None:
    assert target_of(BASE, path=path, url=None).url == url


@pytest.mark.parametrize(
    "path",
    [
        "/payments/../admin", "/payments/%2e%2e/admin", "/payments/.%2E/admin", "/payments/..;/admin",
        "/payments/..%2fadmin", "/payments%2f..%2fadmin", "/payments/%252e%252e/admin", "/payments\\..\\admin",
        "/payments/\u2025/x", "/payments/a b", "/payments/\r\nhost: x", "/paymentsx", "/files", "/admin",
        "@evil.example.com/", "/payments/%zz", "/payments?x=<y>", "/payments/%00",
    ],
)  # fmt: skip
def test_a_path_that_climbs_or_is_unclear_is_refused(path: str) -> None:
    with pytest.raises(NotAllowedError):
        target_of(BASE, path=path, url=None)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/x", "https://HOOKS.example.com./x", "https://hooks.example.com:443/x",
        "https://a.partner.example/x", "https://b.a.partner.example/x", "https://odd.example.com:8443/x",
    ],
)  # fmt: skip
def test_hosts_on_the_list_are_gone_to(url: str) -> None:
    target_of(LISTED, path=None, url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x", "https://hooks.example.com:8443/x", "https://odd.example.com/x",
        "https://partner.example/x", "https://xpartner.example/x", "https://hooks.example.com.evil.example/x",
        "https://hooks.example.com@evil.example/x", "https://evil.example#hooks.example.com/x",
        "https://evil.example\\@hooks.example.com/x", "https://evil.example?hooks.example.com", "https:///x",
        "ftp://hooks.example.com/x", "file:///etc/passwd", "gopher://hooks.example.com/", "//hooks.example.com/x",
        "https://127.0.0.1/x", "https://2130706433/x", "https://0x7f000001/x", "https://0x7f.1/x", "https://127.1/x",
        "https://017700000001/x", "https://[::1]/x", "https://[::ffff:127.0.0.1]/x", "https://[::ffff:7f00:1]/x",
        "https://[fe80::1%25lo]/x", "https://169.254.169.254/latest/meta-data", "https://localhost/x",
        "https://hooks.example.com:0/x", "https://hooks.example.com:99999/x", "https://h\u00f6oks.example.com/x",
        "https://hooks\u3002example.com/x", "https://hooks.example.com /x", "https://hooks.example.com\t/x",
    ],
)  # fmt: skip
def test_no_other_host_and_no_second_spelling(url: str) -> None:
    with pytest.raises(NotAllowedError):
        target_of(LISTED, path=None, url=url)


def test_plain_http_goes_with_private_addresses_alone() -> None:
    local = HttpConnector(hosts=("127.0.0.1:8080", "receiver.internal"), allow_private=True)
    target_of(local, path=None, url="http://127.0.0.1:8080/x")
    target_of(local, path=None, url="http://receiver.internal/x")
    with pytest.raises(ValueError, match="allow_private"):
        HttpConnector(base_url="http://api.example.com")


def test_a_redirect_is_checked_by_the_same_list() -> None:
    check(BASE, parse("https://api.example.com/v1/payments/7"))
    for url in ("https://api.example.com/v2/payments", "https://other.example.com/v1/payments"):
        with pytest.raises(NotAllowedError):
            check(BASE, parse(url))


def test_n8n_speaks_to_its_webhooks_alone() -> None:
    n8n = N8nConnector(base_url="https://n8n.example.com")
    assert target_of(n8n, path="/webhook/pay", url=None).path == "/webhook/pay"
    for path in ("/rest/workflows", "/webhook", "/webhook-test/pay", "/webhook/../rest/login"):
        with pytest.raises(NotAllowedError):
            target_of(n8n, path=path, url=None)


@given(st.text(max_size=60))
def test_a_path_never_leaves_its_host(path: str) -> None:
    try:
        found = target_of(BASE, path=path, url=None)
    except NotAllowedError:
        return
    assert found.origin == ("https", "api.example.com", 443)
    assert found.path.startswith(("/v1/payments", "/v1/files/"))
