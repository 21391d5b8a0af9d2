"""The Messages API as far as the adapter uses it, in its own wire format, with its own refusals."""

from __future__ import annotations

import json
from typing import Any

from pipeline.adapters.llm.anthropic import AnthropicModel
from pipeline.adapters.llm.models import DEFAULT_ANTHROPIC
from tests.contract.llm.suite import KEY, ModelServer, Say

NOT_TAKEN = {"temperature", "top_p", "top_k", "thinking"}
STOPS = {"end": "end_turn", "length": "max_tokens", "refusal": "refusal"}
THINKING = {"type": "thinking", "thinking": "", "signature": "c2lnbmVk"}


class AnthropicServer(ModelServer):
    path = "/v1/messages"
    effort_taken = True

    def model(self, *, max_retries: int = 0) -> AnthropicModel:
        return AnthropicModel(KEY, base_url=self.url, max_retries=max_retries)

    def wrong(self, request: dict[str, Any]) -> str:
        if extra := NOT_TAKEN & request.keys():
            return f"{', '.join(sorted(extra))}: not supported by this model"
        if request.get("tool_choice", {}).get("type") in ("any", "tool"):
            return "tool_choice: forced tool use is not supported by this model"
        if "effort" in request.get("output_config", {}) and not self.effort_taken:
            return "output_config.effort: this model does not support the effort parameter"
        if json.dumps(request).count('"cache_control"') > 4:
            return "a maximum of 4 blocks with cache_control may be provided"
        return _wrong_messages(request)

    def body(self, say: Say) -> dict[str, Any]:
        content: list[dict[str, Any]] = [THINKING]
        if say.text:
            content.append({"type": "text", "text": say.text, "citations": None})
        for number, (name, arguments) in enumerate(say.calls):
            content.append(
                {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": json.loads(arguments or "{}")}
            )
        stop = "tool_use" if say.calls and say.stop == "end" else STOPS[say.stop]
        return _message(content, stop, 150, say.cached)

    def events(self, say: Say) -> list[tuple[str, dict[str, Any] | str]]:
        whole = self.body(say)
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": _message([], None, 1, say.cached)},
            {"type": "ping"},
        ]
        written = iter(arguments for _, arguments in say.calls)
        for index, block in enumerate(whole["content"]):
            begun: dict[str, Any]
            match block["type"]:
                case "thinking":
                    begun = {"type": "thinking", "thinking": "", "signature": ""}
                    deltas = [{"type": "signature_delta", "signature": block["signature"]}]
                case "text":
                    begun = {"type": "text", "text": ""}
                    deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"])]
                case _:
                    begun = {**block, "input": {}}
                    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in _pieces(next(written))]
            events.append({"type": "content_block_start", "index": index, "content_block": begun})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 150}})
        events.append({"type": "message_stop"})
        return [(str(event["type"]), event) for event in events]

    def error(self, kind: str, said: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"}

    def error_event(self, kind: str) -> tuple[str, dict[str, Any]]:
        return "error", self.error(kind, "Overloaded")

    def first_text(self, request: dict[str, Any]) -> str:
        return str(request["messages"][0]["content"][0]["text"])

    def results(self, request: dict[str, Any]) -> list[str]:
        blocks = [block for message in request["messages"] for block in message["content"]]
        return [block["content"] for block in blocks if block["type"] == "tool_result"]


def _message(content: list[dict[str, Any]], stop: str | None, written: int, cached: int) -> dict[str, Any]:
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": DEFAULT_ANTHROPIC,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1500 - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": written,
        },
    }


def _wrong_messages(request: dict[str, Any]) -> str:
    """The API's rules on turns: calls are answered at once and first, thinking comes back unchanged."""
    messages = request["messages"]
    if messages[-1]["role"] == "assistant":
        return "this model does not support assistant message prefill"
    called: list[str] = []
    for number, message in enumerate(messages):
        blocks = message["content"]
        if not blocks or any(block.get("text") == "" for block in blocks):
            return f"messages.{number}: content must be non-empty"
        answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if answered != called or answered != [block.get("tool_use_id") for block in blocks[: len(answered)]]:
            return f"messages.{number}: tool_use ids were found without tool_result blocks immediately after"
        called = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if message["role"] == "assistant" and THINKING not in blocks:
            return f"messages.{number}: thinking blocks cannot be modified"
        if called and not request.get("tools"):
            return "requests which include tool_use or tool_result blocks must define tools"
    return ""


def _pieces(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)] or [""]
