"""Pipeline definitions over the wire (spec v1 §4, §6.5)."""

from collections import Counter
from typing import Any

import grpc
import pytest
from crm.pipelines.v1 import pipeline_service_pb2 as pb
from google.protobuf.json_format import MessageToDict

from services.runtime.values import struct_of
from tests.harness import at_once, failing
from tests.pipelines.conftest import Crm, changed_pipeline, new_pipeline, outcome
from tests.pipelines.drawings import checklist, deal, drawn, ending, form, kyc, notice, stage

INVALID, REFUSED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FORM_PATH = "schema.stages[0].actions[0].config.form_definition_id"


def test_a_pipeline_is_answered_as_it_was_drawn(crm: Crm) -> None:
    drawing = drawn(
        stage(
            "review",
            form(),
            checklist("papers", "passport", required=False),
            to=[("{{papers.passport}}", "done"), ("default", "done")],
        ),
        ending("done", deal(amount_var="kyc_form.amount"), notice()),
    )
    made = crm.draft(drawing, description="Who are you?", auto_enroll_contact_stage_id=3)
    assert (made.id, made.organization_id, made.name, made.description) == (1, 1, "KYC Onboarding", "Who are you?")
    assert (made.subject_type, made.version, made.status, made.created_by) == ("contact", 1, "draft", 1)
    assert made.auto_enroll_contact_stage_id == 3
    assert made.HasField("created_at")
    assert made.HasField("updated_at")
    assert not made.HasField("published_at")
    assert not made.HasField("archived_at")
    shown = MessageToDict(made.schema, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    assert shown == drawing
    assert crm.read(made.id) == made


def test_a_family_has_one_name(crm: Crm) -> None:
    crm.draft()
    expected = (grpc.StatusCode.ALREADY_EXISTS, "ErrPipelineNameTaken", ["name"])
    assert crm.failing(crm.pipelines.CreatePipeline, new_pipeline()) == expected
    assert crm.failing(crm.pipelines.CreatePipeline, new_pipeline(subject_type="deal")) == expected
    assert crm.draft(name="kyc onboarding").version == 1


def test_a_name_is_free_again_once_every_version_is_deleted(crm: Crm) -> None:
    first = crm.published()
    second = crm.fork(first.id)
    crm.archive(first.id)
    crm.delete(first.id)
    assert crm.failing(crm.pipelines.CreatePipeline, new_pipeline())[1] == "ErrPipelineNameTaken"
    crm.delete(second.id)
    assert crm.draft().version == 3  # versions only grow


def test_of_ten_families_of_one_name_at_once_one_is_made(crm: Crm) -> None:
    made = at_once([crm.draft] * 10)
    assert [each.version for each in made if not isinstance(each, Exception)] == [1]


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ({"name": ""}, ["name"]),
        ({"name": "x" * 256}, ["name"]),
        ({"subject_type": "lead"}, ["subject_type"]),
        ({"description": "x" * 10_001}, ["description"]),
        ({"auto_enroll_contact_stage_id": -1}, ["auto_enroll_contact_stage_id"]),
        ({"subject_type": "deal", "auto_enroll_contact_stage_id": 3}, ["auto_enroll_contact_stage_id"]),
    ],
)
def test_members_out_of_bounds_are_refused(crm: Crm, members: dict[str, Any], fields: list[str]) -> None:
    refused = crm.failing(crm.pipelines.CreatePipeline, new_pipeline(**members))
    assert refused == (INVALID, "INVALID_ARGUMENT", fields)


def test_a_pipeline_needs_a_schema(crm: Crm) -> None:
    request = pb.CreatePipelineRequest(name="Empty", subject_type="contact")
    assert crm.failing(crm.pipelines.CreatePipeline, request) == (INVALID, "INVALID_ARGUMENT", ["schema"])


def test_every_broken_rule_is_told_at_once_with_its_path(crm: Crm) -> None:
    drawing = drawn(
        stage("review", form(form_id=404), to=[("{{kyc_from.x}}", "gone"), ("default", "done")]), ending("done")
    )
    request = new_pipeline(drawing, subject_type="deal", auto_enroll_contact_stage_id=404)
    refused = crm.failing(crm.pipelines.CreatePipeline, request)
    expression, target = (f"schema.stages[0].branches[0].{name}" for name in ("expression", "target"))
    fields = [target, FORM_PATH, expression, "auto_enroll_contact_stage_id"]
    assert refused == (INVALID, "INVALID_ARGUMENT", fields)
    pipeline = crm.draft()
    change = changed_pipeline(pipeline.id, drawing)
    assert crm.failing(crm.pipelines.UpdatePipeline, change) == (INVALID, "INVALID_ARGUMENT", fields[:3])


def test_the_stage_that_enrols_must_exist(crm: Crm) -> None:
    expected = (NOT_FOUND, "ErrContactStageNotFound", ["auto_enroll_contact_stage_id"])
    assert crm.failing(crm.pipelines.CreatePipeline, new_pipeline(auto_enroll_contact_stage_id=404)) == expected
    change = changed_pipeline(crm.draft().id, auto_enroll_contact_stage_id=404)
    assert crm.failing(crm.pipelines.UpdatePipeline, change) == expected


def test_a_patch_changes_what_it_names(crm: Crm) -> None:
    made = crm.draft(description="old", auto_enroll_contact_stage_id=3)
    changed = crm.change(made.id, description="")
    assert (changed.description, changed.schema, changed.auto_enroll_contact_stage_id) == ("", made.schema, 3)
    assert crm.change(made.id, auto_enroll_contact_stage_id=0).auto_enroll_contact_stage_id == 0
    swapped = crm.change(made.id, kyc(approved="rejected", otherwise="done"))
    assert swapped.schema.stages[0].branches[0].target == "rejected"
    assert crm.read(made.id) == swapped


def test_a_patch_of_what_never_changes_or_of_nothing_is_refused(crm: Crm) -> None:
    made = crm.draft()
    for change, fields in (
        (changed_pipeline(made.id, name="x", subject_type="deal"), ["name", "subject_type"]),
        (changed_pipeline(made.id), ["description"]),
    ):
        assert crm.failing(crm.pipelines.UpdatePipeline, change) == (INVALID, "INVALID_ARGUMENT", fields)
    on_deals = crm.draft(name="Deals", subject_type="deal")
    change = changed_pipeline(on_deals.id, auto_enroll_contact_stage_id=3)
    refused = crm.failing(crm.pipelines.UpdatePipeline, change)
    assert refused == (INVALID, "INVALID_ARGUMENT", ["auto_enroll_contact_stage_id"])


def test_what_is_published_is_frozen(crm: Crm) -> None:
    made = crm.published()
    assert made.HasField("published_at")
    change = changed_pipeline(made.id, description="x")
    assert crm.failing(crm.pipelines.UpdatePipeline, change) == (REFUSED, "ErrPipelineNotDraft", [])
    again = pb.PublishPipelineRequest(id=made.id)
    assert crm.failing(crm.pipelines.PublishPipeline, again) == (REFUSED, "ErrPipelineNotDraft", [])


def test_a_form_must_be_published_before_the_pipeline(crm: Crm) -> None:
    made = crm.draft()
    request = pb.PublishPipelineRequest(id=made.id)
    for status in ("draft", "archived"):
        crm.forms.add(10, status=status)
        assert crm.failing(crm.pipelines.PublishPipeline, request) == (REFUSED, "ErrPipelineSchemaInvalid", [FORM_PATH])
    crm.forms.add(10, fields={"id_number": "text"})
    fields = ["schema.stages[0].branches[0].expression"]
    assert crm.failing(crm.pipelines.PublishPipeline, request) == (REFUSED, "ErrPipelineSchemaInvalid", fields)
    crm.forms.add(10)
    assert crm.publish(made.id).status == "published"


def test_actions_that_nothing_can_run_yet_are_drafted_and_not_published(crm: Crm) -> None:
    made = crm.draft(drawn(stage("welcome", deal(), notice()), ending("done")))
    fields = ["schema.stages[0].actions[0].type", "schema.stages[0].actions[1].type"]
    request = pb.PublishPipelineRequest(id=made.id)
    assert crm.failing(crm.pipelines.PublishPipeline, request) == (REFUSED, "ErrActionTypeUnavailable", fields)


def test_a_draft_that_changes_while_it_is_judged_is_not_published(crm: Crm) -> None:
    made = crm.draft()

    def interfere() -> None:
        crm.forms.meanwhile = lambda: None
        crm.change(made.id, description="meanwhile")

    crm.forms.meanwhile = interfere
    refused = crm.failing(crm.pipelines.PublishPipeline, pb.PublishPipelineRequest(id=made.id))
    assert refused == (grpc.StatusCode.ABORTED, "ABORTED", [])
    assert crm.read(made.id).status == "draft"
    assert crm.publish(made.id).description == "meanwhile"


def test_of_two_publishers_at_once_one_wins(crm: Crm) -> None:
    made = crm.draft()
    outcomes = at_once([lambda: crm.publish(made.id)] * 4)
    assert sum(not isinstance(each, Exception) for each in outcomes) == 1


def test_a_fork_is_the_next_version_of_the_family(crm: Crm) -> None:
    first = crm.published(description="one", auto_enroll_contact_stage_id=3)
    second, third = crm.fork(first.id), crm.fork(first.id)
    assert [second.version, third.version] == [2, 3]
    assert (second.status, second.description, second.schema) == ("draft", "one", first.schema)
    assert second.auto_enroll_contact_stage_id == 3
    assert not second.HasField("published_at")
    assert crm.read(first.id) == first
    crm.delete(third.id)
    assert crm.fork(first.id).version == 4
    refused = crm.failing(crm.pipelines.CreatePipelineDraft, pb.CreatePipelineDraftRequest(id=second.id))
    assert refused == (REFUSED, "ErrPipelineNotPublished", [])


def test_forks_at_once_get_versions_of_their_own(crm: Crm) -> None:
    first = crm.published()
    forks = at_once([lambda: crm.fork(first.id)] * 6)
    assert sorted(each.version for each in forks if not isinstance(each, Exception)) == [2, 3, 4, 5, 6, 7]


def test_archiving_is_for_good_and_idempotent(crm: Crm) -> None:
    draft, live = crm.draft(), crm.published(name="Another")
    for each in (draft, live):
        archived = crm.archive(each.id)
        assert (archived.status, archived.HasField("archived_at")) == ("archived", True)
        assert crm.archive(each.id) == archived
    assert live.published_at == crm.read(live.id).published_at


def test_a_version_that_was_never_enrolled_in_can_be_deleted_unless_it_is_live(crm: Crm) -> None:
    made = crm.published()
    deletion = pb.DeletePipelineRequest(id=made.id)
    assert crm.failing(crm.pipelines.DeletePipeline, deletion) == (REFUSED, "ErrPipelinePublished", [])
    crm.archive(made.id)
    assert crm.delete(made.id).HasField("data")
    for method, request in every_method_on(crm, made.id):
        assert crm.failing(method, request) == (NOT_FOUND, "ErrPipelineNotFound", [])


def test_a_version_with_runs_is_kept(crm: Crm) -> None:
    made = crm.published()
    run = crm.enrol(made.id)
    deletion = pb.DeletePipelineRequest(id=made.id)
    assert crm.failing(crm.pipelines.DeletePipeline, deletion) == (REFUSED, "ErrPipelineHasRuns", [])
    crm.cancel(run.id)
    crm.archive(made.id)
    assert crm.failing(crm.pipelines.DeletePipeline, deletion) == (REFUSED, "ErrPipelineHasRuns", [])


def every_method_on(crm: Crm, pipeline_id: int) -> list[tuple[Any, Any]]:
    return [
        (crm.pipelines.GetPipeline, pb.GetPipelineRequest(id=pipeline_id)),
        (crm.pipelines.UpdatePipeline, pb.UpdatePipelineRequest(id=pipeline_id, description="x")),
        (crm.pipelines.PublishPipeline, pb.PublishPipelineRequest(id=pipeline_id)),
        (crm.pipelines.CreatePipelineDraft, pb.CreatePipelineDraftRequest(id=pipeline_id)),
        (crm.pipelines.ArchivePipeline, pb.ArchivePipelineRequest(id=pipeline_id)),
        (crm.pipelines.DeletePipeline, pb.DeletePipelineRequest(id=pipeline_id)),
    ]


def test_another_organizations_pipeline_is_not_found(crm: Crm) -> None:
    made = crm.published()
    stranger = crm.by(crm.houses.someone(organization_id=2))
    for method, request in every_method_on(stranger, made.id):
        assert stranger.failing(method, request) == (NOT_FOUND, "ErrPipelineNotFound", [])
    assert list(stranger.find().data) == []
    assert stranger.draft().id == 1  # the same name and number, in an organisation of its own


def test_only_settings_roles_draw_pipelines(crm: Crm) -> None:
    made = crm.draft()
    agent = crm.by(crm.houses.someone("agent"))
    methods = [(crm.pipelines.CreatePipeline, new_pipeline()), *every_method_on(crm, made.id)[1:]]
    for method, request in methods:
        assert failing(method, request, agent.who).code == grpc.StatusCode.PERMISSION_DENIED
    assert agent.read(made.id) == made
    assert crm.by(crm.houses.someone("viewer")).find().data[0] == made
    assert crm.by(crm.houses.someone("sales_manager")).draft(name="Mine").created_by == 1


def test_lists_are_by_name_then_newest_version_and_can_be_filtered(crm: Crm) -> None:
    beta = crm.published(name="Beta")
    second = crm.fork(beta.id)
    alpha = crm.draft(name="Alpha", subject_type="deal")
    gone = crm.draft(name="Gone")
    crm.delete(gone.id)
    assert [each.id for each in crm.find().data] == [alpha.id, second.id, beta.id]
    assert [each.id for each in crm.find(status="draft").data] == [alpha.id, second.id]
    assert [each.id for each in crm.find(subject_type="deal").data] == [alpha.id]
    assert [each.id for each in crm.find(name="Beta", status="published").data] == [beta.id]
    assert crm.find(include_total=True, per_page=1).meta.total == 3


def test_lists_are_walked_by_page_and_by_token(crm: Crm) -> None:
    first = crm.published(name="B")
    wanted = [crm.draft(name="A").id, *reversed([first.id, *(crm.fork(first.id).id for _ in range(3))])]
    assert [crm.find(per_page=2, page=page).data[0].id for page in (1, 2, 3)] == [wanted[0], wanted[2], wanted[4]]
    walked, token = list[int](), ""
    while True:
        page = crm.find(per_page=2, page_token=token)
        walked += [each.id for each in page.data]
        token = page.meta.next_page_token
        if not page.meta.has_more:
            break
    assert walked == wanted


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        ({"status": "live"}, ["status"]),
        ({"subject_type": "lead"}, ["subject_type"]),
        ({"page": -1}, ["page"]),
        ({"page_token": "nonsense"}, ["page_token"]),
    ],
)
def test_a_list_refuses_what_it_does_not_know(crm: Crm, members: dict[str, Any], fields: list[str]) -> None:
    refused = crm.failing(crm.pipelines.ListPipelines, pb.ListPipelinesRequest(**members))
    assert refused == (INVALID, "INVALID_ARGUMENT", fields)


def test_a_repeat_under_its_key_gets_the_first_answer(crm: Crm) -> None:
    first = crm.pipelines.CreatePipeline(new_pipeline(), metadata=crm.who.metadata(idempotency_key="a"))
    again = crm.pipelines.CreatePipeline(new_pipeline(), metadata=crm.who.metadata(idempotency_key="a"))
    assert again == first
    request = pb.PublishPipelineRequest(id=first.data.id)
    published = crm.pipelines.PublishPipeline(request, metadata=crm.who.metadata(idempotency_key="b"))
    repeat = crm.pipelines.PublishPipeline(request, metadata=crm.who.metadata(idempotency_key="b"))
    assert repeat == published


def test_configs_of_any_shape_are_judged_and_never_break_the_service(crm: Crm) -> None:
    request = new_pipeline()
    action = request.schema.stages[0].actions[0]
    for config in ({"form_definition_id": [1]}, {"form_definition_id": {"a": None}}, {"form_definition_id": 1e300}):
        action.config.CopyFrom(struct_of(config))
        refused = outcome(failing(crm.pipelines.CreatePipeline, request, crm.who))
        assert refused == (INVALID, "INVALID_ARGUMENT", [FORM_PATH])
    action.type = "checklist"
    for items in ("x", [1], [{"key": 1, "title": []}], {"key": "a"}):
        action.config.CopyFrom(struct_of({"items": items}))
        code, reason, _ = outcome(failing(crm.pipelines.CreatePipeline, request, crm.who))
        assert (code, reason) == (INVALID, "INVALID_ARGUMENT")


def test_statements_per_call_stay_within_their_bounds(crm: Crm, statements: Counter[str]) -> None:
    made = crm.draft()
    crm.read(made.id)
    crm.find(include_total=True)
    crm.change(made.id, description="x")
    crm.publish(made.id)
    crm.fork(made.id)
    crm.archive(made.id)
    crm.delete(crm.draft(name="Other").id)
    del statements[""]
    assert statements == {
        "CreatePipeline": 4,  # two calls
        "GetPipeline": 1,
        "ListPipelines": 2,
        "UpdatePipeline": 3,
        "PublishPipeline": 3,
        "CreatePipelineDraft": 3,
        "ArchivePipeline": 2,
        "DeletePipeline": 4,
    }
