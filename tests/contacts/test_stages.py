"""Contact stages over the wire (spec v1 §8.2)."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from crm.contacts.v1 import contact_service_pb2 as pb
from crm.contacts.v1 import contact_stage_pb2, record_service_pb2
from grpc import StatusCode

from tests.contacts.conftest import Crm, Outcome, outcome
from tests.harness import at_once

SEEDED = ["new", "qualified", "engaged", "proposal", "converted", "lost", "inactive"]
UNKNOWN: Outcome = (StatusCode.NOT_FOUND, "ErrContactStageNotFound", [])


def placed(crm: Crm, **places: int) -> list[str]:
    """Names of all stages after moving some."""
    known = crm.stages()
    stages = [pb.ContactStagePlacement(id=known[name].id, sort_order=place) for name, place in places.items()]
    request = pb.ReorderContactStagesRequest(stages=stages)
    return [each.name for each in crm.contacts.ReorderContactStages(request, metadata=crm.who.metadata()).data]


def changed(crm: Crm, stage_id: int, **members: Any) -> contact_stage_pb2.ContactStage:
    request = pb.UpdateContactStageRequest(id=stage_id, **members)
    return crm.contacts.UpdateContactStage(request, metadata=crm.who.metadata()).data


def deleted(crm: Crm, stage_id: int) -> pb.DeleteContactStageResponse:
    request = pb.DeleteContactStageRequest(id=stage_id)
    return crm.contacts.DeleteContactStage(request, metadata=crm.who.metadata())


def test_a_new_organization_has_seven_stages_and_the_next_is_the_eighth(crm: Crm) -> None:
    crm.seed()
    assert [(each.id, each.name, each.sort_order) for each in crm.stages().values()] == [
        (number, name, number) for number, name in enumerate(SEEDED, 1)
    ]
    made = crm.stage("churned")
    assert (made.id, made.sort_order) == (8, 8)


def test_seeding_again_changes_nothing(crm: Crm) -> None:
    crm.seed()
    deleted(crm, 7)
    changed(crm, 1, name="fresh")
    before = crm.stages()
    crm.seed()
    assert crm.stages() == before


def test_seeding_at_once_gives_the_seven_once(crm: Crm) -> None:
    assert at_once([crm.seed] * 5) == [None] * 5
    assert [each.id for each in crm.stages().values()] == list(range(1, 8))


def test_only_services_seed(crm: Crm) -> None:
    failure = crm.refusal(record_service_pb2.SeedOrganizationRequest())
    assert outcome(failure) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", [])


def test_a_stage_is_answered_as_it_was_given(crm: Crm) -> None:
    made = crm.stage("new", description="Just in", sort_order=-5)
    assert (made.id, made.name, made.description, made.sort_order) == (1, "new", "Just in", -5)
    request = pb.GetContactStageRequest(id=1)
    assert crm.contacts.GetContactStage(request, metadata=crm.who.metadata()).data == made


def test_a_stage_without_a_place_goes_last(crm: Crm) -> None:
    assert crm.stage("first").sort_order == 1
    crm.stage("far", sort_order=2**31 - 1)
    assert crm.stage("farther").sort_order == 2**31 - 1
    assert list(crm.stages()) == ["first", "far", "farther"]


@pytest.mark.parametrize(
    ("members", "field"),
    [({"name": ""}, "name"), ({"name": "x" * 101}, "name"), ({"description": "x" * 1001}, "description")],
)
def test_bad_members_are_refused(crm: Crm, members: dict[str, Any], field: str) -> None:
    expected = (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", [field])
    assert outcome(crm.refusal(pb.CreateContactStageRequest(**{"name": "new", **members}))) == expected
    crm.stage("new")
    assert outcome(crm.refusal(pb.UpdateContactStageRequest(id=1, **members))) == expected


def test_a_name_stands_once_in_an_organization(crm: Crm, stranger: Crm) -> None:
    taken = (StatusCode.ALREADY_EXISTS, "ErrContactStageNameTaken", ["name"])
    crm.stage("new")
    second = crm.stage("next")
    assert outcome(crm.refusal(pb.CreateContactStageRequest(name="new"))) == taken
    assert outcome(crm.refusal(pb.UpdateContactStageRequest(id=second.id, name="new"))) == taken
    assert changed(crm, second.id, name="next") == second
    assert stranger.stage("new").id == 1


def test_a_patch_keeps_what_it_leaves_out_and_clears_what_it_empties(crm: Crm) -> None:
    made = crm.stage("new", description="Just in", sort_order=3)
    assert changed(crm, made.id, name="fresh").description == "Just in"
    assert changed(crm, made.id, description="").description == ""
    assert changed(crm, made.id, sort_order=0).sort_order == 0
    assert crm.stages()["fresh"].sort_order == 0
    failure = crm.refusal(pb.UpdateContactStageRequest(id=made.id))
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


def test_an_unknown_stage_is_not_found(crm: Crm) -> None:
    for request in (
        pb.GetContactStageRequest(id=7),
        pb.UpdateContactStageRequest(id=7, name="new"),
        pb.DeleteContactStageRequest(id=7),
    ):
        assert outcome(crm.refusal(request)) == UNKNOWN


def test_a_deleted_stage_is_gone_and_its_name_is_free(crm: Crm) -> None:
    made = crm.stage("new")
    assert deleted(crm, made.id).HasField("data")
    assert outcome(crm.refusal(pb.GetContactStageRequest(id=made.id))) == UNKNOWN
    assert crm.stage("new").id == made.id + 1


def test_a_stage_that_a_contact_stands_on_stays(crm: Crm) -> None:
    stage = crm.stage("new").id
    contact = crm.contact(contact_stage_id=stage)
    failure = crm.refusal(pb.DeleteContactStageRequest(id=stage))
    assert outcome(failure) == (StatusCode.FAILED_PRECONDITION, "ErrContactStageInUse", [])
    crm.change(contact.id, contact_stage_id=0)
    deleted(crm, stage)


def test_a_deleted_contact_keeps_no_stage_in_use(crm: Crm) -> None:
    stage = crm.stage("new").id
    crm.delete(crm.contact(contact_stage_id=stage).id)
    deleted(crm, stage)


def test_a_stage_is_deleted_or_moved_to_but_never_both(crm: Crm) -> None:
    contact = crm.contact().id
    for round_ in range(10):
        stage = crm.stage(f"stage {round_}").id
        calls: list[Callable[[], Any]] = [
            partial(crm.change, contact, contact_stage_id=stage),
            partial(deleted, crm, stage),
        ]
        moved, gone = at_once(calls)
        assert isinstance(moved, Exception) != isinstance(gone, Exception), (moved, gone)
        stands_on = crm.read(contact).contact_stage_id
        assert (stands_on == stage) == isinstance(gone, Exception)


def test_reordering_answers_all_stages_in_their_new_order(crm: Crm) -> None:
    crm.seed()
    assert placed(crm, inactive=0, new=4) == [
        "inactive", "qualified", "engaged", "new", "proposal", "converted", "lost",
    ]  # fmt: skip
    assert list(crm.stages()) == ["inactive", "qualified", "engaged", "new", "proposal", "converted", "lost"]


def test_reordering_is_all_or_nothing(crm: Crm) -> None:
    crm.seed()
    stages = [pb.ContactStagePlacement(id=each, sort_order=-each) for each in (1, 99, 2)]
    failure = crm.refusal(pb.ReorderContactStagesRequest(stages=stages))
    assert outcome(failure) == (StatusCode.NOT_FOUND, "ErrContactStageNotFound", ["stages[1].id"])
    assert list(crm.stages()) == SEEDED


def test_a_bad_reordering_is_refused(crm: Crm) -> None:
    crm.seed()
    twice = [pb.ContactStagePlacement(id=each, sort_order=1) for each in (1, 2, 1)]
    for stages, field in (([], "stages"), (twice, "stages[2].id")):
        failure = crm.refusal(pb.ReorderContactStagesRequest(stages=stages))
        assert outcome(failure) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", [field])


def test_reorderings_at_once_follow_one_another(crm: Crm) -> None:
    crm.seed()
    names = list(crm.stages())
    forwards = dict(zip(names, range(7), strict=True))
    backwards = dict(zip(reversed(names), range(7), strict=True))
    outcomes = at_once([partial(placed, crm, **each) for each in [forwards, backwards] * 5])
    assert not [each for each in outcomes if isinstance(each, Exception)]
    assert list(crm.stages()) in (names, names[::-1])


@pytest.mark.parametrize("role", ["supervisor", "agent", "viewer"])
def test_only_settings_roles_change_stages(crm: Crm, role: str) -> None:
    stage = crm.stage("new")
    user = crm.by(crm.houses.someone(role, user_id=2))
    for request in (
        pb.CreateContactStageRequest(name="next"),
        pb.UpdateContactStageRequest(id=stage.id, name="next"),
        pb.DeleteContactStageRequest(id=stage.id),
        pb.ReorderContactStagesRequest(stages=[pb.ContactStagePlacement(id=stage.id, sort_order=1)]),
    ):
        assert outcome(user.refusal(request)) == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", [])
    assert user.stages() == {"new": stage}


def test_stages_are_read_many_at_once(crm: Crm) -> None:
    crm.seed()
    request = record_service_pb2.BatchGetContactStagesRequest(ids=[5, 99, 2, 5])
    answer = crm.records.BatchGetContactStages(request, metadata=crm.who.metadata())
    assert [each.name for each in answer.stages] == ["qualified", "converted"]
    too_many = record_service_pb2.BatchGetContactStagesRequest(ids=range(501))
    assert outcome(crm.refusal(too_many)) == (StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", ["ids"])


def test_no_call_runs_more_statements_than_its_kind_may(crm: Crm, statements: Counter[str]) -> None:
    crm.seed()
    crm.stage("next")
    changed(crm, 8, name="last")
    placed(crm, new=7)
    deleted(crm, 8)
    del statements["ListContactStages"]
    assert statements == {
        "SeedOrganization": 2,
        "CreateContactStage": 2,
        "UpdateContactStage": 1,
        "ReorderContactStages": 2,
        "DeleteContactStage": 1,
    }
