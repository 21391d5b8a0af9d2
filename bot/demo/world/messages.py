"""The control API's messages, shared by the supervisor and its client. Unknown fields and loose types are refused."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

Count = Annotated[int, Field(strict=True, ge=0)]
ExecutionId = Annotated[str, Field(strict=True, min_length=1, max_length=200)]
ChangeKind = Literal["scale", "restart"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScaleRequest(_Message):
    """Scale to `replicas`, provided the service is still at generation `if_generation`."""

    replicas: Annotated[int, Field(strict=True)]
    if_generation: Count
    execution_id: ExecutionId
    step: Count
    fence: Count


class RestartRequest(_Message):
    """Restart `instance`, provided it is still the one with `if_instance_uid`."""

    instance: Annotated[str, Field(strict=True, min_length=1, max_length=100)]
    if_instance_uid: Annotated[str, Field(strict=True, min_length=1, max_length=100)]
    execution_id: ExecutionId
    step: Count
    fence: Count


class FaultSwitch(_Message):
    on: Annotated[bool, Field(strict=True)]


class InstanceView(_Message):
    """`pid` and `port` are null while the process is not there (restarting, or waiting after a crash)."""

    name: str
    uid: str
    pid: int | None
    port: int | None
    ready: bool
    started_at: AwareDatetime
    memory_bytes: int
    memory_limit_bytes: int


class LastChange(_Message):
    execution_id: str
    step: int
    kind: ChangeKind
    at: AwareDatetime
    fence: int


class ServiceView(_Message):
    """A service as it is: `replicas` is the number wanted, `instances` what runs (those that drain included)."""

    name: str
    namespace: str
    uid: str
    generation: int
    replicas: int
    max_replicas: int
    instances: tuple[InstanceView, ...]
    replicas_1h_ago: int
    last_change: LastChange | None


class JournalEntry(_Message):
    """One physical change, written before it took effect. `detail` of a scale: from, to; of a restart: instance,
    old_uid, new_uid."""

    seq: int
    at: AwareDatetime
    service: str
    kind: ChangeKind
    execution_id: str
    step: int
    fence: int
    detail: dict[str, JsonValue]


class FaultView(_Message):
    """`since` is null while the fault is not active; `detail` names what it has hold of (an instance, a commit)."""

    name: str
    title: str
    description: str
    active: bool
    since: datetime | None
    detail: str
