"""One page or file from the web, without being led into the own network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from knowledge_base.addresses import HostGuard
from knowledge_base.readers.documents import FORMATS, NothingThere, RawDocument, format_of
from knowledge_base.sources import Listing
from knowledge_base.text import cleaned
from pipeline.domain.errors import PermanentError, TemporaryError

MAX_REDIRECTS = 5
TIMEOUT_S = 30.0
_REDIRECTS = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_UNSPECIFIC = ("", "application/octet-stream", "binary/octet-stream")
"""Media types that say nothing: the end of the name decides."""
_HEADERS = {
    "User-Agent": "sre-bot",
    "Accept": "text/html,application/xhtml+xml,text/markdown,text/plain,application/pdf",
    "Accept-Encoding": "identity",
}


class _Pinned(AbstractResolver):
    """Gives the addresses that were looked at, whatever the name has become since."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del family
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


class WebSource:
    """The document behind one http(s) URL, which names the collection.

    Each host on the way is checked by ``guard`` and connected to at the address that was checked; redirects are
    followed by hand, at most 5, never from https to http. All together takes at most ``timeout_s``.
    """

    def __init__(self, url: str, guard: HostGuard, *, timeout_s: float = TIMEOUT_S) -> None:
        # The same reader of URLs as the one that connects: two could disagree about the host.
        self._url = URL(cleaned(url)).with_fragment(None)
        self._guard = guard
        self._timeout_s = timeout_s

    @property
    def collection(self) -> str:
        return str(self._url)

    async def listing(self) -> Listing:
        return Listing((f"{self._url.host}{self._url.path}".rstrip("/"),))

    async def read(self, path: str) -> RawDocument:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._fetch(path)
        except TimeoutError:
            raise TemporaryError(f"not fetched within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TemporaryError(f"cannot be fetched: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        """Nothing is kept."""

    async def _fetch(self, path: str) -> RawDocument:
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._once(url, path)
            if isinstance(found, RawDocument):
                return found
            if url.scheme == "https" and found.scheme != "https":
                raise PermanentError(f"redirected from https to {found}")
            url = found
        raise PermanentError(f"more than {MAX_REDIRECTS} redirects")

    async def _once(self, url: URL, path: str) -> RawDocument | URL:
        """The document, or where it is said to be."""
        if url.scheme not in ("http", "https") or not url.host or url.user is not None or not url.port:
            raise PermanentError(f"redirected to {str(url)[:200]}, which is not followed")
        addresses = await self._guard.addresses(url.host, url.port)
        connector = aiohttp.TCPConnector(resolver=_Pinned(addresses), use_dns_cache=False)
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=_HEADERS, trust_env=False
            ) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status in _REDIRECTS and "Location" in response.headers:
                return url.join(URL(response.headers["Location"]))
            if response.status in _GONE:
                raise NothingThere(f"the server answers {response.status}")
            if response.status != 200:
                kind = TemporaryError if response.status >= 500 or response.status == 429 else PermanentError
                raise kind(f"the server answers {response.status}")
            media_type = response.content_type.lower() if "Content-Type" in response.headers else ""
            kind_of = format_of(path, "" if media_type in _UNSPECIFIC else media_type)
            if not kind_of or (media_type not in _UNSPECIFIC and not _is_readable(media_type)):
                raise PermanentError(f"{media_type or 'of no stated type'}: only HTML, Markdown, text and PDF are read")
            limit = FORMATS[kind_of].max_bytes
            content = bytearray()
            async for part in response.content.iter_chunked(65_536):
                content += part
                if len(content) > limit:
                    break
            return RawDocument(path, bytes(content[: limit + 1]), str(url), media_type, response.charset or "")


def _is_readable(media_type: str) -> bool:
    return any(media_type in known.media_types for known in FORMATS.values())
