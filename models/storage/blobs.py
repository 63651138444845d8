"""The content-addressed blob store: a local folder or S3-compatible storage, by URL."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.store import LocalStore, ObjectStore, from_url

if TYPE_CHECKING:
    from obstore import GetOptions

_READ_BYTES = 256 * 1024


class BlobStore:
    """Blobs by their hex SHA-256. Writing the same content twice is harmless.

    Args:
        url: `file:///folder` (made when missing) or `s3://bucket/prefix` (credentials as the S3 SDKs read them).
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme == "file":
            Path(parts.path).mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = LocalStore(prefix=parts.path)
        else:
            self._store = from_url(url)

    @staticmethod
    def _path(sha256: str) -> str:
        return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"

    async def put(self, content: bytes) -> str:
        """Store the content; answers its digest."""
        digest = hashlib.sha256(content).hexdigest()
        await obstore.put_async(self._store, self._path(digest), content)
        return digest

    async def put_stream(self, sha256: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a stream under the digest that it must have; answers its size.

        Raises:
            ValueError: It has another one; nothing is stored.
        """
        seen = hashlib.sha256()
        size = 0

        async def measured() -> AsyncIterator[bytes]:
            nonlocal size
            async for chunk in chunks:
                seen.update(chunk)
                size += len(chunk)
                yield chunk
            # Raised inside of the upload: it is given up, so a wrong name never exists.
            if seen.hexdigest() != sha256:
                raise ValueError("the content is not what the digest says")

        await obstore.put_async(self._store, self._path(sha256), measured())
        return size

    async def get(self, sha256: str) -> bytes:
        """The whole content.

        Raises:
            FileNotFoundError: There is no such blob.
        """
        found = await obstore.get_async(self._store, self._path(sha256))
        return bytes(await found.bytes_async())

    async def open(self, sha256: str, part: tuple[int, int] | None = None) -> AsyncIterator[bytes]:
        """The content in pieces; of a part (start, end) alone where one is given.

        A whole content is held against its digest as it passes, and its last piece comes only when it is that.

        Raises:
            FileNotFoundError: There is no such blob; raised before the first piece.
            ValueError: The store has something else in its place; raised instead of the last piece.
        """
        options: GetOptions = {} if part is None else {"range": part}
        found = await obstore.get_async(self._store, self._path(sha256), options=options)

        async def pieces() -> AsyncIterator[bytes]:
            seen = hashlib.sha256()
            last = b""
            async for piece in found.stream(min_chunk_size=_READ_BYTES):
                if last:
                    yield last
                last = bytes(piece)
                seen.update(last)
            if part is None and seen.hexdigest() != sha256:
                raise ValueError(f"the blob store has something else in the place of {sha256}")
            if last:
                yield last

        return pieces()

    async def size(self, sha256: str) -> int | None:
        """Size in bytes; None when there is no such blob."""
        try:
            return (await obstore.head_async(self._store, self._path(sha256)))["size"]
        except FileNotFoundError:
            return None

    async def ping(self) -> None:
        """Raise when the store does not answer."""
        await self.size("0" * 64)
