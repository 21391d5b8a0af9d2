"""HTML into Markdown: what a person reads, without navigation, scripts and hidden text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lxml import etree

from pipeline.domain.errors import PermanentError

MAX_DEPTH = 200
"""Elements inside each other; what stands deeper is left out."""
MAX_COLUMNS = 30

_DROPPED = frozenset(
    {"script", "style", "noscript", "template", "nav", "footer", "button", "select", "svg", "math", "iframe", "object"}
    | {"canvas", "audio", "video", "head", "input", "textarea"}
)
_DOUBTFUL = frozenset({"header", "aside", "form", "dialog", "menu"})
"""Dropped unless they hold the page's heading or stand in its content."""
_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary", "menu", "dialog"})
_CHROME = re.compile(
    r"(?:left-|right-)?side-?(?:bar|nav)|(?:top-?|main-?|site-?|page-?)?nav(?:bar|igation)?|breadcrumbs?|toc|"
    r"table-of-contents|headerlink|(?:site-|page-)?(?:header|footer)|cookie-?(?:banner|consent|notice)|"
    r"skip-(?:link|to-content)|edit-(?:link|this-page)|pagination|share|related(?:-posts)?|advert(?:isement)?|"
    r"sr-only|visually-hidden",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])|opacity\s*:\s*0(?![.\d]*[1-9])",
    re.IGNORECASE,
)
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "body", "blockquote", "figure", "figcaption", "address"}
    | {"details", "summary", "dl", "dt", "dd", "fieldset", "center", "hgroup", "html", "tr", "td", "th", "caption"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_BREAK = "\0"
"""Stands for ``<br>`` while white space is folded; no parsed text holds it."""
_LANGUAGE = re.compile(r"\blang(?:uage)?-([\w+-]{1,20})")


@dataclass(frozen=True, slots=True)
class HtmlPage:
    """``entries``: the ``<meta>`` elements by name. ``title``: without the site's name where that shows."""

    title: str
    entries: dict[str, object]
    body: str


def declared_charset(content: bytes) -> str:
    """The charset that a page says it is written in, in its first 4 kB; empty when it does not say."""
    found = _CHARSET.search(content[:4096])
    return found[1].decode("ascii", "replace") if found else ""


def read_html(text: str) -> HtmlPage:
    """Reads a page, however broken. Raises PermanentError for what is no HTML at all."""
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError:
        root = None
    if root is None:
        raise PermanentError("no HTML in it")
    entries: dict[str, object] = {}
    for meta in root.iter("meta"):
        name, content = meta.get("name") or meta.get("property"), meta.get("content")
        if name and content:
            entries.setdefault(name.removeprefix("sre:").removeprefix("og:"), content)
    site_title = _SPACE.sub(" ", root.findtext(".//title") or "").strip()
    entries.pop("title", None)  # made for search engines; the page's own is better
    page = _Markdown()
    page.block(_main(root), 0)
    body = page.text()
    heading = next((line[2:] for line in body.split("\n") if line.startswith("# ")), "")
    title = heading if heading and heading.lower() in site_title.lower() else site_title or heading
    return HtmlPage(title, entries, body)


def _main(root: etree._Element) -> etree._Element:
    """The one element that holds the content, where the page has one."""
    found = {
        element
        for element in root.iter()
        if (element.tag in ("main", "article") or element.get("role") == "main") and not _is_dropped(element)
    }
    outermost = [element for element in found if found.isdisjoint(element.iterancestors())]
    if len(outermost) == 1 and any(str(text).strip() for text in outermost[0].itertext()):
        return outermost[0]
    return root


def _is_dropped(element: etree._Element) -> bool:
    tag = element.tag
    if tag in _DROPPED or element.get("aria-hidden") == "true" or _INVISIBLE.search(element.get("style", "")):
        return True
    role = element.get("role", "").lower()
    if element.get("hidden") is not None and role != "tabpanel":
        return True
    if tag in ("body", "html", "main", "article"):
        return False
    names = f"{element.get('class', '')} {element.get('id', '')}".split()
    if not (tag in _DOUBTFUL or role in _ROLES or any(map(_CHROME.fullmatch, names))):
        return False
    if tag == "aside" and next(element.iterancestors("main", "article"), None) is not None:
        return False
    return next(element.iter("h1", "main", "article"), None) is None


@dataclass(slots=True)
class _Markdown:
    """Collects blocks, each a few lines of Markdown."""

    blocks: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "\n\n".join(self.blocks)

    def add(self, text: str) -> None:
        if text.strip():
            self.blocks.append(text)

    def block(self, element: etree._Element, depth: int) -> None:
        """Appends what ``element`` holds; text between its blocks becomes paragraphs."""
        inline: list[str] = [element.text or ""]
        for child in element:
            if isinstance(child.tag, str) and depth < MAX_DEPTH and not _is_dropped(child):
                if _is_block(child):
                    self.add(_escaped(_joined(inline)))
                    inline = []
                    self._child(child, depth + 1)
                else:
                    inline.append(_inline(child, depth + 1))
            inline.append(child.tail or "")
        self.add(_escaped(_joined(inline)))

    def _child(self, element: etree._Element, depth: int) -> None:
        tag = element.tag
        if tag in _HEADINGS:
            self.add(f"{'#' * _HEADINGS[tag]} {_joined([_inline(element, depth)])}".rstrip("# "))
        elif tag == "pre":
            self.add(_fence(element))
        elif tag in ("ul", "ol"):
            self.add("\n".join(_items(element, depth)))
        elif tag == "table":
            self._table(element, depth)
        elif tag == "hr":
            return
        else:
            self.block(element, depth)

    def _table(self, table: etree._Element, depth: int) -> None:
        rows = [
            [_SPACE.sub(" ", _joined([_inline(cell, depth)])).replace("|", "\\|") for cell in row[:MAX_COLUMNS]]
            for element in table.iter("tr")
            if (row := [cell for cell in element if cell.tag in ("td", "th")])
            and next(element.iterancestors("table")) is table
        ]
        width = max(map(len, rows), default=0)
        # Tables of one column or with tables, headings or code inside are layout.
        if width < 2 or table.xpath(".//pre | .//table | .//h1 | .//h2 | .//h3"):
            self.block(table, depth)
            return
        lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in rows]
        self.add("\n".join([lines[0], f"|{' --- |' * width}", *lines[1:]]))


def _is_block(element: etree._Element) -> bool:
    if element.tag in _BLOCKS or element.tag in _HEADINGS or element.tag in ("pre", "ul", "ol", "table", "hr"):
        return True
    return next(element.iter("p", "div", "pre", "ul", "ol", "table", *_HEADINGS), None) is not None


def _items(element: etree._Element, depth: int) -> Iterator[str]:
    number = 0
    for child in element:
        if not isinstance(child.tag, str) or depth >= MAX_DEPTH or _is_dropped(child):
            continue
        inner = _Markdown()
        inner.block(child, depth + 1)
        if not inner.blocks:
            continue
        number += 1
        mark = f"{number}. " if element.tag == "ol" else "- "
        first, *rest = "\n".join(inner.blocks).split("\n")
        yield "\n".join([mark + first, *(" " * len(mark) + line for line in rest)])


def _fence(element: etree._Element) -> str:
    text = "".join(_code(element)).strip("\n").rstrip()
    if not text.strip():
        return ""
    mark = "```"
    while mark in text:
        mark += "`"
    classes = " ".join(inner.get("class", "") for inner in element.iter("pre", "code", "div"))
    language = _LANGUAGE.search(classes)
    return f"{mark}{language[1] if language else ''}\n{text}\n{mark}"


def _code(element: etree._Element) -> Iterator[str]:
    """The text of code as it stands, with ``<br>`` as line ends; line numbers and buttons left out."""
    yield element.text or ""
    for child in element:
        if child.tag == "br":
            yield "\n"
        elif isinstance(child.tag, str) and not _is_dropped(child) and "lineno" not in child.get("class", ""):
            yield from _code(child)
        yield child.tail or ""


def _inline(element: etree._Element, depth: int) -> str:
    """The text of an element in one line; code in backticks, a link by its text."""
    if element.tag == "br":
        return _BREAK
    if element.tag == "img":
        return element.get("alt", "")
    parts = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str) and depth < MAX_DEPTH and not _is_dropped(child):
            parts.append(_inline(child, depth + 1))
        parts.append(child.tail or "")
    if element.tag in ("li", "p", "div", "td", "th"):
        parts.append(" ")
    text = "".join(parts)
    code = element.tag in ("code", "kbd", "tt", "samp") and text.strip() and "`" not in text
    return f"`{text.strip()}`" if code else text


def _joined(parts: list[str]) -> str:
    """One paragraph: white space as a browser shows it, ``<br>`` as a line end."""
    lines = _SPACE.sub(" ", "".join(parts)).split(_BREAK)
    return "\n".join(text for line in lines if (text := line.strip()))


def _escaped(paragraph: str) -> str:
    """A paragraph that begins like a heading, a fence or a comment is none."""
    return re.sub(r"^(?=#{1,6}\s|```|~~~|<!--)", r"\\", paragraph, flags=re.MULTILINE)
