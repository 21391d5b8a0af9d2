"""The JSON schema of a pydantic model in the part of JSON Schema that OpenAI's strict mode takes."""

from __future__ import annotations

from functools import cache

from pydantic import BaseModel

_KEPT = frozenset({"type", "enum", "const", "description"})
"""Limits of length and size go into the description: the mode refuses most of them, and pydantic checks them anyway."""
_NOT_SAID = frozenset({"title", "default", "additionalProperties", "required"})


@cache
def strict_schema(form: type[BaseModel]) -> dict[str, object]:
    """Every key required, none besides them, no defaults; what cannot be said as a rule is said in words."""
    return _strict(form.model_json_schema())


def _strict(schema: dict[str, object]) -> dict[str, object]:
    # A reference stands alone, or is refused.
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}
    strict: dict[str, object] = {}
    limits: list[str] = []
    for key, value in schema.items():
        if key in ("properties", "$defs") and isinstance(value, dict):
            strict[key] = {name: _strict(part) for name, part in value.items()}
        elif key == "items" and isinstance(value, dict):
            strict[key] = _strict(value)
        elif key in ("anyOf", "oneOf") and isinstance(value, list):
            strict["anyOf"] = [_strict(part) for part in value]
        elif key in _KEPT:
            strict[key] = value
        elif key not in _NOT_SAID:
            limits.append(f"{key}: {value}")
    if schema.get("type") == "object":
        properties = strict.setdefault("properties", {})
        strict["required"] = list(properties) if isinstance(properties, dict) else []
        strict["additionalProperties"] = False
    if limits:
        said = f"{strict['description']} " if "description" in strict else ""
        strict["description"] = f"{said}({', '.join(limits)})"
    return strict
