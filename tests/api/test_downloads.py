"""Files, downloaded: whole, in part, by any name that there is, and as nothing that a browser would run."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from api.deps import Deps
from tests.api.conftest import Client
from tests.fixtures.companies import Company
from tests.fixtures.postgres import TestDatabase
from tests.fixtures.work import Work

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAMES = [
    "report.md",
    "a folder/of files/ü €.txt",
    'semi;colon="quoted".txt',
    "per%2Fcent%00.txt",
    "back\\slash.txt",
    "..hidden",
    "a/...",
    "?query#fragment&x=y",
    "名前.pdf",
    "-rf",
    "x" * 255,
    "+plus and space",
]


@dataclass
class Item:
    path: str
    database: TestDatabase
    tenant_id: Any
    id: Any

    def has(self, name: str, sha256: str = DIGEST, size: int = len(CONTENT)) -> str:
        """The URL path of an artifact that the test puts there."""
        with self.database.admin() as admin:
            admin.execute(
                "insert into work_item_files (tenant_id, work_item_id, direction, path, sha256, size)"
                " values (%s, %s, 'out', %s, %s, %s)",
                (self.tenant_id, self.id, name, sha256, size),
            )
        return f"{self.path}/out/{quote(name)}"


@pytest.fixture
async def item(deps: Deps, database: TestDatabase, work: Work, acme: Company) -> Item:
    row = await work.create(acme.requester)
    await deps.blobs.put(CONTENT)
    return Item(f"/v1/work-items/{row.id}/files", database, acme.id, row.id)


async def get(
    api: Client, acme: Company, path: str, method: str = "GET", **headers: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    given = {"Authorization": f"Bearer {api.issuer.token(acme.requester)}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    # Sent letter by letter as it stands: the client would tidy "..".
    async with api.session.request(method, URL(api.url + path, encoded=True), headers=given) as response:
        return response, await response.read()


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_is_downloaded_under_its_own(api: Client, acme: Company, item: Item, name: str) -> None:
    response, body = await get(api, acme, item.has(name))
    assert response.status == 200
    assert body == CONTENT
    last = name.rsplit("/", 1)[-1]
    assert response.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{quote(last, safe='')}"
    assert response.content_disposition is not None
    assert response.content_disposition.filename == last
    assert response.headers["Repr-Digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(DIGEST)).decode()}:"
    for header, value in (
        ("Content-Type", "application/octet-stream"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", "sandbox; default-src 'none'"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ):
        assert response.headers[header] == value


@pytest.mark.parametrize("path", ["../out/secret", "%2e%2e/secret", "a/../secret", "./secret", "/secret", ""])
async def test_a_path_is_a_name_and_leads_nowhere(api: Client, acme: Company, item: Item, path: str) -> None:
    item.has("secret")
    response, _ = await get(api, acme, f"{item.path}/in/{path}")
    assert response.status == 404


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=511000-", 511_000, 512_000),
        ("bytes=-5", 511_995, 512_000),
        ("bytes=511999-999999999", 511_999, 512_000),
        ("bytes=-999999999", 0, 512_000),
    ],
)
async def test_a_part_of_it(api: Client, acme: Company, item: Item, asked: str, start: int, end: int) -> None:
    response, body = await get(api, acme, item.has("a"), Range=asked)
    assert response.status == 206
    assert body == CONTENT[start:end]
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/512000"
    assert response.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize(
    "asked", ["bytes=9-1", "bytes=0-1,5-9", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=٣-٤", "bytes=" + "1" * 30 + "-"]
)
async def test_a_range_that_is_none_is_answered_whole(api: Client, acme: Company, item: Item, asked: str) -> None:
    response, body = await get(api, acme, item.has("a"), Range=asked)
    assert (response.status, len(body)) == (200, len(CONTENT))


@pytest.mark.parametrize("asked", ["bytes=512000-", "bytes=600000-700000", "bytes=-0"])
async def test_a_part_beyond_its_end_is_refused(api: Client, acme: Company, item: Item, asked: str) -> None:
    answer = await api.get(item.has("a"), acme.requester, headers={"Range": asked})
    assert "512000" in answer.problem(416)["detail"]
    assert answer.headers["Content-Range"] == "bytes */512000"


async def test_an_empty_file(api: Client, acme: Company, item: Item, deps: Deps) -> None:
    path = item.has("empty", await deps.blobs.put(b""), 0)
    assert (await get(api, acme, path))[1] == b""
    assert (await get(api, acme, path, Range="bytes=0-"))[0].status == 416


async def test_known_content_is_not_sent_again_and_a_changed_one_not_in_part(
    api: Client, acme: Company, item: Item
) -> None:
    path = item.has("a")
    response, body = await get(api, acme, path, If_None_Match=f'W/"x", "{DIGEST}"')
    assert (response.status, body) == (304, b"")
    response, body = await get(api, acme, path, If_None_Match='"other"')
    assert (response.status, len(body)) == (200, len(CONTENT))
    response, body = await get(api, acme, path, Range="bytes=0-9", If_Range='"other"')
    assert (response.status, len(body)) == (200, len(CONTENT))
    response, body = await get(api, acme, path, Range="bytes=0-9", If_Range=f'"{DIGEST}"')
    assert (response.status, len(body)) == (206, 10)


async def test_looked_at_without_its_bytes(api: Client, acme: Company, globex: Company, item: Item) -> None:
    path = item.has("a")
    response, body = await get(api, acme, path, "HEAD")
    assert (response.status, body, response.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
    assert response.headers["ETag"] == f'"{DIGEST}"'
    assert (await get(api, globex, path, "HEAD"))[0].status == 404
    assert (await get(api, globex, path, "GET"))[0].status == 404


async def test_what_is_not_its_digest_never_comes_whole(
    api: Client, acme: Company, item: Item, deps: Deps, tmp_path: Path
) -> None:
    path = item.has("a")
    _damage(tmp_path)
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(api, acme, path)


def _damage(folder: Path) -> None:
    [stored] = list(folder.rglob(DIGEST))
    stored.chmod(0o600)
    stored.write_bytes(CONTENT[:-1] + b"?")
