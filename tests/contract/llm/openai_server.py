"""OpenAI's two wire formats as far as the adapter uses them, each with its own refusals."""

from __future__ import annotations

from typing import Any

from pipeline.adapters.llm.models import DEFAULT_OPENAI
from pipeline.adapters.llm.openai import OpenAiModel
from tests.contract.llm.suite import KEY, ModelServer, Say

REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbGVk"}


class ResponsesServer(ModelServer):
    path = "/responses"
    sealed = True
    """Whether reasoning comes with its encrypted content, as it does when nothing is stored."""

    def model(self, *, max_retries: int = 0) -> OpenAiModel:
        return OpenAiModel(KEY, base_url=self.url, api="responses", max_retries=max_retries)

    def wrong(self, request: dict[str, Any]) -> str:
        for tool in request.get("tools", ()):
            if wrong := wrong_schema(tool["parameters"]):
                return f"Invalid schema for function '{tool['name']}': {wrong}"
        form = request.get("text", {}).get("format", {})
        if form.get("type") == "json_schema" and (wrong := wrong_schema(form["schema"])):
            return f"Invalid schema for text.format '{form['name']}': {wrong}"
        if request.get("store") is not False:
            return "store: must be false in this organisation"
        called = [item["call_id"] for item in request["input"] if item.get("type") == "function_call"]
        answered = [item["call_id"] for item in request["input"] if item.get("type") == "function_call_output"]
        if called != answered:
            return "No tool output found for function call"
        if any(item.get("type") == "reasoning" and not item.get("encrypted_content") for item in request["input"]):
            return "Item 'rs_1' not found. Items are not persisted when `store` is set to false."
        return ""

    def body(self, say: Say) -> dict[str, Any]:
        reasoning = REASONING if self.sealed else {**REASONING, "encrypted_content": None}
        output: list[dict[str, Any]] = [reasoning]
        if say.text:
            part: dict[str, Any] = {"type": "output_text", "text": say.text, "annotations": []}
            if say.stop == "refusal":
                part = {"type": "refusal", "refusal": say.text}
            message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}
            output.append(message)
        for number, (name, arguments) in enumerate(say.calls):
            called = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name}
            output.append({**called, "arguments": arguments, "status": "completed"})
        cut = say.stop == "length"
        return {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_763_900_000,
            "model": DEFAULT_OPENAI,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "error": None,
            "output": output,
            "usage": {
                "input_tokens": 1500,
                "input_tokens_details": {"cached_tokens": say.cached},
                "output_tokens": 150,
                "output_tokens_details": {"reasoning_tokens": 80},
                "total_tokens": 1650,
            },
        }

    def events(self, say: Say) -> list[tuple[str, dict[str, Any] | str]]:
        whole = self.body(say)
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.in_progress", "response": begun},
        ]
        for index, item in enumerate(whole["output"]):
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            if item["type"] == "message":
                at = {"item_id": item["id"], "output_index": index, "content_index": 0}
                events += [{"type": "response.output_text.delta", **at, "delta": piece} for piece in _pieces(say.text)]
            if item["type"] == "function_call":
                at = {"item_id": item["id"], "output_index": index}
                for piece in _pieces(item["arguments"]):
                    events.append({"type": "response.function_call_arguments.delta", **at, "delta": piece})
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        events.append({"type": f"response.{whole['status']}", "response": whole})
        return [(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)]

    def error(self, kind: str, said: str) -> dict[str, Any]:
        return {"error": {"message": said, "type": kind, "param": None, "code": None}}

    def error_event(self, kind: str) -> tuple[str, dict[str, Any]]:
        return "error", {"type": "error", "code": kind, "message": "busy", "param": None, "sequence_number": 3}

    def first_text(self, request: dict[str, Any]) -> str:
        return str(request["input"][0]["content"])

    def results(self, request: dict[str, Any]) -> list[str]:
        return [item["output"] for item in request["input"] if item.get("type") == "function_call_output"]


class CompletionsServer(ModelServer):
    path = "/v1/chat/completions"

    def __init__(self) -> None:
        super().__init__()
        self.forms = {"json_schema", "json_object", "text"}
        """The forms of an answer that it takes; servers of this wire format differ."""
        self.unknown: set[str] = set()
        """Parameters that it refuses."""

    def model(self, *, max_retries: int = 0) -> OpenAiModel:
        return OpenAiModel(KEY, model="local-model", base_url=f"{self.url}/v1", max_retries=max_retries)

    def wrong(self, request: dict[str, Any]) -> str:
        if extra := self.unknown & request.keys():
            return f"Unsupported parameter: {', '.join(sorted(extra))} (use max_completion_tokens)"
        form = request.get("response_format", {"type": "text"})["type"]
        if form not in self.forms:
            return f"'response_format.type' must be one of {sorted(self.forms)}"
        called: list[str] = []
        for message in request["messages"]:
            if message["role"] == "tool":
                if message["tool_call_id"] not in called:
                    return "tool messages must follow a message with tool_calls"
                called.remove(message["tool_call_id"])
            elif called:
                return f"an assistant message with tool_calls must be followed by results: {called}"
            called = called or [call["id"] for call in message.get("tool_calls", ())]
        return ""

    def body(self, say: Say) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": say.text or None, "refusal": None}
        if say.stop == "refusal":
            message |= {"content": None, "refusal": say.text}
        if say.calls:
            message["tool_calls"] = [
                {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for number, (name, arguments) in enumerate(say.calls)
            ]
        choice = {"index": 0, "message": message, "finish_reason": _finish(say), "logprobs": None}
        usage = self._usage(say)
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage}

    def events(self, say: Say) -> list[tuple[str, dict[str, Any] | str]]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        if say.stop == "refusal":
            deltas.append({"refusal": say.text})
        else:
            deltas += [{"content": piece} for piece in _pieces(say.text)]
        for number, (name, arguments) in enumerate(say.calls):
            function = {"name": name, "arguments": ""}
            call = {"index": number, "id": f"call_{number}", "type": "function", "function": function}
            deltas.append({"tool_calls": [call]})
            for piece in _pieces(arguments):
                deltas.append({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
        head = self._head("chat.completion.chunk")
        chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish(say)}]})
        chunks.append({**head, "choices": [], "usage": self._usage(say)})
        return [*(("", chunk) for chunk in chunks), ("", "[DONE]")]

    def error(self, kind: str, said: str) -> dict[str, Any]:
        return {"error": {"message": said, "type": kind, "param": None, "code": None}}

    def error_event(self, kind: str) -> tuple[str, dict[str, Any]]:
        return "", self.error(kind, "busy")

    def first_text(self, request: dict[str, Any]) -> str:
        return str(request["messages"][1]["content"])

    def results(self, request: dict[str, Any]) -> list[str]:
        return [message["content"] for message in request["messages"] if message["role"] == "tool"]

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_763_900_000, "model": "local-model"}

    def _usage(self, say: Say) -> dict[str, Any]:
        details = {"cached_tokens": say.cached}
        return {"prompt_tokens": 1500, "completion_tokens": 150, "total_tokens": 1650, "prompt_tokens_details": details}


def wrong_schema(schema: dict[str, Any]) -> str:
    """What strict mode refuses: optional keys, open objects, defaults, a reference with company, most limits."""
    refused = {"default", "minLength", "maxLength", "title", "uniqueItems", "allOf", "oneOf"}
    if extra := refused & schema.keys():
        return f"{', '.join(sorted(extra))} is not permitted"
    if "$ref" in schema and len(schema) > 1:
        return "$ref cannot have keywords beside it"
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false"
        if set(schema.get("required", ())) != set(schema.get("properties", {})):
            return "'required' is required to include every key in properties"
    parts = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    if "items" in schema:
        parts.append(schema["items"])
    return next((wrong for part in parts if (wrong := wrong_schema(part))), "")


def _finish(say: Say) -> str:
    if say.stop == "length":
        return "length"
    return "tool_calls" if say.calls else "stop"


def _pieces(text: str) -> list[str]:
    return [text[start : start + 7] for start in range(0, len(text), 7)] or [""]
