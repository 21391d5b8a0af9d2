"""The closed list of actions, and the hash an approval is bound to."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pipeline.domain.action import (
    Action,
    InstanceRef,
    ManualAction,
    RestartAction,
    RestartInstance,
    ScaleAction,
    ScaleTo,
    is_reversible,
    operations,
)
from pipeline.domain.action_words import describe_action
from pipeline.domain.ids import IncidentId
from pipeline.domain.plan import InstanceState, TargetRef, TargetState, plan_hash
from tests.builders import make_target, manual, restart, scale

ACTION: TypeAdapter[Action] = TypeAdapter(Action)
HOSTILE_NAMES = [
    "",
    " ",
    "*",
    "checkout-*",
    "app=checkout",
    "app in (a,b)",
    "--all",
    "-checkout",
    "checkout-",
    "checkout 1",
    "checkout\n",
    "\ncheckout",
    "checkout\x00",
    "../checkout",
    "shop/checkout",
    "checkout;rm -rf",
    "$(id)",
    "сheckout",
    "checkout\u200b",
    "ｃheckout",
    "x" * 254,
]
HOSTILE_COUNTS = ["-1", "0", "1001", "1e9", "4.0", "4.5", "true", "null", '"4"', "[4]", "NaN", "Infinity", str(10**40)]


def instance(name: str = "checkout-1", uid: str = "u1") -> InstanceRef:
    return InstanceRef(name=name, uid=uid)


def variants() -> Iterator[str]:
    """The hash of a plan, and then with each part changed in turn."""
    target = make_target()
    yield plan_hash(IncidentId(1), 1, scale(2, 4), target, "12")
    yield plan_hash(IncidentId(2), 1, scale(2, 4), target, "12")
    yield plan_hash(IncidentId(1), 2, scale(2, 4), target, "12")
    yield plan_hash(IncidentId(1), 1, scale(2, 5), target, "12")
    yield plan_hash(IncidentId(1), 1, scale(3, 4), target, "12")
    yield plan_hash(IncidentId(1), 1, scale(2, 4), target, "13")
    yield plan_hash(IncidentId(1), 1, scale(2, 4), None, "12")
    for changes in (
        {"uid": "uid-other"},
        {"name": "payments"},
        {"namespace": "prod"},
        {"platform": "local_process"},
    ):
        yield plan_hash(IncidentId(1), 1, scale(2, 4), make_target(**changes), "12")
    for instances in (
        (instance(),),
        (instance(uid="u2"),),
        (instance("checkout-2"),),
        (instance(), instance("b", "u2")),
    ):
        yield plan_hash(IncidentId(1), 1, RestartAction(instances=instances), target, "12")
    for command, why in (("a", "b"), ("a", "c"), ("c", "b"), ("ab", "b")):
        yield plan_hash(IncidentId(1), 1, ManualAction(command=command, why_manual=why), target, "12")


def test_the_hash_binds_every_part() -> None:
    hashes = list(variants())
    assert len(set(hashes)) == len(hashes)
    assert list(variants()) == hashes
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in hashes)


PART = st.tuples(st.integers(0, 20), st.integers(0, 20), st.text(max_size=6), st.text(min_size=1, max_size=6))


@given(PART, PART)
def test_no_part_can_be_passed_off_as_another(one: tuple[int, int, str, str], other: tuple[int, int, str, str]) -> None:
    def hashed(incident: int, revision: int, generation: str, uid: str) -> str:
        return plan_hash(IncidentId(incident), revision, scale(), make_target(uid=uid), generation)

    assert (hashed(*one) == hashed(*other)) == (one == other)


def test_a_stored_action_and_target_hash_the_same() -> None:
    for action in (restart("checkout-1", "checkout-2"), scale(), manual()):
        again = ACTION.validate_json(ACTION.dump_json(action))
        target = TargetRef.model_validate_json(make_target().model_dump_json())
        assert plan_hash(IncidentId(1), 1, again, target, "12") == plan_hash(
            IncidentId(1), 1, action, make_target(), "12"
        )


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("field", ["name", "namespace"])
def test_a_target_has_one_plain_name(name: str, field: str) -> None:
    with pytest.raises(ValidationError):
        make_target(**{field: name})
    with pytest.raises(ValidationError):
        instance(name)


@pytest.mark.parametrize("name", ["a", "checkout", "checkout-7f9c4d-x2x", "Check_out.1", "9", "x" * 253])
def test_plain_names_pass(name: str) -> None:
    assert make_target(name=name).name == instance(name).name == name


@pytest.mark.parametrize("changes", [{"uid": ""}, {"uid": "u" * 257}, {"platform": "ssh"}, {"selector": "app=web"}])
def test_a_target_is_on_a_known_platform_with_a_uid_and_nothing_else(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        make_target(**changes)


@pytest.mark.parametrize("count", HOSTILE_COUNTS)
@pytest.mark.parametrize("field", ["from_replicas", "to_replicas"])
def test_replicas_are_a_count_and_nothing_is_made_into_one(count: str, field: str) -> None:
    fields = {"from_replicas": "2", "to_replicas": "4", field: count}
    text = ", ".join(f'"{name}": {value}' for name, value in fields.items())
    with pytest.raises(ValidationError):
        ACTION.validate_json(f'{{"kind": "scale", {text}}}')


@pytest.mark.parametrize("count", [4.0, 4.5, -1, 0, 1001, True, "4", None, float("nan"), float("inf")])
def test_nor_inside_the_process(count: Any) -> None:
    with pytest.raises(ValidationError):
        ScaleAction(from_replicas=2, to_replicas=count)
    with pytest.raises(ValidationError):
        ScaleAction(from_replicas=count, to_replicas=2)
    with pytest.raises(ValidationError):
        ScaleTo(replicas=count)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "null",
        '"restart"',
        '{"kind": "delete", "name": "checkout"}',
        '{"kind": "SCALE", "from_replicas": 2, "to_replicas": 4}',
        '{"kind": ["scale"], "from_replicas": 2, "to_replicas": 4}',
        '{"from_replicas": 2, "to_replicas": 4}',
        '{"kind": "scale", "to_replicas": 4}',
        '{"kind": "scale", "from_replicas": 2, "to_replicas": 4, "namespace": "prod"}',
        '{"kind": "scale", "kind": "restart", "from_replicas": 2, "to_replicas": 4}',
        '{"kind": "restart", "instances": []}',
        '{"kind": "restart", "instances": "checkout-1"}',
        '{"kind": "restart", "instances": {"name": "checkout-1", "uid": "u1"}}',
        '{"kind": "restart", "instances": ["checkout-1"]}',
        '{"kind": "restart", "instances": [{"name": "checkout-1"}]}',
        '{"kind": "restart", "instances": [{"name": "checkout-1", "uid": ""}]}',
        '{"kind": "restart", "instances": [{"name": "checkout-1", "uid": 7}]}',
        '{"kind": "restart", "instances": [{"name": 1, "uid": "u1"}]}',
        '{"kind": "restart", "instances": [{"name": "a", "uid": "u", "force": true}]}',
        '{"kind": "manual", "command": "", "why_manual": "x"}',
        '{"kind": "manual", "command": "x"}',
    ],
)
def test_what_is_not_on_the_list_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        ACTION.validate_json(text)


def test_more_than_fifty_replicas_are_not_restarted_by_one_plan() -> None:
    assert len(restart(*(f"c-{number}" for number in range(50))).instances) == 50
    with pytest.raises(ValidationError):
        restart(*(f"c-{number}" for number in range(51)))


def test_an_approved_action_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(scale(), "to_replicas", 400)  # noqa: B010 - mypy knows that it is read-only
    with pytest.raises(ValidationError, match="frozen"):
        setattr(make_target(), "uid", "other")  # noqa: B010 - mypy knows that it is read-only


def test_physical_steps_are_one_a_replica_in_order_and_absolute() -> None:
    steps = operations(restart("checkout-2", "checkout-1"))
    assert steps == tuple(RestartInstance(instance=instance(f"checkout-{n}", f"uid-checkout-{n}")) for n in (2, 1))
    assert operations(scale(2, 4)) == (ScaleTo(replicas=4),)
    assert operations(manual()) == ()


def test_an_action_in_words() -> None:
    assert describe_action(restart("checkout-1")) == "Restart checkout-1"
    assert describe_action(restart("a", "b")) == "Restart a, b, one replica first"
    assert describe_action(scale(2, 4)) == "Scale from 2 to 4 replicas"
    assert describe_action(manual()) == "By hand"
    assert make_target().describe() == "shop/checkout"


def test_only_scaling_can_be_put_back() -> None:
    assert [is_reversible(action) for action in (scale(), restart("a"), manual())] == [True, False, False]


def test_ready_counts_the_ready() -> None:
    live = (InstanceState("a", "1", True), InstanceState("b", "2", False))
    assert TargetState(make_target(), "1", 3, live).ready == 1


def test_a_replica_is_restarted_once() -> None:
    with pytest.raises(ValidationError, match="named twice"):
        restart("checkout-1", "checkout-1")
    with pytest.raises(ValidationError, match="named twice"):
        RestartAction(instances=(instance("checkout-1"), instance("checkout-2")))
    same_name = RestartAction(instances=(instance(uid="u1"), instance(uid="u2")))
    assert len(same_name.instances) == 2
