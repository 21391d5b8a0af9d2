"""Pixie's messages on the wire: the part of protobuf and of ``vizierapi.proto`` that running a script needs. Pure.

Written out because Pixie's own package pins exact versions of gRPC and its code generator. Field numbers are those of
``px.api.vizierpb``; frames are gRPC-web's: a byte of flags, four of length, then a message or, at the end, trailers.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

Value = bool | int | float | str
Fields = Mapping[int, list[int | bytes]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TRAILERS, _COMPRESSED = 0x80, 0x01
_BOOLEAN, _INT64, _UINT128, _TIME64NS, _FLOAT64, _STRING = 1, 2, 3, 4, 5, 6
_HEADER_BYTES = 5


class WireError(ValueError):
    """The bytes are not such a message."""


@dataclass(slots=True)
class Table:
    """One table that a script displayed; each row by the names of its columns."""

    columns: tuple[str, ...]
    rows: list[dict[str, Value]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that came: the tables by name, the status that gRPC or Pixie gave (0: all right) and its words."""

    tables: Mapping[str, Table]
    code: int
    message: str


def execute_script(script: str, cluster_id: str) -> bytes:
    """An ExecuteScriptRequest in its frame."""
    message = b"".join(
        _varint(number << 3 | _BYTES) + _varint(len(text)) + text
        for number, text in ((1, script.encode()), (3, cluster_id.encode()))
    )
    return struct.pack(">BI", 0, len(message)) + message


def read_result(body: bytes) -> Result | None:
    """The whole stream of ExecuteScriptResponses; None when it ended without its trailers. Raises WireError."""
    tables: dict[str, Table] = {}
    by_id: dict[str, Table] = {}
    for flags, frame in _frames(body):
        if flags & _TRAILERS:
            code, message = _trailers(frame)
            return Result(tables, code, message)
        if flags & _COMPRESSED:
            raise WireError("a compressed frame, which was not asked for")
        response = _fields(frame)
        for status in _messages(response, 1):
            if code := _number(status, 1):
                return Result(tables, code, _words(status))
        for meta in _messages(response, 4):
            table = Table(tuple(_text(column, 1) for part in _messages(meta, 1) for column in _messages(part, 1)))
            tables[_text(meta, 2)] = by_id[_text(meta, 3)] = table
        for data in _messages(response, 3):
            for batch in _messages(data, 1):
                _add(batch, by_id)
    return None


def _frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Whole frames; a stream that was cut ends early."""
    at = 0
    while at + _HEADER_BYTES <= len(body):
        flags, length = struct.unpack_from(">BI", body, at)
        at += _HEADER_BYTES
        if at + length > len(body):
            return
        yield flags, body[at : at + length]
        at += length


def _trailers(frame: bytes) -> tuple[int, str]:
    lines = (line.partition(":") for line in frame.decode(errors="replace").splitlines())
    trailers = {name.strip().lower(): value.strip() for name, _, value in lines}
    code = trailers.get("grpc-status", "")
    if not code.isdigit():
        raise WireError("trailers without a status")
    return int(code), trailers.get("grpc-message", "")


def _add(batch: Fields, by_id: Mapping[str, Table]) -> None:
    table = by_id.get(_text(batch, 5))
    if table is None:
        raise WireError("rows of a table that was not announced")
    columns = [_column(column) for column in _messages(batch, 1)]
    count = _number(batch, 2)
    if count and len(columns) != len(table.columns):
        raise WireError("rows with too many or too few columns")
    if any(len(column) != count for column in columns):
        raise WireError("columns of different lengths")
    table.rows += [dict(zip(table.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(column: Fields) -> list[Value]:
    for kind in (_BOOLEAN, _INT64, _UINT128, _TIME64NS, _FLOAT64, _STRING):
        for data in _messages(column, kind):
            values = data.get(1, [])
            match kind:
                case 6:
                    return [_as_text(value) for value in values]
                case 5:
                    return [number for value in values for number in _doubles(value)]
                case 3:
                    return [_as_bytes(value).hex() for value in values]
                case 1:
                    return [bool(number) for value in values for number in _integers(value)]
                case _:
                    return [number for value in values for number in _integers(value)]
    return []


def _doubles(value: int | bytes) -> list[float]:
    """Packed, or one by itself."""
    packed = value if isinstance(value, bytes) else struct.pack("<Q", value)
    if len(packed) % 8:
        raise WireError("half a number")
    return list(struct.unpack(f"<{len(packed) // 8}d", packed))


def _integers(value: int | bytes) -> list[int]:
    if isinstance(value, int):
        return [_signed(value)]
    numbers: list[int] = []
    at = 0
    while at < len(value):
        number, at = _read_varint(value, at)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _words(status: Fields) -> str:
    """The message, and where in the script the compiler stumbled."""
    details = [
        f"line {_number(compiler, 1)}: {_text(compiler, 3)}"
        for detail in _messages(status, 4)
        for compiler in _messages(detail, 1)
    ]
    return "; ".join([part for part in (_text(status, 2), *details) if part])


def _messages(fields: Fields, number: int) -> Iterator[Fields]:
    for value in fields.get(number, ()):
        yield _fields(_as_bytes(value))


def _text(fields: Fields, number: int) -> str:
    values = fields.get(number)
    return _as_text(values[-1]) if values else ""


def _number(fields: Fields, number: int) -> int:
    values = fields.get(number)
    if not values:
        return 0
    if isinstance(values[-1], bytes):
        raise WireError("bytes where a number belongs")
    return values[-1]


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise WireError("a number where bytes belong")
    return value


def _as_text(value: int | bytes) -> str:
    return _as_bytes(value).decode(errors="replace")


def _fields(message: bytes) -> Fields:
    found: defaultdict[int, list[int | bytes]] = defaultdict(list)
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        size = {_FIXED64: 8, _FIXED32: 4}.get(key & 7)
        if key & 7 == _VARINT:
            value, at = _read_varint(message, at)
            found[key >> 3].append(value)
            continue
        if key & 7 == _BYTES:
            size, at = _read_varint(message, at)
        if size is None or at + size > len(message):
            raise WireError("a field that does not fit")
        raw = message[at : at + size]
        found[key >> 3].append(raw if key & 7 == _BYTES else int.from_bytes(raw, "little"))
        at += size
    return found


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise WireError("a number that does not end")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
