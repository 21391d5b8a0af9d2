"""Pixie's gRPC-web API with a cluster behind it that runs the part of PxL which our scripts use.

Scripts are compiled and run on rows in the shape of Pixie's tables, so that a wrong column, a missing filter or a wrong
window shows. Messages are encoded here by themselves, not by the code under test.
"""

from __future__ import annotations

import ast
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from aiohttp import web

from tests.contract.telemetry.faults import SAID

KEY, CLUSTER = "px-api-test", "1e3a32fc-caa6-4d81-e33d-10de7d77f1b2"
REFUSAL = json.dumps({"message": SAID})
PATH = "/px.api.vizierpb.VizierService/ExecuteScript"
SCHEMAS = {
    "http_events": {"time_", "upid", "remote_addr", "remote_port", "trace_role", "resp_status", "latency", "req_path"},
    "conn_stats": {"time_", "upid", "remote_addr", "remote_port", "trace_role", "protocol", "conn_open", "conn_close",
                   "conn_active", "bytes_sent", "bytes_recv"},
    "process_stats": {"time_", "upid", "cpu_utime_ns", "cpu_ktime_ns", "rss_bytes", "vsize_bytes", "rchar_bytes",
                      "wchar_bytes", "read_bytes", "write_bytes"},
}  # fmt: skip
"""Of the columns that Pixie's data tables document, those that matter here."""
_TYPES = {bool: 1, int: 2, float: 4, str: 5}
_COLUMN_FIELDS = {1: 1, 2: 2, 3: 3, 4: 5, 5: 6}
_UINT128 = 3


class CompilerError(Exception):
    """The script is no PxL, or names what is not there."""


class FakePixie:
    """``put`` fills a table; ``pods`` maps an IP to the service behind it. ``app`` is to be served."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
        self.pods: dict[str, str] = {}
        self.scripts: list[str] = []
        self.refuse: tuple[int, str] | None = None
        self.refuse_late: tuple[int, str] | None = None
        self.body: bytes | None = None
        self.app = web.Application()
        self.app.router.add_post(PATH, self._answer)

    def put(self, table: str, at: datetime, service: str, *, pod: str = "", cmdline: str = "", **columns: Any) -> None:
        context = {"service": service, "pod": pod, "cmdline": cmdline}
        row = {"upid": 1, "remote_addr": "", "remote_port": 0, "trace_role": 2, "protocol": 1, **columns}
        self.tables[table].append(
            {"time_": int(at.timestamp() * 1e9), "_ctx": context}
            | {name: value for name, value in row.items() if name in SCHEMAS[table]}
        )

    async def _answer(self, request: web.Request) -> web.Response:
        headers = {"Content-Type": "application/grpc-web+proto"}
        if request.content_type != "application/grpc-web+proto" or "X-Grpc-Web" not in request.headers:
            return web.Response(status=415)
        if request.headers.get("pixie-api-key") != KEY:
            return web.Response(headers={**headers, "grpc-status": "16", "grpc-message": "failed to fetch token"})
        if self.refuse is not None:
            code, message = self.refuse
            return web.Response(headers={**headers, "grpc-status": str(code), "grpc-message": message})
        fields = _decode(await request.read())
        self.scripts.append(fields[1])
        if fields[3] != CLUSTER:
            return web.Response(headers={**headers, "grpc-status": "5", "grpc-message": "Vizier not found"})
        if self.body is not None:
            return web.Response(body=self.body, headers=headers)
        try:
            frames = [_frame(message) for table in self._run(fields[1]).items() for message in _messages(*table)]
        except CompilerError as error:
            detail = _bytes(1, _number(1, 3) + _bytes(3, str(error).encode()))
            status = _number(1, 3) + _bytes(2, b"Script should not have compile errors.") + _bytes(4, detail)
            frames = [_frame(_bytes(1, status))]
        code, message = self.refuse_late or (0, "")
        frames.append(_frame(f"grpc-status:{code}\r\ngrpc-message:{message}\r\n".encode(), flags=0x80))
        return web.Response(body=b"".join(frames), headers=headers)

    def _run(self, script: str) -> dict[str, Frame]:
        displayed: dict[str, Frame] = {}
        try:
            tree = ast.fix_missing_locations(_AndForColumns().visit(ast.parse(script)))
        except SyntaxError as error:
            raise CompilerError(str(error)) from error
        if not isinstance(tree.body[0], ast.Import):
            raise CompilerError("name 'px' is not defined")
        del tree.body[0]
        exec(compile(tree, "script.pxl", "exec"), {"px": Px(self, displayed), "__builtins__": {}})
        return displayed


class _AndForColumns(ast.NodeTransformer):
    """PxL's ``and`` works on columns; Python's would not."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        result = node.values[0]
        for value in node.values[1:]:
            result = ast.BinOp(result, ast.BitAnd(), value)
        return result


class Column:
    def __init__(self, values: Sequence[Any]) -> None:
        self.values = list(values)

    def _with(self, other: Any, function: Callable[[Any, Any], Any]) -> Column:
        others = other.values if isinstance(other, Column) else [other] * len(self.values)
        return Column([function(a, b) for a, b in zip(self.values, others, strict=True)])

    def __eq__(self, other: object) -> Column:  # type: ignore[override]
        return self._with(other, lambda a, b: a == b)

    def __ne__(self, other: object) -> Column:  # type: ignore[override]
        return self._with(other, lambda a, b: a != b)

    def __ge__(self, other: Any) -> Column:
        return self._with(other, lambda a, b: a >= b)

    def __add__(self, other: Any) -> Column:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> Column:
        return self._with(other, lambda a, b: a - b)

    def __and__(self, other: Any) -> Column:
        return self._with(other, lambda a, b: a and b)

    __hash__ = None  # type: ignore[assignment]


class Frame:
    rows: list[dict[str, Any]]
    columns: list[str]

    def __init__(self, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
        object.__setattr__(self, "rows", list(rows))
        object.__setattr__(self, "columns", list(columns))

    @property
    def ctx(self) -> Mapping[str, Column]:
        if self.rows and "_ctx" not in self.rows[0]:
            raise CompilerError("ctx is not there after an aggregation")
        return {name: Column([row["_ctx"][name] for row in self.rows]) for name in ("service", "pod", "cmdline")}

    def __getattr__(self, name: str) -> Column:
        if name not in self.columns:
            raise CompilerError(f"Column '{name}' not found in parent dataframe")
        return Column([row[name] for row in self.rows])

    def __setattr__(self, name: str, value: Column) -> None:
        if name not in self.columns:
            self.columns.append(name)
        object.__setattr__(self, "rows", [{**r, name: v} for r, v in zip(self.rows, value.values, strict=True)])

    def __getitem__(self, key: Column | list[str]) -> Frame:
        if isinstance(key, Column):
            return Frame([row for row, keep in zip(self.rows, key.values, strict=True) if keep], self.columns)
        return Frame([{name: getattr(self, name).values[n] for name in key} for n in range(len(self.rows))], key)

    def groupby(self, by: str | list[str]) -> Groups:
        return Groups(self, [by] if isinstance(by, str) else by)


class Groups:
    def __init__(self, frame: Frame, by: list[str]) -> None:
        self._frame, self._by = frame, by

    def agg(self, **wanted: tuple[str, Callable[[list[Any]], Any]]) -> Frame:
        groups: dict[tuple[Any, ...], list[int]] = {}
        keys = zip(*(getattr(self._frame, name).values for name in self._by), strict=True)
        for n, key in enumerate(keys):
            groups.setdefault(key, []).append(n)
        columns = {name: (getattr(self._frame, source).values, make) for name, (source, make) in wanted.items()}
        rows = [
            dict(zip(self._by, key, strict=True))
            | {name: make([values[n] for n in members]) for name, (values, make) in columns.items()}
            for key, members in groups.items()
        ]
        return Frame(rows, [*self._by, *wanted])


class Px:
    """The module that scripts import."""

    count = staticmethod(len)
    min = staticmethod(min)
    max = staticmethod(max)
    sum = staticmethod(sum)

    def __init__(self, pixie: FakePixie, displayed: dict[str, Frame]) -> None:
        self._pixie, self._displayed = pixie, displayed

    @staticmethod
    def mean(values: list[Any]) -> float:
        return float(np.mean(values))

    @staticmethod
    def quantiles(values: list[Any]) -> str:
        with np.errstate(invalid="ignore"):
            return json.dumps({"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99))})

    @staticmethod
    def pluck_float64(column: Column, key: str) -> Column:
        return Column([float(json.loads(value)[key]) for value in column.values])

    @staticmethod
    def contains(column: Column, part: str) -> Column:
        return Column([part in value for value in column.values])

    @staticmethod
    def ip_to_pod_id(column: Column) -> Column:
        return column

    def pod_id_to_service_name(self, column: Column) -> Column:
        return Column([self._pixie.pods.get(value, "") for value in column.values])

    def DataFrame(self, *, table: str, start_time: int, end_time: int) -> Frame:
        if table not in SCHEMAS:
            raise CompilerError(f"Table '{table}' not found.")
        rows = [row for row in self._pixie.tables[table] if start_time <= row["time_"] < end_time]
        return Frame(rows, sorted(SCHEMAS[table]))

    def display(self, frame: Frame, name: str) -> None:
        self._displayed[name] = frame


def _messages(name: str, frame: Frame) -> list[bytes]:
    """Metadata, and the rows in two batches, as they come from two nodes."""
    kinds = {column: _kind(column, frame) for column in frame.columns}
    infos = b"".join(_bytes(1, _bytes(1, column.encode()) + _number(2, kind)) for column, kind in kinds.items())
    table_id = f"id of {name}".encode()
    found = [_bytes(2, b"query") + _bytes(4, _bytes(1, infos) + _bytes(2, name.encode()) + _bytes(3, table_id))]
    half = len(frame.rows) // 2
    for rows, last in ((frame.rows[:half], False), (frame.rows[half:], True)):
        columns = b"".join(_bytes(1, _column(kind, [row[column] for row in rows])) for column, kind in kinds.items())
        batch = columns + _number(2, len(rows)) + _number(4, int(last)) + _bytes(5, table_id)
        found.append(_bytes(3, _bytes(1, batch)))
    found.append(_bytes(3, _bytes(2, _number(2, 4096))))  # execution statistics
    return found


def _kind(column: str, frame: Frame) -> int:
    if column == "upid":
        return _UINT128
    return _TYPES[type(frame.rows[0][column])] if frame.rows else _TYPES[str]


def _column(kind: int, values: Sequence[Any]) -> bytes:
    match kind:
        case 3:
            data = b"".join(_bytes(1, _number(1, value) + _number(2, 7)) for value in values)
        case 4:
            data = _bytes(1, struct.pack(f"<{len(values)}d", *values))
        case 5:
            data = b"".join(_bytes(1, value.encode()) for value in values)
        case _:
            data = _bytes(1, b"".join(_varint(int(value)) for value in values))
    return _bytes(_COLUMN_FIELDS[kind], data)


def _frame(message: bytes, *, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _decode(body: bytes) -> dict[int, str]:
    """The texts of a request, by their field."""
    _, length = struct.unpack_from(">BI", body)
    message, at, fields = body[5 : 5 + length], 0, {}
    while at < length:
        number, at = message[at] >> 3, at + 1
        size = shift = 0
        while True:
            byte, at = message[at], at + 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        fields[number], at = message[at : at + size].decode(), at + size
    return fields
