"""Accounts over the wire (spec v1 §8.3)."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
from crm.contacts.v1 import account_service_pb2 as pb
from grpc import StatusCode

from tests.contacts.conftest import Crm, outcome
from tests.contacts.neighbours import Identity
from tests.harness import Failure, at_once, failing

CYCLE = (StatusCode.INVALID_ARGUMENT, "ErrAccountCycle", ["parent_account_id"])


def chain(crm: Crm, length: int) -> list[int]:
    """Accounts each below the one before."""
    ids = [0]
    for _ in range(length):
        ids.append(crm.account(parent_account_id=ids[-1]).id)
    return ids[1:]


def move(crm: Crm, account_id: int, parent_account_id: int) -> Failure:
    return crm.refusal(pb.UpdateAccountRequest(id=account_id, parent_account_id=parent_account_id))


def test_an_account_is_answered_as_it_was_given(crm: Crm, identity: Identity) -> None:
    top = crm.account(name="Acme Holding")
    made = crm.account(name="Acme", parent_account_id=top.id, owner_id=2)
    assert (made.id, made.organization_id, made.created_by) == (2, 1, 1)
    assert (made.name, made.parent_account_id, made.owner_id) == ("Acme", top.id, 2)
    assert made.HasField("custom_fields")
    assert made.updated_at == made.created_at
    assert crm.read_account(made.id) == made
    assert (top.parent_account_id, top.owner_id) == (0, 1)


@pytest.mark.parametrize(
    ("members", "field"), [({"name": ""}, "name"), ({"name": "x" * 256}, "name"), ({"owner_id": -1}, "owner_id")]
)
def test_bad_members_are_refused(crm: Crm, members: dict[str, Any], field: str) -> None:
    expected = (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", [field])
    assert outcome(crm.refusal(pb.CreateAccountRequest(**{"name": "Acme", **members}))) == expected
    made = crm.account()
    assert outcome(crm.refusal(pb.UpdateAccountRequest(id=made.id, **members))) == expected


@pytest.mark.parametrize(
    ("members", "reason"),
    [({"parent_account_id": 9}, "ErrParentAccountNotFound"), ({"owner_id": 99}, "ErrOwnerNotFound")],
)
def test_an_account_names_only_what_exists(crm: Crm, identity: Identity, members: dict[str, Any], reason: str) -> None:
    expected = (StatusCode.NOT_FOUND, reason, list(members))
    assert outcome(crm.refusal(pb.CreateAccountRequest(name="Acme", **members))) == expected
    made = crm.account()
    assert outcome(crm.refusal(pb.UpdateAccountRequest(id=made.id, **members))) == expected


def test_an_account_comes_below_no_deleted_one_but_stays_below_it(crm: Crm) -> None:
    top, below = chain(crm, 2)
    other = crm.account().id
    crm.delete_account(top)
    assert crm.read_account(below).parent_account_id == top
    assert crm.change_account(below, parent_account_id=top, name="Still").name == "Still"
    assert crm.refusal(pb.CreateAccountRequest(name="Acme", parent_account_id=top)).reason == "ErrParentAccountNotFound"
    assert move(crm, other, top).reason == "ErrParentAccountNotFound"


def test_a_patch_keeps_what_it_leaves_out_and_clears_what_it_empties(crm: Crm) -> None:
    top, below = chain(crm, 2)
    changed = crm.change_account(below, name="Acme II")
    assert (changed.name, changed.parent_account_id, changed.owner_id) == ("Acme II", top, 1)
    cleared = crm.change_account(below, parent_account_id=0, owner_id=0)
    assert (cleared.name, cleared.parent_account_id, cleared.owner_id) == ("Acme II", 0, 0)
    assert crm.read_account(below) == cleared
    failure = crm.refusal(pb.UpdateAccountRequest(id=below))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


def test_an_account_never_stands_below_itself(crm: Crm) -> None:
    top, middle, bottom = chain(crm, 3)
    assert outcome(move(crm, top, top)) == CYCLE
    assert outcome(move(crm, top, middle)) == CYCLE
    assert outcome(move(crm, top, bottom)) == CYCLE
    crm.delete_account(middle)
    assert outcome(move(crm, top, bottom)) == CYCLE
    assert crm.change_account(bottom, parent_account_id=top).parent_account_id == top


def test_accounts_moved_below_one_another_at_once_make_no_cycle(crm: Crm) -> None:
    for _ in range(5):
        ring = [crm.account().id for _ in range(4)]
        moves = zip(ring, ring[1:] + ring[:1], strict=True)
        outcomes = at_once([partial(crm.change_account, each, parent_account_id=parent) for each, parent in moves])
        refused = [Failure(each) for each in outcomes if isinstance(each, Exception)]  # type: ignore[arg-type]
        assert [outcome(each) for each in refused] == [CYCLE]


def test_branches_moved_below_one_anothers_leaves_at_once_make_no_cycle(crm: Crm) -> None:
    for _ in range(5):
        (left, left_leaf), (right, right_leaf) = chain(crm, 2), chain(crm, 2)
        outcomes = at_once(
            [
                partial(crm.change_account, left, parent_account_id=right_leaf),
                partial(crm.change_account, right, parent_account_id=left_leaf),
                partial(crm.change_account, left, name="busy"),
                partial(crm.change_account, right_leaf, name="busy"),
            ]
        )
        refused = [Failure(each) for each in outcomes if isinstance(each, Exception)]  # type: ignore[arg-type]
        assert [outcome(each) for each in refused] == [CYCLE]


def test_an_unknown_account_is_not_found(crm: Crm) -> None:
    for request in (
        pb.GetAccountRequest(id=7),
        pb.UpdateAccountRequest(id=7, name="Acme"),
        pb.DeleteAccountRequest(id=7),
    ):
        assert outcome(crm.refusal(request)) == (StatusCode.NOT_FOUND, "ErrAccountNotFound", [])


def test_a_deleted_account_is_gone_for_everyone(crm: Crm) -> None:
    made = crm.account()
    assert crm.delete_account(made.id).HasField("data")
    for request in (
        pb.GetAccountRequest(id=made.id),
        pb.UpdateAccountRequest(id=made.id, name="Acme"),
        pb.DeleteAccountRequest(id=made.id),
    ):
        assert outcome(crm.refusal(request)) == (StatusCode.NOT_FOUND, "ErrAccountNotFound", [])


def test_a_viewer_reads_and_does_not_write(crm: Crm) -> None:
    made = crm.account(owner_id=0)
    viewer = crm.by(crm.houses.someone("viewer", user_id=3))
    assert viewer.read_account(made.id) == made
    for request in (
        pb.CreateAccountRequest(name="Acme"),
        pb.UpdateAccountRequest(id=made.id, name="Acme"),
        pb.DeleteAccountRequest(id=made.id),
    ):
        assert outcome(viewer.refusal(request)) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", [])


def test_an_agent_writes_to_own_and_ownerless_accounts_only(agent: Crm, crm: Crm) -> None:
    others = crm.account()
    for request in (pb.UpdateAccountRequest(id=others.id, name="Mine"), pb.DeleteAccountRequest(id=others.id)):
        assert outcome(agent.refusal(request)) == (StatusCode.PERMISSION_DENIED, "ErrNotYourRecord", [])
    assert crm.read_account(others.id) == others
    own, ownerless = agent.account(), crm.account(owner_id=0)
    assert own.owner_id == 2
    assert agent.change_account(own.id, name="Mine").name == "Mine"
    agent.delete_account(ownerless.id)
    boss = crm.by(crm.houses.someone("supervisor", user_id=3))
    boss.delete_account(own.id)


def test_an_idempotency_key_makes_one_account(crm: Crm) -> None:
    metadata = crm.who.metadata(idempotency_key="once")
    request = pb.CreateAccountRequest(name="Acme")
    first = crm.accounts.CreateAccount(request, metadata=metadata)
    assert crm.accounts.CreateAccount(request, metadata=metadata) == first
    failure = failing(
        crm.accounts.CreateAccount, pb.CreateAccountRequest(name="Other"), crm.who, idempotency_key="once"
    )
    assert failure.reason == "ErrIdempotencyKeyReused"


def test_no_call_runs_more_statements_than_its_kind_may(crm: Crm, statements: Counter[str]) -> None:
    top, below = chain(crm, 2)
    other = crm.account().id
    crm.change_account(below, parent_account_id=other)
    crm.read_account(top)
    crm.delete_account(top)
    assert statements == {"CreateAccount": 4, "UpdateAccount": 4, "GetAccount": 1, "DeleteAccount": 2}
