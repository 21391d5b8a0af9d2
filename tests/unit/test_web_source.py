"""Pages over HTTP from a real local server, and the addresses that no page may be read from."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import ip_address

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from knowledge_base.adapters.web_source import WebSource
from knowledge_base.addresses import HostGuard
from knowledge_base.readers.documents import NothingThere, RawDocument, read_document
from pipeline.domain.errors import PermanentError, SreBotError, TemporaryError


class Names:
    """A resolver that knows some names and remembers what it was asked."""

    def __init__(self, known: Mapping[str, Sequence[str]]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        del port
        self.asked.append(host)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.known[host]


async def page(request: web.Request) -> web.Response:
    return web.Response(text=f"<h1>Disk</h1><p>from {request.host.partition(':')[0]}", content_type="text/html")


async def away(request: web.Request) -> web.Response:
    raise web.HTTPFound(request.query["to"])


async def around(request: web.Request) -> web.Response:
    left = int(request.match_info["left"])
    raise web.HTTPFound(f"/around/{left - 1}" if left else "/page")


async def large(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/markdown"})
    await response.prepare(request)
    for _ in range(30):
        await response.write(b"x" * 100_000)
    return response


async def never(request: web.Request) -> web.Response:
    await asyncio.sleep(60)
    return web.Response()


async def picture(request: web.Request) -> web.Response:
    return web.Response(body=b"\x89PNG", content_type="image/png")


async def unnamed(request: web.Request) -> web.Response:
    return web.Response(body=b"# T\n\nMarkdown", content_type="application/octet-stream")


async def latin(request: web.Request) -> web.Response:
    return web.Response(body="größe".encode("latin-1"), content_type="text/plain", charset="iso-8859-1")


async def broken(request: web.Request) -> web.Response:
    raise web.HTTPBadGateway


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application()
    for path, answer in {
        "/page": page,
        "/away": away,
        "/around/{left}": around,
        "/large": large,
        "/never": never,
        "/photo.md": picture,
        "/runbook.md": unnamed,
        "/latin": latin,
        "/broken": broken,
    }.items():
        app.router.add_get(path, answer)
    server = TestServer(app)
    await server.start_server()
    yield server
    await server.close()


async def fetch(url: str, guard: HostGuard, timeout_s: float = 30.0) -> RawDocument:
    source = WebSource(url, guard, timeout_s=timeout_s)
    (path,) = (await source.listing()).paths
    try:
        return await source.read(path)
    finally:
        await source.close()


INNER = HostGuard(allow_hosts=("127.0.0.1",))


async def test_a_page_of_an_allowed_inner_host_is_read(server: TestServer) -> None:
    url = str(server.make_url("/page"))
    source = WebSource(f"{url}#part", INNER)
    assert source.collection == url
    assert (await source.listing()).paths == ("127.0.0.1/page",)
    document = await read_document(await source.read("127.0.0.1/page"))
    assert (document.title, document.source) == ("Disk", url)
    with pytest.raises(PermanentError, match=r"127\.0\.0\.1: no public address, add the host to SRE_KB_ALLOW_HOSTS"):
        await fetch(url, HostGuard())


async def test_the_connection_goes_to_the_address_that_was_checked(server: TestServer) -> None:
    names = Names({"wiki.corp": ["127.0.0.1"]})
    raw = await fetch(f"http://wiki.corp:{server.port}/page", HostGuard(("*.corp",), names))
    assert b"from wiki.corp" in raw.content
    assert names.asked == ["wiki.corp"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("http://inner.example/x", "inner.example \\(10.0.0.7\\): no public address"),
        ("http://169.254.169.254/latest/meta-data", "no document may be read from there"),
        ("http://[::ffff:127.0.0.2]/", "no public address"),
        ("http://0x7f000001/", "0x7f000001 \\(127.0.0.1\\): no public address"),
        ("//inner.example/x", "no public address"),
        ("http://user@127.0.0.1/", "not followed"),
        ("ftp://127.0.0.1/", "not followed"),
        ("file:///etc/passwd", "not followed"),
    ],
)
async def test_each_redirect_is_checked_anew(server: TestServer, target: str, said: str) -> None:
    names = Names({"inner.example": ["10.0.0.7"], "0x7f000001": ["127.0.0.1"]})
    url = str(server.make_url("/away").with_query(to=target))
    with pytest.raises(PermanentError, match=said):
        await fetch(url, HostGuard(("127.0.0.1",), names))


async def test_five_redirects_are_followed_and_no_more(server: TestServer) -> None:
    raw = await fetch(str(server.make_url("/around/4")), INNER)
    assert raw.source == str(server.make_url("/page"))
    with pytest.raises(PermanentError, match="more than 5 redirects"):
        await fetch(str(server.make_url("/around/5")), INNER)


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("/nothing", NothingThere, "answers 404"),
        ("/broken", TemporaryError, "answers 502"),
        ("/photo.md", PermanentError, "image/png: only HTML"),
        ("/never", TemporaryError, "not fetched within"),
    ],
)
async def test_what_cannot_be_read_is_one_line(
    server: TestServer, path: str, kind: type[SreBotError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        await fetch(str(server.make_url(path)), INNER, timeout_s=0.5 if path == "/never" else 30.0)


async def test_what_is_too_large_is_not_read_to_its_end(server: TestServer) -> None:
    raw = await fetch(str(server.make_url("/large")), INNER)
    assert len(raw.content) == 2_000_001
    with pytest.raises(PermanentError, match="larger than 2 MB"):
        await read_document(raw)


async def test_formats_and_charsets_are_those_of_the_server_or_of_the_name(server: TestServer) -> None:
    named = await read_document(await fetch(str(server.make_url("/runbook.md")), INNER))
    assert (named.title, named.chunks[0].text) == ("T", "Markdown")
    latin = await read_document(await fetch(str(server.make_url("/latin")), INNER))
    assert latin.chunks[0].text == "größe"


PUBLIC = ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "::",
    "::ffff:169.254.169.254",
]
INSIDE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "127.0.0.1",
    "127.1.2.3",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "fc00::1",
    "fec0::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "64:ff9b::a00:1",
]


@pytest.mark.parametrize("address", [*PUBLIC, *NEVER, *INSIDE])
async def test_addresses_that_are_no_place_for_documents_are_refused(address: str) -> None:
    names = Names({"host.example": ["1.1.1.1", address]})
    outside, allowed = HostGuard((), names), HostGuard(("host.example",), names)
    if address in PUBLIC:
        assert await outside.addresses("host.example", 443) == tuple(dict.fromkeys(("1.1.1.1", address)))
        return
    with pytest.raises(PermanentError, match=r"host\.example \("):
        await outside.addresses("host.example", 443)
    if address in NEVER:
        with pytest.raises(PermanentError, match="no document may be read from there"):
            await allowed.addresses("host.example", 443)
    else:
        assert str(ip_address(address)) in await allowed.addresses("HOST.example.", 443)


async def test_names_that_are_allowed() -> None:
    names = Names({name: ["10.0.0.1"] for name in ("wiki.corp", "a.b.corp", "corp", "evilcorp", "none")} | {"none": []})
    guard = HostGuard(("wiki.corp", "*.b.corp", "[::1]"), names)
    for host in ("wiki.corp", "a.b.corp"):
        assert await guard.addresses(host, 80) == ("10.0.0.1",)
    assert await guard.addresses("::1", 80) == ("::1",)
    for host in ("corp", "evilcorp", "10.0.0.1"):
        with pytest.raises(PermanentError, match="no public address"):
            await guard.addresses(host, 80)
    for host in ("none", "unknown.example"):
        with pytest.raises(TemporaryError, match=r"has no address|cannot be resolved: Name or service"):
            await guard.addresses(host, 80)
