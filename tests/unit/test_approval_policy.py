"""Who may decide and how many: the pure rules, and the catalogue's section that they come from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bot.catalogue import CatalogueFile, load_catalogue
from pipeline.domain.approval import (
    TIERS,
    ApprovalRule,
    choose_rule,
    default_rules,
    rules_in_force,
    what_changed,
)
from pipeline.domain.errors import ConfigurationError
from pipeline.domain.plan import InstanceState, TargetState
from pipeline.domain.severity import Severity
from tests.builders import make_plan, make_target, restart, scale

FILE = """
approvals:
  - {tiers: [1], severities: [sev1, SEV2], people: 3, groups: [S0LEADS], users: [U0CTO]}
  - {severities: [sev4], people: 1, users: [U0NIGHT]}
  - {tiers: [4], people: 1}
"""


def rules_of(tmp_path: Path, text: str) -> tuple[ApprovalRule, ...]:
    path = tmp_path / "services.yaml"
    path.write_text(text)
    return rules_in_force(load_catalogue(path).approvals, default_rules(2, ["U0ALICE"], ["S0SRE"]))


@pytest.mark.parametrize("severity", Severity)
@pytest.mark.parametrize("tier", TIERS)
def test_without_a_policy_it_takes_two_where_it_is_severe(tier: int, severity: Severity) -> None:
    rule = choose_rule(default_rules(2, ["U0ALICE"], ["S0SRE"]), tier, severity)
    severe = tier == 1 or severity in (Severity.SEV1, Severity.SEV2)
    assert rule.people == (2 if severe else 1)
    assert (rule.users, rule.groups) == (("U0ALICE",), ("S0SRE",))


@pytest.mark.parametrize(
    ("tier", "severity", "people", "users", "groups"),
    [
        (1, Severity.SEV2, 3, ("U0CTO",), ("S0LEADS",)),
        (1, Severity.SEV4, 2, ("U0NIGHT",), ()),  # tier 1 takes two, whatever a rule says
        (3, Severity.SEV4, 1, ("U0NIGHT",), ()),
        (4, Severity.SEV4, 1, ("U0NIGHT",), ()),
        (4, Severity.SEV1, 2, ("U0ALICE",), ("S0SRE",)),
        (1, Severity.SEV3, 2, ("U0ALICE",), ("S0SRE",)),
        (2, Severity.SEV1, 2, ("U0ALICE",), ("S0SRE",)),
        (2, Severity.SEV3, 1, ("U0ALICE",), ("S0SRE",)),
    ],
)
def test_the_first_rule_that_covers_the_case_counts(
    tmp_path: Path, tier: int, severity: Severity, people: int, users: tuple[str, ...], groups: tuple[str, ...]
) -> None:
    rule = choose_rule(rules_of(tmp_path, FILE), tier, severity)
    assert (rule.people, rule.users, rule.groups) == (people, users, groups)


@pytest.mark.parametrize(
    ("user", "member_of", "why"),
    [
        ("U0CTO", (), ""),
        ("U0ANNA", ("S0LEADS",), ""),
        ("U0ANNA", ("S0OTHER",), "you are neither on the list nor in the user group of approvers"),
        ("", (), "you are neither on the list nor in the user group of approvers"),
    ],
)
def test_listed_people_and_members_may(user: str, member_of: tuple[str, ...], why: str) -> None:
    rule = ApprovalRule(people=1, users=("U0CTO",), groups=("S0LEADS",))
    assert rule.why_not(user, member_of) == why


def test_without_a_group_and_with_nobody_the_reason_says_so() -> None:
    assert ApprovalRule(people=1, users=("U0CTO",)).why_not("U0ANNA", ()) == "you are not on the list of approvers"
    assert default_rules()[-1].why_not("U0ANNA", ()) == "nobody is set as an approver"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {people: 0}", "approvals.0.people: input should be greater than or equal to 1"),
        ("- {people: '2'}", "approvals.0.people: input should be a valid integer"),
        ("- {people: true}", "approvals.0.people: input should be a valid integer"),
        ("- {tiers: [1]}", "approvals.0.people: field required"),
        ("- {people: 1, tiers: [5]}", "approvals.0.tiers.0: input should be less than or equal to 4"),
        ("- {people: 1, tiers: []}", "approvals.0.tiers: tuple should have at least 1 item"),
        ("- {people: 1, users: []}", "approvals.0.users: tuple should have at least 1 item"),
        ("- {people: 1, severities: [sev5]}", "approvals.0.severities.0: input should be 'SEV1', 'SEV2', 'SEV3' or"),
        ("- {people: 1, users: ['@alice']}", "approvals.0.users.0: string should match pattern"),
        ("- {people: 1, groups: [sre]}", "approvals.0.groups.0: string should match pattern"),
        ("- {people: 1, user: [U0ALICE]}", "approvals.0.user: extra inputs are not permitted"),
        ("- {people: 2, users: [U0A, U0A]}", "approvals.0: 2 people are needed and 1 may: name more users, or a group"),
        ("- {people: 1}\n  - {people: 2, tiers: [1]}", "approvals: number 2 never counts: those before it cover all"),
        ("everybody", "approvals: input should be a valid tuple"),
    ],
)
def test_a_mistake_stops_the_start_with_a_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(f"approvals:\n  {text}\n")
    with pytest.raises(ConfigurationError) as stopped:
        CatalogueFile(path)
    assert f"SRE_CATALOGUE: {path}: {said}" in str(stopped.value)


def test_an_edit_counts_at_once_and_a_mistake_leaves_the_policy_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text("approvals:\n  - {people: 1, users: [U0ALICE]}\n")
    file = CatalogueFile(path)
    for step, text in enumerate(("- {people: 2, users: [U0ALICE, U0BOB]}", "- {people: nobody}"), start=1):
        path.write_text(f"approvals:\n  {text}\n")
        os.utime(path, (step, step))
        (rule,) = file.current().approvals
        assert (rule.people, rule.users) == (2, ("U0ALICE", "U0BOB"))
    assert "approvals.0.people: input should be a valid integer" in file.problem
    assert file.problem.endswith("what was read before still counts")


LIVE = tuple(InstanceState(f"checkout-{number}", f"uid-checkout-{number}", True) for number in (1, 2, 3))
SEEN = TargetState(make_target(), "12", 3, LIVE, revision="shop/checkout:1")
PLAN = make_plan(target_revision="shop/checkout:1")


def test_what_is_as_it_was_is_no_difference() -> None:
    assert what_changed(PLAN, SEEN) == ()
    assert what_changed(make_plan(scale(3, 4)), SEEN) == (), "a plan of before had no revision"


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (replace(SEEN, replicas=5), ("replicas 3 → 5",)),
        (replace(SEEN, generation="13"), ("generation 12 → 13",)),
        (replace(SEEN, revision="shop/checkout:2"), ("revision shop/checkout:1 → shop/checkout:2",)),
        (replace(SEEN, revision=""), ("revision shop/checkout:1 → unknown",)),
        (replace(SEEN, instances=LIVE[1:]), ("checkout-1 running → replaced",)),
        (replace(SEEN, ref=make_target(uid="another")), ("the workload was recreated",)),
        (replace(SEEN, replicas=4, generation="13"), ("replicas 3 → 4", "generation 12 → 13")),
    ],
)
def test_every_difference_is_told_before_and_after(seen: TargetState, said: tuple[str, ...]) -> None:
    assert what_changed(make_plan(restart("checkout-1"), target_revision="shop/checkout:1"), seen) == said
