"""The walkthrough's steps that forms answers for, exactly as printed, and variants V2–V4 (spec v1 §7)."""

import grpc
from crm.forms.v1 import form_service_pb2 as pb

from services.runtime.values import plain
from tests.forms.world import ANSWERS, STATUSES, World, kyc, rows

REFUSED = grpc.StatusCode.FAILED_PRECONDITION


def test_the_kyc_form_is_made_published_and_submitted(world: World) -> None:
    f = world.definition(section="Compliance")
    contact = world.contact()

    form = world.create(kyc(f))
    assert (form.name, form.version, form.status, form.organization_id, form.created_by) == (
        "KYC Verification", 1, "draft", 1, 1,
    )  # fmt: skip
    assert [each.key for each in form.schema.fields] == ["kyc_status", "id_type", "id_number"]
    assert not form.schema.fields[0].picklist_options
    assert not form.HasField("published_at")

    assert world.refused(form.id, ANSWERS, contact_id=contact).reason == "ErrFormNotPublished"

    published = world.publish(form.id)
    assert (published.status, published.version) == ("published", 1)
    assert published.HasField("published_at")
    assert [each.value for each in published.schema.fields[0].picklist_options] == list(STATUSES)
    assert [each.label for each in published.schema.fields[0].picklist_options] == [each.title() for each in STATUSES]
    assert published.schema.fields[0].type == "picklist"

    for rpc, request in (
        ("UpdateForm", pb.UpdateFormRequest(id=form.id, description="other")),
        ("PublishForm", pb.PublishFormRequest(id=form.id)),
    ):
        failure = world.failing(rpc, request)
        assert (failure.code, failure.reason) == (REFUSED, "ErrFormNotDraft")

    world.pipelines.actions[1001] = (form.id, contact, 0)
    made = world.submit(form.id, ANSWERS, contact_id=contact, context_type="pipeline_run_action", context_id=1001)
    assert (made.form_definition_id, made.form_version, made.contact_id, made.account_id) == (form.id, 1, contact, 0)
    assert (made.context_type, made.context_id, made.submitted_by_user_id) == ("pipeline_run_action", 1001, 1)
    assert made.schema_snapshot == published.schema
    assert len(made.schema_snapshot.fields) == 3
    assert len(made.schema_snapshot.write_back) == 1
    assert plain(made.values) == ANSWERS
    assert rows(made) == [("kyc_status", "applied", None, "approved")]
    assert (made.write_back_result[0].target, made.write_back_result[0].custom_field_definition_id) == ("contact", f)

    assert world.fields_of(contact) == {"kyc_status": "approved"}
    assert world.submission(made.id) == made
    told = world.pipelines.completed
    assert [(each.action_id, each.form_submission_id, plain(each.values)) for each in told] == [
        (1001, made.id, ANSWERS)
    ]

    failure = world.refused(form.id, ANSWERS, contact_id=contact, context_type="pipeline_run_action", context_id=1001)
    assert (failure.code, failure.reason) == (REFUSED, "ErrRunActionNotPending")
    assert len(world.submissions().data) == 1

    assert world.failing("DeleteForm", pb.DeleteFormRequest(id=form.id)).reason == "ErrFormHasSubmissions"
    assert world.archive(form.id).status == "archived"
    assert world.failing("DeleteForm", pb.DeleteFormRequest(id=form.id)).reason == "ErrFormHasSubmissions"


def test_a_value_that_is_no_option_stores_nothing(world: World) -> None:
    form = world.published(kyc(world.definition()))
    contact = world.contact()
    world.pipelines.actions[7] = (form.id, contact, 0)
    failure = world.refused(
        form.id,
        {**ANSWERS, "kyc_status": "maybe"},
        contact_id=contact,
        context_type="pipeline_run_action",
        context_id=7,
    )
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["values.kyc_status"])
    assert not world.submissions().data
    assert not world.pipelines.completed
    assert world.fields_of(contact) == {}


def test_an_archived_definition_skips_the_write_back_and_completes_the_action(world: World) -> None:
    f = world.definition()
    form, contact = world.published(kyc(f)), world.contact()
    before = world.person(contact)
    world.archive_definition(f)
    world.pipelines.actions[7] = (form.id, contact, 0)
    made = world.submit(form.id, ANSWERS, contact_id=contact, context_type="pipeline_run_action", context_id=7)
    assert rows(made) == [("kyc_status", "skipped", None, None)]
    assert world.person(contact) == before
    assert [each.action_id for each in world.pipelines.completed] == [7]


def test_options_dropped_after_publish_fail_the_write_back_and_not_the_submission(world: World) -> None:
    f = world.definition()
    form, contact = world.published(kyc(f)), world.contact()
    before = world.person(contact)
    world.change_options(f, "pending", "rejected")
    made = world.submit(form.id, ANSWERS, contact_id=contact)
    assert rows(made) == [("kyc_status", "failed", None, "approved")]
    assert plain(made.values) == ANSWERS
    assert world.person(contact) == before
