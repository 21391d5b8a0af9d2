"""What a setting is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, slots=True)
class Variable:
    """Where a setting comes from: the environment variable, its unit, and why it exists."""

    name: str
    unit: str
    why: str


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0, le=1e9)]
"""Up to 31 years where it is seconds: dates can still be reckoned with it."""
Ratio = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]
