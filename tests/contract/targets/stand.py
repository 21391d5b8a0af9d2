"""One action on one platform, with a world around it that a test can spoil: what the contract of targets is run on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from pipeline.domain.action import TargetAction
from pipeline.domain.catalogue import WorkloadAddress
from pipeline.domain.plan import TargetRef, TargetState
from pipeline.ports.targets import Target


class Stand(ABC):
    """``target`` is the adapter under test, over real HTTP or on real files; the other methods go past it."""

    target: Target
    address: WorkloadAddress

    @abstractmethod
    async def action(self, state: TargetState) -> TargetAction:
        """The action under test, as it would be planned for ``state``. One step."""

    @abstractmethod
    async def facts(self) -> object:
        """What stands at the platform, read without the adapter; two equal ones mean that nothing was changed."""

    @abstractmethod
    async def change_by_another(self) -> None:
        """Somebody who is not the bot changes what is wanted of the target."""

    @abstractmethod
    async def former(self, ref: TargetRef) -> TargetRef:
        """``ref`` after its target was recreated under the same name, or deleted where the platform knows no such.

        Where neither can be done in a test, a ref with a uid of former times.
        """

    @abstractmethod
    async def deny(self) -> None:
        """From now on the platform answers the account's writes as it does one that lacks the right."""

    @abstractmethod
    async def throttle(self) -> None:
        """The next write is refused for now, as the platform refuses too many of them."""

    @abstractmethod
    async def lose_answer(self) -> None:
        """The next write is carried out, and its answer never arrives."""

    @abstractmethod
    def another(self) -> Target:
        """A second adapter on the same platform, as after a restart of the bot; closed by the stand."""

    @abstractmethod
    def writes(self) -> int:
        """Changing requests that the platform got so far, from whomever."""

    def nowhere(self) -> WorkloadAddress:
        """An address at which there is nothing."""
        return self.address.model_copy(update={"name": "nowhere"})

    async def has_been_put_back(self, before: object) -> bool:
        """Whether, after the action was undone, ``facts`` are again what they were as far as they can be."""
        return await self.facts() == before


Opens = Callable[[], AbstractAsyncContextManager[Stand]]
