"""Custom field definitions over the wire (spec v1 §1, §6.1)."""

from typing import Any

import grpc
import pytest
from crm.fields.v1 import custom_field_service_pb2 as pb
from crm.fields.v1.custom_field_service_pb2_grpc import CrmCustomFieldServiceStub
from google.protobuf.message import Message

from services.runtime.values import struct_of
from tests.fields.conftest import KYC, Definitions, a_field, kyc_status
from tests.harness import Houses, Someone, at_once, failing

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "ErrCustomFieldNotFound")


def test_a_field_is_answered_as_it_was_defined(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = fields.CreateCustomField(kyc_status(), metadata=admin.metadata(x_request_id="req-1"))
    assert made.meta.request_id == "req-1"
    assert (made.data.id, made.data.organization_id) == (1, 1)
    assert (made.data.object_type, made.data.key, made.data.label) == ("contact", "kyc_status", "KYC Status")
    assert (made.data.field_type, made.data.section, made.data.position) == ("picklist", "Compliance", 0)
    assert made.data.is_active
    assert [option.value for option in made.data.picklist_options.options] == ["pending", "approved", "rejected"]
    assert not made.data.HasField("validation_rules")
    assert made.data.created_at == made.data.updated_at
    assert definitions.get(made.data.id) == made.data


def test_a_field_without_options_and_rules_has_none(definitions: Definitions) -> None:
    made = definitions.make(a_field("size", validation_rules=struct_of({})))
    assert not made.HasField("picklist_options")
    assert not made.HasField("validation_rules")


@pytest.mark.parametrize("object_type", ["contact", "account", "deal", "lead", "task", "quotation"])
def test_every_kind_of_record_has_keys_of_its_own(definitions: Definitions, object_type: str) -> None:
    definitions.make(a_field("size", object_type="task" if object_type != "task" else "lead"))
    made = definitions.make(a_field("size", object_type=object_type))
    assert (made.object_type, made.key) == (object_type, "size")


@pytest.mark.parametrize(
    ("changed", "fields_at_fault"),
    [
        ({"object_type": ""}, {"object_type"}),
        ({"object_type": "invoice"}, {"object_type"}),
        ({"object_type": "Contact"}, {"object_type"}),
        ({"key": ""}, {"key"}),
        ({"key": "Size"}, {"key"}),
        ({"key": "1st"}, {"key"}),
        ({"key": "_size"}, {"key"}),
        ({"key": "si ze"}, {"key"}),
        ({"key": "größe"}, {"key"}),
        ({"key": "size\n"}, {"key"}),
        ({"key": "k" * 65}, {"key"}),
        ({"label": ""}, {"label"}),
        ({"label": "l" * 151}, {"label"}),
        ({"field_type": ""}, {"field_type"}),
        ({"field_type": "phone"}, {"field_type"}),
        ({"section": "s" * 151}, {"section"}),
        ({"deal_pipeline_id": -1}, {"deal_pipeline_id"}),
        ({"document_template_id": -1}, {"document_template_id"}),
        ({"key": "A", "label": "", "field_type": "y"}, {"key", "label", "field_type"}),
    ],
    ids=lambda members: ascii(members) if isinstance(members, dict) else "",
)
def test_a_bad_member_is_refused(
    fields: CrmCustomFieldServiceStub, admin: Someone, changed: dict[str, Any], fields_at_fault: set[str]
) -> None:
    request = a_field("size")
    request.MergeFrom(pb.CreateCustomFieldRequest())
    for name, value in changed.items():
        setattr(request, name, value)
    failure = failing(fields.CreateCustomField, request, admin)
    assert (failure.code, failure.reason) == INVALID
    assert set(failure.fields) == fields_at_fault


@pytest.mark.parametrize(
    "changed",
    [
        {"key": "k"},
        {"key": "k" * 64},
        {"key": "a_1__"},
        {"label": "l" * 150},
        {"label": "日" * 150},
        {"section": "s" * 150},
        {"position": -(2**31)},
        {"position": 2**31 - 1},
    ],
    ids=str,
)
def test_a_member_at_its_bound_is_accepted(definitions: Definitions, changed: dict[str, Any]) -> None:
    made = definitions.make(a_field(changed.get("key", "size"), **{k: v for k, v in changed.items() if k != "key"}))
    assert {name: getattr(made, name) for name in changed} == changed


def test_a_taken_key_is_refused_archived_or_not(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = definitions.make(kyc_status())
    for _ in range(2):
        failure = failing(fields.CreateCustomField, kyc_status(label="Another", field_type="picklist"), admin)
        assert (failure.code, failure.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ErrCustomFieldKeyTaken")
        assert failure.fields == ["key"]
        definitions.archive(made.id)


def test_of_two_definitions_at_once_one_is_made(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = at_once([lambda: fields.CreateCustomField(kyc_status(), metadata=admin.metadata(), timeout=20)] * 4)
    assert sum(isinstance(each, pb.CreateCustomFieldResponse) for each in made) == 1
    assert definitions.keys() == ["kyc_status"]


UNKNOWN: list[tuple[str, Message]] = [
    ("GetCustomField", pb.GetCustomFieldRequest(id=1)),
    ("UpdateCustomField", pb.UpdateCustomFieldRequest(id=1, label="New")),
    ("ArchiveCustomField", pb.ArchiveCustomFieldRequest(id=1)),
    ("ReorderCustomFields", pb.ReorderCustomFieldsRequest(fields=[pb.FieldPlacement(id=1, position=1)])),
]


@pytest.mark.parametrize(("rpc", "request_"), UNKNOWN, ids=[rpc for rpc, _ in UNKNOWN])
def test_a_field_that_is_not_there_or_not_ours_is_not_found(
    houses: Houses, fields: CrmCustomFieldServiceStub, rpc: str, request_: Message
) -> None:
    failure = failing(getattr(fields, rpc), request_, houses.someone())
    assert (failure.code, failure.reason) == NOT_FOUND
    theirs = Definitions(fields, houses.someone(organization_id=2)).make(a_field("size"))
    assert theirs.id == 1
    failure = failing(getattr(fields, rpc), request_, houses.someone())
    assert (failure.code, failure.reason) == NOT_FOUND
    assert Definitions(fields, houses.someone(organization_id=2)).get(1) == theirs


@pytest.mark.parametrize(
    ("rpc", "request_"),
    [
        ("GetCustomField", pb.GetCustomFieldRequest()),
        ("UpdateCustomField", pb.UpdateCustomFieldRequest(label="New")),
        ("ArchiveCustomField", pb.ArchiveCustomFieldRequest(id=-1)),
    ],
    ids=["get", "update", "archive"],
)
def test_an_id_is_a_positive_number(
    fields: CrmCustomFieldServiceStub, admin: Someone, rpc: str, request_: Message
) -> None:
    failure = failing(getattr(fields, rpc), request_, admin)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["id"])


@pytest.mark.parametrize("role", ["super_admin", "admin", "sales_manager", "supervisor", "agent", "viewer"])
def test_settings_roles_define_fields_and_all_read_them(
    houses: Houses, fields: CrmCustomFieldServiceStub, definitions: Definitions, role: str
) -> None:
    definitions.make(a_field("size"))
    somebody = houses.someone(role)
    writes: list[tuple[str, Message]] = [("CreateCustomField", a_field("colour")), *UNKNOWN[1:]]
    for rpc, request in writes:
        if role in ("super_admin", "admin", "sales_manager"):
            getattr(fields, rpc)(request, metadata=somebody.metadata())
        else:
            assert failing(getattr(fields, rpc), request, somebody).code == grpc.StatusCode.PERMISSION_DENIED
    assert Definitions(fields, somebody).get(1).key == "size"
    assert "size" in Definitions(fields, somebody).keys(include_archived=True)


# Lists


def test_a_list_is_ordered_by_section_position_and_age(definitions: Definitions) -> None:
    for key, section, position in [
        ("b2", "b", 2),
        ("a9", "a", 9),
        ("none5", "", 5),
        ("b1", "b", 1),
        ("b1_younger", "b", 1),
        ("a0", "a", -3),
        ("none1", "", 1),
    ]:
        definitions.make(a_field(key, section=section, position=position))
    assert definitions.keys() == ["none1", "none5", "a0", "a9", "b1", "b1_younger", "b2"]


def test_a_list_is_whole(definitions: Definitions) -> None:
    keys = [f"field_{number:03}" for number in range(120)]
    for position, key in enumerate(keys):
        definitions.make(a_field(key, position=position))
    assert definitions.keys() == keys


def test_filters_combine(fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone) -> None:
    definitions.make(a_field("a", section="S"))
    definitions.make(a_field("b"))
    definitions.make(a_field("c", section="S", object_type="deal"))
    definitions.archive(definitions.make(a_field("d", section="S")).id)
    assert definitions.keys() == ["b", "a", "c"]
    assert definitions.keys(include_archived=True) == ["b", "a", "c", "d"]
    assert definitions.keys(object_type="contact") == ["b", "a"]
    assert definitions.keys(section="S") == ["a", "c"]
    assert definitions.keys(section="") == ["b"]
    assert definitions.keys(section="s") == []
    assert definitions.keys(object_type="contact", section="S", include_archived=True) == ["a", "d"]
    failure = failing(fields.ListCustomFields, pb.ListCustomFieldsRequest(object_type="invoice"), admin)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["object_type"])


# Changes


def test_an_update_changes_what_it_names_and_keeps_the_rest(definitions: Definitions) -> None:
    made = definitions.make(kyc_status(position=4))
    changed = definitions.update(made.id, label="Know your customer")
    assert changed.label == "Know your customer"
    assert changed.updated_at.ToDatetime() > made.updated_at.ToDatetime()
    for name in ("section", "position", "picklist_options", "key", "field_type", "is_active", "created_at"):
        assert getattr(changed, name) == getattr(made, name)
    assert definitions.get(made.id) == changed


def test_zero_and_empty_are_values_in_an_update(definitions: Definitions) -> None:
    bounds = struct_of({"min": 1, "max": 5})
    made = definitions.make(a_field("size", field_type="number", section="S", position=4, validation_rules=bounds))
    assert (definitions.update(made.id, section="").section, made.section) == ("", "S")
    assert definitions.update(made.id, position=0).position == 0
    assert definitions.update(made.id, label="Kept rules").validation_rules == bounds
    assert not definitions.update(made.id, validation_rules=struct_of({})).HasField("validation_rules")


def test_options_and_rules_are_replaced_whole(definitions: Definitions) -> None:
    made = definitions.make(kyc_status())
    changed = definitions.update(made.id, picklist_options={"options": [{"value": "new", "label": "New"}]})
    assert [each.value for each in changed.picklist_options.options] == ["new"]
    price = definitions.make(
        a_field("price", field_type="currency", validation_rules=struct_of({"min": 1, "currency": "USD"}))
    )
    assert definitions.update(price.id, validation_rules=struct_of({"max": 9.5})).validation_rules == struct_of(
        {"max": 9.5}
    )


@pytest.mark.parametrize("immutable", [{"object_type": "deal"}, {"key": "other"}, {"field_type": "text"}], ids=str)
def test_what_never_changes_is_refused_even_unchanged(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone, immutable: dict[str, str]
) -> None:
    made = definitions.make(kyc_status())
    (name,) = immutable
    for value in (*immutable.values(), getattr(made, name), ""):
        request = pb.UpdateCustomFieldRequest(id=made.id, label="New", **{name: value})
        failure = failing(fields.UpdateCustomField, request, admin)
        assert (failure.code, failure.reason, failure.fields) == (*INVALID, [name])
    assert definitions.get(made.id) == made


def test_all_immutable_members_are_named_at_once(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = definitions.make(kyc_status())
    request = pb.UpdateCustomFieldRequest(id=made.id, object_type="deal", key="k", field_type="text")
    assert set(failing(fields.UpdateCustomField, request, admin).fields) == {"object_type", "key", "field_type"}


def test_an_update_that_would_change_nothing_is_refused(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = definitions.make(kyc_status())
    failure = failing(fields.UpdateCustomField, pb.UpdateCustomFieldRequest(id=made.id), admin)
    assert (failure.code, failure.reason) == INVALID


@pytest.mark.parametrize(
    ("changed", "at_fault"),
    [
        ({"label": ""}, "label"),
        ({"label": "l" * 151}, "label"),
        ({"section": "s" * 151}, "section"),
        ({"picklist_options": {"options": []}}, "picklist_options.options"),
        ({"picklist_options": {"options": [*KYC["options"], KYC["options"][0]]}}, "picklist_options.options[3].value"),
        ({"validation_rules": struct_of({"min": 1})}, "validation_rules.min"),
    ],
    ids=["label", "long label", "section", "no options", "repeat", "rule"],
)
def test_a_bad_change_is_refused_and_changes_nothing(
    fields: CrmCustomFieldServiceStub,
    definitions: Definitions,
    admin: Someone,
    changed: dict[str, Any],
    at_fault: str,
) -> None:
    made = definitions.make(kyc_status())
    request = pb.UpdateCustomFieldRequest(id=made.id, **changed)
    failure = failing(fields.UpdateCustomField, request, admin)
    assert (failure.code, failure.reason, failure.fields) == (*INVALID, [at_fault])
    assert definitions.get(made.id) == made


def test_changes_at_once_lose_nothing(
    fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = definitions.make(kyc_status())
    changes: list[dict[str, Any]] = [{"label": "New"}, {"section": "New"}, {"position": 7}]
    outcomes = at_once([lambda change=change: definitions.update(made.id, **change) for change in changes])  # type: ignore[misc]
    assert not [each for each in outcomes if isinstance(each, Exception)]
    field = definitions.get(made.id)
    assert (field.label, field.section, field.position) == ("New", "New", 7)


# Archive


def test_archiving_again_changes_nothing(definitions: Definitions) -> None:
    made = definitions.make(kyc_status())
    archived = definitions.archive(made.id)
    assert not archived.is_active
    assert definitions.archive(made.id) == archived == definitions.get(made.id)
    assert definitions.keys() == []
    assert definitions.keys(include_archived=True) == ["kyc_status"]


def test_an_archived_field_may_be_changed_and_stays_archived(definitions: Definitions) -> None:
    made = definitions.archive(definitions.make(kyc_status()).id)
    changed = definitions.update(made.id, label="Old KYC")
    assert (changed.label, changed.is_active) == ("Old KYC", False)


# Reorder


def test_fields_move_and_the_others_stay(definitions: Definitions) -> None:
    a, b, c = (definitions.make(a_field(key, section="S", position=n)) for n, key in enumerate("abc"))
    moved = definitions.reorder(
        pb.FieldPlacement(id=c.id, position=-1),
        pb.FieldPlacement(id=a.id, section="", position=9),
        pb.FieldPlacement(id=b.id, section=""),
    )
    assert [(each.key, each.section, each.position) for each in moved] == [("b", "", 1), ("a", "", 9), ("c", "S", -1)]
    assert definitions.keys() == ["b", "a", "c"]
    assert [definitions.get(each.id) for each in moved] == moved
    assert all(each.updated_at.ToDatetime() > a.updated_at.ToDatetime() for each in moved)


def test_a_placement_of_nothing_keeps_section_and_position(definitions: Definitions) -> None:
    made = definitions.make(a_field("a", section="S", position=3))
    (kept,) = definitions.reorder(pb.FieldPlacement(id=made.id))
    assert (kept.section, kept.position) == ("S", 3)


def test_archived_fields_move_too(definitions: Definitions) -> None:
    made = definitions.archive(definitions.make(a_field("a")).id)
    (moved,) = definitions.reorder(pb.FieldPlacement(id=made.id, position=5))
    assert (moved.position, moved.is_active) == (5, False)


def test_one_unknown_field_and_none_moves(
    houses: Houses, fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone
) -> None:
    made = [definitions.make(a_field(key)) for key in "abc"]
    stranger = Definitions(fields, houses.someone(organization_id=2))
    theirs = [stranger.make(a_field(key)) for key in "abcd"]
    ids = [made[2].id, theirs[3].id, made[0].id]
    placements = [pb.FieldPlacement(id=each, position=9) for each in ids]
    failure = failing(fields.ReorderCustomFields, pb.ReorderCustomFieldsRequest(fields=placements), admin)
    assert (failure.code, failure.reason, failure.fields) == (*NOT_FOUND, ["fields[1].id"])
    assert [definitions.get(each.id) for each in made] == made
    assert [stranger.get(each.id) for each in theirs] == theirs


def test_a_field_is_placed_once(fields: CrmCustomFieldServiceStub, definitions: Definitions, admin: Someone) -> None:
    made = definitions.make(a_field("a"))
    placements = [pb.FieldPlacement(id=made.id, position=each) for each in (1, 2, 3)]
    failure = failing(fields.ReorderCustomFields, pb.ReorderCustomFieldsRequest(fields=placements), admin)
    assert (failure.code, failure.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["fields[1].id", "fields[2].id"])
    assert definitions.get(made.id) == made


@pytest.mark.parametrize(
    ("placements", "at_fault"),
    [
        ([], "fields"),
        ([pb.FieldPlacement(id=each) for each in range(1, 502)], "fields"),
        ([pb.FieldPlacement(position=1)], "fields[0].id"),
        ([pb.FieldPlacement(id=1, section="s" * 151)], "fields[0].section"),
    ],
    ids=["none", "too many", "no id", "long section"],
)
def test_a_bad_order_is_refused(
    fields: CrmCustomFieldServiceStub, admin: Someone, placements: list[pb.FieldPlacement], at_fault: str
) -> None:
    failure = failing(fields.ReorderCustomFields, pb.ReorderCustomFieldsRequest(fields=placements), admin)
    assert (failure.code, failure.reason, failure.fields) == (*INVALID, [at_fault])


def test_orders_at_once_all_come_true_one_after_the_other(definitions: Definitions) -> None:
    ids = [definitions.make(a_field(f"f{number}")).id for number in range(30)]

    def reorder(order: list[int], section: str) -> None:
        for position in range(10):
            definitions.reorder(*(pb.FieldPlacement(id=each, section=section, position=position) for each in order))

    outcomes = at_once([lambda: reorder(ids, "up"), lambda: reorder(ids[::-1], "down"), lambda: reorder(ids[::2], "x")])
    assert outcomes == [None] * 3
    sections = {definitions.get(each).section for each in ids[1::2]}
    assert len(sections) == 1
