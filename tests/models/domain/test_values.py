import pytest
from pydantic import ValidationError

from models.domain.risk import RiskLevel
from models.domain.work_item import FINAL, OPEN, AssistantRecord, WorkItemFacts, WorkItemStatus


def test_levels_are_ordered():
    assert sorted([RiskLevel.L5, RiskLevel.L0, RiskLevel.L3]) == [RiskLevel.L0, RiskLevel.L3, RiskLevel.L5]
    assert max(RiskLevel.L1, RiskLevel.L4, RiskLevel.L3) is RiskLevel.L4
    assert RiskLevel.L2 >= RiskLevel.L2 > RiskLevel.L1
    assert [level for level in RiskLevel if level.needs_approval] == list(RiskLevel)[2:]
    assert [level for level in RiskLevel if level.holding_only] == list(RiskLevel)[4:]


def test_a_level_is_not_compared_with_any_text():
    with pytest.raises(ValueError):
        _ = RiskLevel.L1 < "high"


def test_final_and_open_share_out_all_states():
    assert len(FINAL) == 6
    assert set(WorkItemStatus) == FINAL | OPEN
    assert all(status.is_final == (status not in OPEN) for status in WorkItemStatus)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "Drop Table"},
        {"data_class": "secret"},
        {"amount_nano_usd": -1},
        {"amount_nano_usd": 1.5},
        {"amount_nano_usd": 2**63},
        {"tools": ["x"] * 3 + ["no spaces please"]},
        {"surprise": 1},
    ],
)
def test_facts_are_strict(wrong: dict[str, object]):
    right = {"kind": "read", "data_class": "public"}
    WorkItemFacts.model_validate(right)
    with pytest.raises(ValidationError):
        WorkItemFacts.model_validate({**right, **wrong})


def test_a_record_does_not_fail_more_often_than_it_runs():
    with pytest.raises(ValidationError, match="failed"):
        AssistantRecord(runs=1, failed=2)
