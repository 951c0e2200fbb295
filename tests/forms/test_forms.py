"""Forms and their versions over the wire: every answer and every failure the contract names (spec v1 §2, §6.2)."""

from typing import Any

import grpc
import pytest
from crm.forms.v1 import form_catalog_service_pb2 as catalog_pb
from crm.forms.v1 import form_pb2
from crm.forms.v1 import form_service_pb2 as pb

from services.forms.clients import Fields
from services.runtime.values import plain
from tests.forms.world import World, entry, inline, kyc, options, reference, schema, statements

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
REFUSED = grpc.StatusCode.FAILED_PRECONDITION
FORBIDDEN = grpc.StatusCode.PERMISSION_DENIED

NOTE = schema(inline("note"))


# Creating


def test_a_form_is_answered_as_it_was_asked_for(world: World) -> None:
    asked = schema(
        {"key": "about", "kind": "section_header", "label": "About you"},
        inline("tags", "multiselect", picklist_options=options("a", "b"), required=True),
        inline("scan", "file_upload", validation={"max_files": 2, "allowed_mime": ["image/*"]}),
        inline("score", "rating", validation={"min": 0, "max": 10}),
    )
    made = world.create(asked, "Intake", description="For new people")
    assert (made.id, made.name, made.description, made.version, made.status) == (
        1, "Intake", "For new people", 1, "draft",
    )  # fmt: skip
    assert made.created_at == made.updated_at
    assert not made.HasField("published_at")
    assert not made.HasField("archived_at")
    about, tags, scan, score = made.schema.fields
    assert (about.kind, about.label, tags.type, tags.required) == (
        "section_header",
        "About you",
        "multi_picklist",
        True,
    )
    assert plain(scan.validation) == {"max_files": 2, "allowed_mime": ["image/*"]}
    assert plain(score.validation) == {"min": 0, "max": 10}
    assert all(each.HasField("validation") for each in made.schema.fields)
    assert world.get(made.id) == made


def test_a_form_may_begin_empty(world: World) -> None:
    made = world.create()
    assert made.HasField("schema")
    assert not made.schema.fields


def test_a_schema_is_refused_with_everything_that_is_wrong(world: World) -> None:
    archived = world.definition("old")
    world.archive_definition(archived)
    deal = world.definition("deal", object_type="deal")
    asked = schema(
        inline("Bad"),
        reference("a", 99),
        reference("b", archived),
        reference("c", deal),
        write_back=[entry("a", 99), entry("missing", archived, "nobody")],
    )
    failure = world.failing("CreateForm", pb.CreateFormRequest(name="x", schema=form_pb2.FormSchema(**asked)))
    assert (failure.code, failure.reason) == (INVALID, "INVALID_ARGUMENT")
    assert failure.fields == [
        "schema.fields[0].key",
        "schema.fields[1].custom_field_definition_id",
        "schema.fields[2].custom_field_definition_id",
        "schema.fields[3].custom_field_definition_id",
        "schema.write_back[0].custom_field_definition_id",
        "schema.write_back[1].field_key",
        "schema.write_back[1].target",
        "schema.write_back[1].custom_field_definition_id",
    ]


def test_another_organizations_definition_is_none(world: World) -> None:
    theirs = world.by(organization_id=2).definition()
    failure = world.failing("CreateForm", pb.CreateFormRequest(name="x", schema=form_pb2.FormSchema(**kyc(theirs))))
    assert (failure.code, failure.fields) == (
        INVALID,
        ["schema.fields[0].custom_field_definition_id", "schema.write_back[0].custom_field_definition_id"],
    )


def test_a_request_out_of_bounds_is_refused(world: World) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": ""}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"description": "x" * 10_001}, "description"),
        ({"schema": form_pb2.FormSchema(fields=[form_pb2.FormField()] * 501)}, "schema.fields"),
        ({"schema": form_pb2.FormSchema(write_back=[form_pb2.WriteBackEntry()] * 501)}, "schema.write_back"),
    ]
    for members, field in cases:
        failure = world.failing("CreateForm", pb.CreateFormRequest(**{"name": "x", **members}))
        assert (failure.code, failure.fields) == (INVALID, [field])


def test_a_text_that_no_database_can_hold_is_refused(world: World) -> None:
    assert world.failing("CreateForm", pb.CreateFormRequest(name="a\0b")).code == INVALID
    asked = form_pb2.FormSchema(**schema(inline("a", label="a\0b")))
    assert world.failing("CreateForm", pb.CreateFormRequest(name="x", schema=asked)).code == INVALID


def test_a_familys_name_is_taken_until_its_last_version_is_deleted(world: World) -> None:
    first = world.published(NOTE)
    second = world.fork(first.id)
    world.archive(first.id)
    world.delete(first.id)
    failure = world.failing("CreateForm", pb.CreateFormRequest(name=first.name))
    assert (failure.code, failure.reason, failure.fields) == (
        grpc.StatusCode.ALREADY_EXISTS, "ErrFormNameTaken", ["name"],
    )  # fmt: skip
    world.delete(second.id)
    again = world.create(name=first.name)
    assert (again.name, again.version) == (first.name, 3)


def test_a_name_is_another_organizations_to_use_too(world: World) -> None:
    world.create()
    assert world.by(organization_id=2).create().version == 1


# Reading


def test_an_unknown_a_deleted_and_a_foreign_form_are_not_found(world: World) -> None:
    deleted = world.create(name="deleted").id
    world.delete(deleted)
    foreign = [world.by(organization_id=2).create(name=f"foreign {n}").id for n in range(3)][-1]
    for form_id in (99, deleted, foreign):
        for rpc, request in {
            "GetForm": pb.GetFormRequest,
            "PublishForm": pb.PublishFormRequest,
            "CreateDraftFromPublished": pb.CreateDraftFromPublishedRequest,
            "ArchiveForm": pb.ArchiveFormRequest,
            "DeleteForm": pb.DeleteFormRequest,
        }.items():
            failure = world.failing(rpc, request(id=form_id))
            assert (failure.code, failure.reason) == (NOT_FOUND, "ErrFormNotFound"), rpc
        failure = world.failing("UpdateForm", pb.UpdateFormRequest(id=form_id, description="x"))
        assert (failure.code, failure.reason) == (NOT_FOUND, "ErrFormNotFound")
        assert world.refused(form_id, {}, contact_id=1).reason == "ErrFormNotFound"


def listed(world: World, **members: Any) -> list[tuple[str, int]]:
    return [(each.name, each.version) for each in world.list(**members).data]


def test_versions_are_listed_by_name_then_newest_first(world: World) -> None:
    beta = world.published(NOTE, "Beta")
    world.fork(beta.id)
    world.create(name="Alpha")
    world.fork(beta.id)
    world.by(organization_id=2).create(name="Foreign")
    world.delete(world.create(name="Gone").id)
    assert listed(world) == [("Alpha", 1), ("Beta", 3), ("Beta", 2), ("Beta", 1)]
    assert listed(world, name="Beta", status="draft") == [("Beta", 3), ("Beta", 2)]
    assert listed(world, status="published") == [("Beta", 1)]
    assert listed(world, status="archived") == []
    assert listed(world, name="Gamma") == []


def test_a_list_is_walked_by_pages_and_by_tokens(world: World) -> None:
    for name in ("C", "A", "B"):
        form = world.published(NOTE, name)
        world.fork(form.id)
    everything = listed(world)
    assert everything == [(name, version) for name in "ABC" for version in (2, 1)]

    assert [listed(world, per_page=4, page=page) for page in (1, 2, 3)] == [everything[:4], everything[4:], []]
    walked, token = [], ""
    while True:
        answer = world.list(per_page=1, page_token=token, status="published", include_total=True)
        walked += [(each.name, each.version) for each in answer.data]
        assert (answer.meta.total, answer.meta.per_page, answer.meta.has_more) == (3, 1, len(walked) < 3)
        token = answer.meta.next_page_token
        if not token:
            break
    assert walked == [("A", 1), ("B", 1), ("C", 1)]
    assert not world.list().meta.HasField("total")


def test_a_list_refuses_what_it_does_not_know(world: World) -> None:
    for name, value in (
        ("status", "live"), ("page", -1), ("page", 10_001), ("per_page", -1), ("page_token", "nonsense"),
    ):  # fmt: skip
        members: dict[str, Any] = {name: value}
        failure = world.failing("ListForms", pb.ListFormsRequest(**members))
        assert (failure.code, failure.fields) == (INVALID, [name])


def test_a_token_of_another_query_or_list_is_refused(world: World) -> None:
    form = world.published(NOTE)
    world.fork(form.id)
    for _ in range(2):
        world.submit(form.id, {"note": "x"}, contact_id=world.contact())
    token = world.list(per_page=1).meta.next_page_token
    failure = world.failing("ListForms", pb.ListFormsRequest(page_token=token, status="draft"))
    assert (failure.code, failure.fields) == (INVALID, ["page_token"])
    failure = world.failing("ListFormSubmissions", pb.ListFormSubmissionsRequest(page_token=token))
    assert (failure.code, failure.fields) == (INVALID, ["page_token"])


def test_pipelines_reads_forms_by_id_with_those_that_exist(world: World) -> None:
    first, gone, third = (world.create(name=name).id for name in "abc")
    world.delete(gone)
    foreign = world.by(organization_id=2).create()
    assert foreign.id == first
    request = catalog_pb.BatchGetFormsRequest(ids=[third, gone, first, 99, first])
    with statements() as run:
        found = world.catalog.BatchGetForms(request, metadata=world.who.metadata()).forms
    assert [(each.id, each.organization_id) for each in found] == [(first, 1), (third, 1)]
    assert len(run) == 1


# Changing


def test_a_draft_changes_in_what_is_named_alone(world: World) -> None:
    made = world.create(NOTE, description="old")
    described = world.update(made.id, description="new")
    assert (described.description, described.schema) == ("new", made.schema)
    asked = form_pb2.FormSchema(**schema(inline("other")))
    changed = world.update(made.id, schema=asked)
    assert changed.description == "new"
    assert [each.key for each in changed.schema.fields] == ["other"]
    assert world.update(made.id, description="").description == ""
    assert world.update(made.id, schema=form_pb2.FormSchema()).schema == form_pb2.FormSchema()
    assert changed.updated_at.ToDatetime() > made.updated_at.ToDatetime()
    assert changed.created_at == made.created_at


def test_a_bad_change_is_refused(world: World) -> None:
    made = world.create(NOTE)
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["description"]),
        ({"name": "Other"}, ["name"]),
        ({"name": "Other", "description": "x"}, ["name"]),
        ({"description": "x" * 10_001}, ["description"]),
        ({"schema": form_pb2.FormSchema(**schema(inline("Bad")))}, ["schema.fields[0].key"]),
        (
            {"schema": form_pb2.FormSchema(**kyc(99))},
            ["schema.fields[0].custom_field_definition_id", "schema.write_back[0].custom_field_definition_id"],
        ),
    ]
    for members, fields in cases:
        failure = world.failing("UpdateForm", pb.UpdateFormRequest(id=made.id, **members))
        assert (failure.code, failure.fields) == (INVALID, fields)
    assert world.get(made.id) == made


def test_only_a_draft_changes(world: World) -> None:
    form = world.published(NOTE)
    for _ in range(2):
        for members in ({"description": "x"}, {"schema": form_pb2.FormSchema()}):
            failure = world.failing("UpdateForm", pb.UpdateFormRequest(id=form.id, **members))
            assert (failure.code, failure.reason) == (REFUSED, "ErrFormNotDraft")
        world.archive(form.id)


def test_a_published_schema_can_be_given_back_to_its_fork(world: World) -> None:
    form = world.published(kyc(world.definition()))
    fork = world.fork(form.id)
    assert fork.schema == form.schema
    world.update(fork.id, schema=form.schema)
    assert world.publish(fork.id).schema == form.schema


# Publishing


def test_publishing_copies_what_references_take_from_their_definitions(world: World) -> None:
    several = world.definition("tags", field_type="multiselect")
    amount = world.definition(
        "limit", object_type="account", field_type="currency", validation_rules={"min": 1, "currency": "USD"}
    )
    draft = world.create(schema(reference("tags", several, label_override="Labels"), reference("credit", amount)))
    assert [each.type for each in draft.schema.fields] == ["", ""]
    world.change_options(several, "x", "y")
    tags, credit = world.publish(draft.id).schema.fields
    assert (tags.type, tags.label_override) == ("multi_picklist", "Labels")
    assert [each.value for each in tags.picklist_options] == ["x", "y"]
    assert (credit.type, plain(credit.validation)) == ("currency", {"min": 1, "currency": "USD"})


def test_a_published_form_is_frozen_while_its_definitions_change(world: World) -> None:
    f = world.definition()
    form = world.published(kyc(f))
    world.change_options(f, "other")
    world.archive_definition(f)
    assert world.get(form.id) == form


def test_a_form_without_a_data_field_is_not_published(world: World) -> None:
    for name, asked in (("none", schema()), ("a header", schema({"key": "about", "kind": "section_header"}))):
        failure = world.failing("PublishForm", pb.PublishFormRequest(id=world.create(asked, name).id))
        assert (failure.code, failure.reason, failure.fields) == (REFUSED, "ErrFormEmpty", ["schema.fields"])


def test_a_form_is_published_once(world: World) -> None:
    form = world.published(NOTE)
    for _ in range(2):
        failure = world.failing("PublishForm", pb.PublishFormRequest(id=form.id))
        assert (failure.code, failure.reason) == (REFUSED, "ErrFormNotDraft")
        world.archive(form.id)


def test_a_form_whose_definitions_were_archived_since_is_not_published(world: World) -> None:
    f = world.definition()
    draft = world.create(kyc(f))
    world.archive_definition(f)
    failure = world.failing("PublishForm", pb.PublishFormRequest(id=draft.id))
    assert (failure.code, failure.reason) == (REFUSED, "ErrFormSchemaInvalid")
    assert failure.fields == [
        "schema.fields[0].custom_field_definition_id",
        "schema.write_back[0].custom_field_definition_id",
    ]
    assert world.get(draft.id) == draft


def test_a_draft_that_changes_while_it_is_judged_is_not_published(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = world.create(NOTE)
    ask = Fields.definitions

    def change_meanwhile(fields: Fields, *arguments: Any) -> Any:
        monkeypatch.setattr(Fields, "definitions", ask)
        world.update(draft.id, schema=form_pb2.FormSchema(**schema(inline("other"))))
        return ask(fields, *arguments)

    monkeypatch.setattr(Fields, "definitions", change_meanwhile)
    failure = world.failing("PublishForm", pb.PublishFormRequest(id=draft.id))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "ABORTED")
    assert world.get(draft.id).status == "draft"
    assert world.publish(draft.id).status == "published"


def test_an_earlier_version_stays_live(world: World) -> None:
    first = world.published(NOTE)
    second = world.fork(first.id)
    world.update(second.id, schema=form_pb2.FormSchema(**schema(inline("other"))))
    world.publish(second.id)
    contact = world.contact()
    assert world.submit(first.id, {"note": "x"}, contact_id=contact).form_version == 1
    assert world.submit(second.id, {"other": "x"}, contact_id=contact).form_version == 2
    assert world.get(first.id).status == "published"


# Forking


def test_a_fork_is_a_draft_at_the_familys_next_number(world: World) -> None:
    form = world.publish(world.create(NOTE, description="Why").id)
    forks = [world.by(user_id=2).fork(form.id) for _ in range(3)]
    assert [each.version for each in forks] == [2, 3, 4]
    fork = forks[0]
    assert (fork.name, fork.description, fork.status, fork.schema, fork.created_by) == (
        form.name, "Why", "draft", form.schema, 2,
    )  # fmt: skip
    assert not fork.HasField("published_at")
    world.delete(forks[2].id)
    assert world.fork(form.id).version == 5
    assert world.get(form.id) == form


def test_only_a_published_version_is_forked(world: World) -> None:
    draft = world.create(NOTE)
    for _ in range(2):
        failure = world.failing("CreateDraftFromPublished", pb.CreateDraftFromPublishedRequest(id=draft.id))
        assert (failure.code, failure.reason) == (REFUSED, "ErrFormNotPublished")
        world.archive(draft.id)


# Archiving and deleting


def test_archiving_twice_is_archiving_once(world: World) -> None:
    form = world.published(NOTE)
    archived = world.archive(form.id)
    assert (archived.status, archived.published_at) == ("archived", form.published_at)
    assert archived.HasField("archived_at")
    assert world.archive(form.id) == archived


def test_a_draft_is_archived_without_having_been_published(world: World) -> None:
    archived = world.archive(world.create(NOTE).id)
    assert (archived.status, archived.HasField("published_at")) == ("archived", False)


def test_a_published_form_is_not_deleted_and_with_submissions_it_says_so(world: World) -> None:
    form = world.published(NOTE)
    failure = world.failing("DeleteForm", pb.DeleteFormRequest(id=form.id))
    assert (failure.code, failure.reason) == (REFUSED, "ErrFormPublished")
    submitted = world.submit(form.id, {"note": "x"}, contact_id=world.contact())
    failure = world.failing("DeleteForm", pb.DeleteFormRequest(id=form.id))
    assert (failure.code, failure.reason) == (REFUSED, "ErrFormHasSubmissions")
    world.delete_submission(submitted.id)
    world.archive(form.id)
    failure = world.failing("DeleteForm", pb.DeleteFormRequest(id=form.id))
    assert (failure.code, failure.reason) == (REFUSED, "ErrFormHasSubmissions")


def test_a_draft_and_an_archived_form_are_deleted(world: World) -> None:
    for form in (world.create(NOTE, "a"), world.archive(world.published(NOTE, "b").id)):
        answer = world.delete(form.id)
        assert answer.HasField("data")
        assert world.failing("DeleteForm", pb.DeleteFormRequest(id=form.id)).reason == "ErrFormNotFound"


# Who may, and how often


SETTINGS = {
    "CreateForm": pb.CreateFormRequest(name="x"),
    "UpdateForm": pb.UpdateFormRequest(id=1, description="x"),
    "PublishForm": pb.PublishFormRequest(id=1),
    "CreateDraftFromPublished": pb.CreateDraftFromPublishedRequest(id=1),
    "ArchiveForm": pb.ArchiveFormRequest(id=1),
    "DeleteForm": pb.DeleteFormRequest(id=1),
    "DeleteFormSubmission": pb.DeleteFormSubmissionRequest(id=1),
}


def test_settings_are_for_settings_roles(world: World) -> None:
    form = world.create(NOTE)
    for role in ("supervisor", "agent", "viewer"):
        for rpc, request in SETTINGS.items():
            assert world.by(role).failing(rpc, request).code == FORBIDDEN, (role, rpc)
        assert world.by(role).get(form.id) == form
        assert world.by(role).list().data == [form]
    for role in ("super_admin", "admin", "sales_manager"):
        assert world.by(role).create(NOTE, role).status == "draft"


def test_a_viewer_submits_nothing(world: World) -> None:
    form = world.published(NOTE)
    assert world.by("viewer").refused(form.id, {"note": "x"}, contact_id=world.contact()).code == FORBIDDEN
    assert world.by("agent").submit(form.id, {"note": "x"}, contact_id=world.contact(owner_id=0)).id


def test_a_repeat_under_its_key_has_one_effect(world: World) -> None:
    request = pb.CreateFormRequest(name="Once", schema=form_pb2.FormSchema(**NOTE))
    metadata = world.who.metadata(idempotency_key="a")
    made = world.forms.CreateForm(request, metadata=metadata)
    assert world.forms.CreateForm(request, metadata=metadata) == made
    publish = pb.PublishFormRequest(id=made.data.id)
    metadata = world.who.metadata(idempotency_key="b")
    published = world.forms.PublishForm(publish, metadata=metadata)
    assert world.forms.PublishForm(publish, metadata=metadata) == published
    assert world.list(include_total=True).meta.total == 1


def test_a_call_runs_no_more_statements_than_it_may(world: World) -> None:
    asked = kyc(world.definition())
    calls: dict[str, tuple[Any, int]] = {
        "create": (lambda: world.create(asked), 2),
        "get": (lambda: world.get(1), 1),
        "update": (lambda: world.update(1, description="x"), 2),
        "publish": (lambda: world.publish(1), 3),
        "fork": (lambda: world.fork(1), 3),
        "list": (lambda: world.list(include_total=True), 2),
        "archive": (lambda: world.archive(2), 2),
        "delete": (lambda: world.delete(2), 4),
    }
    for name, (call, most) in calls.items():
        with statements() as run:
            call()
        ours = [each for each in run if "custom_fields" not in each]
        assert len(ours) == most, (name, ours)
