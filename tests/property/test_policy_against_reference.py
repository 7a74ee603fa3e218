"""Security groups: what the agent decides is what a plain scan over all rules and ports decides."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ondemand.goal_compile import CheckedVpc
from ondemand.verdict import Allow
from tests.support.cloud_strategies import Asked, clouds, questions
from tests.support.policy_reference import is_allowed
from tests.support.world_builder import HERE, CloudBuilder


@settings(max_examples=300)
@given(clouds(), st.lists(questions, min_size=20, max_size=40))
def test_a_verdict_is_what_a_scan_over_all_rules_says(
    cloud: CloudBuilder, asked: list[Asked]
) -> None:
    small = cloud.world()
    for vpc in cloud.vpcs:
        for spec in vpc.ports:
            if spec.host.id != HERE or not spec.port_security:
                continue
            for question in asked:
                verdict = small.judge(spec.id, question.flow)
                expected = is_allowed(vpc, spec, question.connection)
                assert isinstance(verdict, Allow) == expected, (spec, question, verdict)


@settings(max_examples=100)
@given(clouds(), st.lists(questions, min_size=20, max_size=40))
def test_the_rule_that_allows_is_one_of_the_ports_own_groups(
    cloud: CloudBuilder, asked: list[Asked]
) -> None:
    """What ``explain`` names is a rule that says so by itself."""
    small = cloud.world()
    for vpc in cloud.vpcs:
        rules = {
            f"{group.id}/{rule.id}": (group, rule) for group, rules in vpc.groups for rule in rules
        }
        for spec in vpc.ports:
            if spec.host.id != HERE or not spec.port_security:
                continue
            for question in asked:
                verdict = small.judge(spec.id, question.flow)
                if isinstance(verdict, Allow) and not isinstance(verdict.rule, str):
                    group, rule = rules[str(verdict.rule)]
                    assert group.id in spec.groups
                    alone = CheckedVpc(vpc.id, vpc.subnets, (), (), [(group, [rule])], vpc.ports)
                    assert is_allowed(alone, spec, question.connection)
