"""How a Kubernetes API server patches: JSON Patch, JSON Merge Patch and, as far as is needed here, strategic merge."""

from __future__ import annotations

import copy
from typing import Any

from tests.kube_store import Object

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON = "application/json-patch+json"
_MERGE_KEYS = {"containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "conditions": "type"}
"""The lists that are merged by a key, and not replaced (patchMergeKey in k8s.io/api)."""


def patched(stored: Object, patch: Any, content_type: str) -> Object:
    """Raises ValueError for a patch that cannot be applied."""
    if content_type == JSON:
        made = copy.deepcopy(stored)
        for operation in patch:
            _operate(made, operation)
        return made
    return merge(stored, patch) if content_type == MERGE else _strategic(stored, patch)


def merge(stored: Object, patch: Object) -> Object:
    """JSON merge patch, RFC 7386."""
    merged = copy.deepcopy(stored)
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        elif isinstance(value, dict):
            below = merged.get(field)
            merged[field] = merge(below if isinstance(below, dict) else {}, value)
        else:
            merged[field] = value
    return merged


def _strategic(stored: Object, patch: Object) -> Object:
    """https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md"""
    if patch.get("$patch") == "replace":
        return copy.deepcopy({field: value for field, value in patch.items() if field != "$patch"})
    merged = copy.deepcopy(stored)
    for field, value in patch.items():
        below = merged.get(field)
        if value is None:
            merged.pop(field, None)
        elif isinstance(value, dict):
            merged[field] = _strategic(below if isinstance(below, dict) else {}, value)
        elif isinstance(value, list) and field in _MERGE_KEYS and isinstance(below, list):
            merged[field] = _by_key(below, value, _MERGE_KEYS[field])
        else:
            merged[field] = copy.deepcopy(value)
    return merged


def _operate(made: Object, operation: Object) -> None:
    """One operation of RFC 6902, without move and copy."""
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    below: Any = made
    for part in path:
        below = below[int(part) if isinstance(below, list) else part]
    at: Any = len(below) if last == "-" else int(last) if isinstance(below, list) else last
    if operation["op"] == "add":
        if isinstance(below, list):
            below.insert(at, operation["value"])
        else:
            below[at] = operation["value"]
        return
    if isinstance(below, dict) and at not in below:
        raise ValueError(f"doc is missing path: {operation['path']}")
    if operation["op"] == "test" and below[at] != operation["value"]:
        raise ValueError(f"testing value {operation['path']} failed")
    if operation["op"] == "replace":
        below[at] = operation["value"]
    elif operation["op"] == "remove":
        del below[at]


def _by_key(stored: list[Object], patch: list[Object], key: str) -> list[Object]:
    merged = {one[key]: one for one in stored}
    for one in patch:
        merged[one[key]] = _strategic(merged.get(one[key], {}), one)
    return list(merged.values())
