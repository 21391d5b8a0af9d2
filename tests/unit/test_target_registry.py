import pytest

from executors.targets.local_process import LocalProcessTarget
from executors.targets.registry import Registry
from pipeline.domain.errors import PermanentError


async def test_a_platform_that_is_set_up_is_found() -> None:
    target = LocalProcessTarget("http://127.0.0.1:1")
    registry = Registry({"local_process": target})
    assert registry.for_platform("local_process") is target
    await registry.close()


@pytest.mark.parametrize(
    ("platform", "hint"),
    [("kubernetes", r"sre-bot\[kubernetes\]"), ("local_process", "sre-bot demo"), ("mainframe", "known are")],
)
def test_a_missing_platform_is_named_with_what_adds_it(platform: str, hint: str) -> None:
    with pytest.raises(PermanentError, match=hint):
        Registry({}).for_platform(platform)
