"""What other services ask: whether a caller may write to records (spec v1 D12)."""

from collections import Counter

import pytest
from crm.contacts.v1 import record_service_pb2 as pb
from grpc import StatusCode

from tests.contacts.conftest import Crm, Outcome, outcome

NOT_YOURS: Outcome = (StatusCode.PERMISSION_DENIED, "ErrNotYourRecord", [])


def may(crm: Crm, *, contact_id: int = 0, account_id: int = 0) -> bool:
    request = pb.CheckWriteAccessRequest(contact_id=contact_id, account_id=account_id)
    crm.records.CheckWriteAccess(request, metadata=crm.who.metadata())
    return True


def test_an_owner_may_write(agent: Crm, crm: Crm) -> None:
    contact, account = agent.contact().id, agent.account().id
    assert may(agent, contact_id=contact)
    assert may(agent, account_id=account)
    assert may(agent, contact_id=contact, account_id=account)
    assert may(agent, contact_id=crm.contact(owner_id=0).id)
    assert may(agent)


def test_both_records_must_be_the_callers(agent: Crm, crm: Crm) -> None:
    own, others = agent.contact().id, crm.contact().id
    own_account, others_account = agent.account().id, crm.account().id
    for contact_id, account_id in ((others, 0), (0, others_account), (own, others_account), (others, own_account)):
        request = pb.CheckWriteAccessRequest(contact_id=contact_id, account_id=account_id)
        assert outcome(agent.refusal(request)) == NOT_YOURS


@pytest.mark.parametrize("role", ["super_admin", "admin", "sales_manager", "supervisor"])
def test_settings_roles_and_supervisors_may_always(agent: Crm, role: str) -> None:
    boss = agent.by(agent.houses.someone(role, user_id=3))
    assert may(boss, contact_id=agent.contact().id, account_id=agent.account().id)


def test_a_service_may_always(agent: Crm) -> None:
    assert may(agent.by(agent.houses.service()), contact_id=agent.contact().id)


def test_a_viewer_may_never(crm: Crm) -> None:
    viewer = crm.by(crm.houses.someone("viewer", user_id=3))
    request = pb.CheckWriteAccessRequest(contact_id=crm.contact(owner_id=0).id)
    assert outcome(viewer.refusal(request)) == NOT_YOURS


def test_both_records_must_exist(crm: Crm, stranger: Crm) -> None:
    contact, account, theirs = crm.contact().id, crm.account().id, stranger.contact().id + 1
    crm.delete(deleted := crm.contact().id)
    for contact_id in (99, deleted, theirs):
        request = pb.CheckWriteAccessRequest(contact_id=contact_id, account_id=account)
        assert outcome(crm.refusal(request)) == (StatusCode.NOT_FOUND, "ErrContactNotFound", ["contact_id"])
    request = pb.CheckWriteAccessRequest(contact_id=contact, account_id=99)
    assert outcome(crm.refusal(request)) == (StatusCode.NOT_FOUND, "ErrAccountNotFound", ["account_id"])


def test_existence_comes_before_permission(agent: Crm, crm: Crm) -> None:
    request = pb.CheckWriteAccessRequest(contact_id=crm.contact().id, account_id=99)
    assert agent.refusal(request).reason == "ErrAccountNotFound"


def test_the_question_is_one_statement(crm: Crm, statements: Counter[str]) -> None:
    contact, account = crm.contact().id, crm.account().id
    may(crm, contact_id=contact, account_id=account)
    assert statements["CheckWriteAccess"] == 1
