"""Reading and changing what runs."""

from __future__ import annotations

from typing import Protocol

from pipeline.domain.action import Action, Operation
from pipeline.domain.capability import Declaration, RightCheck
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.execution import Finding, Intent
from pipeline.domain.plan import TargetRef, TargetState


class Target(Protocol):
    """One platform. Reads may be retried; writes are sent once and never repeated by the adapter or its SDK."""

    @property
    def platform(self) -> str:
        """Its name, as the catalogue writes it."""
        ...

    def declares(self) -> Declaration:
        """What it can do, what it can take back, what it reads, and the rights that it needs."""
        ...

    async def check(self, ref: TargetRef) -> tuple[RightCheck, ...]:
        """The rights that ``declares`` names, as far as they can be proven without acting. Raises as ``observe``."""
        ...

    async def resolve(self, address: WorkloadAddress) -> TargetRef:
        """Exactly one workload with its uid. Raises PermanentError (none such), TemporaryError (cannot tell now)."""
        ...

    async def observe(self, ref: TargetRef) -> TargetState:
        """The target as it is now. Raises PreconditionFailed when the uid is gone, TemporaryError when unreadable."""
        ...

    async def apply(self, ref: TargetRef, operation: Operation, intent: Intent) -> str:
        """One write, refused by the target if its generation is not ``intent.generation``. Returns what was done.

        Raises PreconditionFailed or PermanentError (refused, nothing changed), TemporaryError (surely not sent, or
        refused for now: nothing changed), OutcomeUnknown (sent, no answer).
        """
        ...

    async def calls(self, ref: TargetRef, operation: Operation, generation: str) -> tuple[str, ...]:
        """What ``apply`` would send, one line a call: method, URL, body, and what makes the target refuse it.

        Nothing is changed; the target may be read for it. Raises as ``observe`` does.
        """
        ...

    async def rehearse(self, ref: TargetRef, operation: Operation, generation: str) -> str:
        """What the platform itself says to the call when it is asked not to carry it out; empty where it has no such.

        Raises as ``apply`` does.
        """
        del ref, operation, generation
        return ""

    async def settled(self, ref: TargetRef, operation: Operation) -> bool:
        """Whether the platform has carried the operation out (all wanted replicas ready, the old one gone).

        Raises TemporaryError or PermanentError with the platform's own words where it cannot go on: they stand in the
        step's detail when its time is over.
        """
        ...

    async def find(self, ref: TargetRef, operation: Operation, intent: Intent) -> Finding:
        """What came of a dispatched operation, from the target's own record. Raises TemporaryError when unreadable."""
        ...

    def command(self, ref: TargetRef, action: Action) -> str:
        """What a person would type to do the same by hand."""
        ...

    async def close(self) -> None:
        """Releases connections."""
        ...


class Targets(Protocol):
    """All platforms that are set up."""

    def platforms(self) -> tuple[str, ...]:
        """The names of those that are set up, sorted."""
        ...

    def for_platform(self, platform: str) -> Target:
        """Raises PermanentError, naming the extra or setting that is missing."""
        ...
