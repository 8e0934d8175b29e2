"""Ids that the database takes for the same are one deployment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam.callback.storage.key_rule import EXACT, KeyRule

UUID = "abcdefab-cdef-4bcd-8fab-cdefabcdefab"
RULES = [
    EXACT,
    KeyRule(ascii_case=True),
    KeyRule(case=True),
    KeyRule(case=True, width=True),
    KeyRule(case=True, accents=True, width=True),
    KeyRule(uuid=True),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name or "exact")
def test_a_uuid_in_small_letters_is_its_own_key(rule: KeyRule) -> None:
    assert rule.key(UUID) == UUID


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name or "exact")
def test_a_rule_has_a_name_to_be_kept_by(rule: KeyRule) -> None:
    assert KeyRule.named(rule.name) == rule


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name or "exact")
@given(text=st.text())
def test_a_key_is_its_own_key(rule: KeyRule, text: str) -> None:
    key = rule.key(text)
    assert rule.key(key) == key


@pytest.mark.parametrize(
    ("rule", "one", "other", "same"),
    [
        (EXACT, "aBc", "abc", False),
        (KeyRule(ascii_case=True), "aBc", "AbC", True),
        (KeyRule(ascii_case=True), "ÑAñ", "Ñañ", True),
        (KeyRule(ascii_case=True), "Ñ", "ñ", False),
        (KeyRule(case=True), "Ñ", "ñ", True),
        (KeyRule(case=True), "n", "ñ", False),
        (KeyRule(case=True, accents=True), "N", "ñ", True),
        (KeyRule(case=True, width=True), "Ａbc", "aBC", True),
        (KeyRule(uuid=True), UUID.upper(), UUID, True),
        (KeyRule(uuid=True), f"{{{UUID}}}", UUID, True),
        (KeyRule(uuid=True), UUID.replace("-", ""), UUID, True),
        (KeyRule(uuid=True), "abcd-efab-cdef-4bcd-8fab-cdef-abcd-efab", UUID, True),
        (KeyRule(uuid=True), f"{UUID}x", UUID, False),
        (KeyRule(uuid=True), f"{{{UUID}", UUID, False),
        (KeyRule(uuid=True), "a-bcdefabcdef4bcd8fabcdefabcdefab", UUID, False),
    ],
)
def test_which_ids_are_the_same(rule: KeyRule, one: str, other: str, *, same: bool) -> None:
    assert (rule.key(one) == rule.key(other)) is same
