"""Contacts, contact stages and accounts over gRPC, and what other services ask of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc
from crm.contacts.v1 import account_service_pb2 as account_pb
from crm.contacts.v1 import account_service_pb2_grpc as account_service
from crm.contacts.v1 import contact_service_pb2 as pb
from crm.contacts.v1 import contact_service_pb2_grpc as service
from crm.contacts.v1 import record_service_pb2 as record_pb
from crm.contacts.v1 import record_service_pb2_grpc as record_service
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from services.contacts import messages, ownership
from services.contacts.clients import Fields, Users, tell_contact_deleted, tell_stage_entered
from services.contacts.contact import stage_entered, violations
from services.contacts.store import accounts, contacts, owners, stages
from services.runtime.callers import Caller, caller
from services.runtime.db import Database
from services.runtime.errors import report
from services.runtime.messages import named_twice, refuse_immutable
from services.runtime.server import meta

CONTACT_MEMBERS = ("first_name", "last_name", "email", "phone")
CONTACT_REFERENCES = ("account_id", "owner_id", "contact_stage_id")
ACCOUNT_MEMBERS = ("name",)
ACCOUNT_REFERENCES = ("parent_account_id", "owner_id")
STAGE_MEMBERS = ("name", "description", "sort_order")


class Contacts(service.CrmContactServiceServicer):
    """spec v1 §8.1, §8.2."""

    def __init__(self, db: Database, fields: Fields, users: Users) -> None:
        self._db, self._fields, self._users = db, fields, users

    def CreateContact(
        self, request: pb.CreateContactRequest, context: grpc.ServicerContext
    ) -> pb.CreateContactResponse:
        """Adds a contact, and has it enter its stage."""
        who = caller(context)
        members = _members(request, CONTACT_MEMBERS, CONTACT_REFERENCES) | {"owner_id": _owner(request, who)}
        with self._db.checks(who):
            judged = self._fields.judge(who, "contact", request.custom_fields)
            report([*violations(request.email, request.phone), *judged.violations])
            self._users.check_owner(who, members["owner_id"])
        with self._db.transaction(who) as tx:
            made = contacts.create(tx, custom_fields=judged.present, **members)
            if entered := stage_entered(None, made):
                tell_stage_entered(tx, made.id, entered)
            return tx.reply(pb.CreateContactResponse(data=messages.contact(made), meta=meta(who)))

    def GetContact(self, request: pb.GetContactRequest, context: grpc.ServicerContext) -> pb.GetContactResponse:
        """Reads one contact."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.GetContactResponse(data=messages.contact(contacts.get(tx, request.id)), meta=meta(who))

    def ListContacts(self, request: pb.ListContactsRequest, context: grpc.ServicerContext) -> pb.ListContactsResponse:
        """Lists contacts, newest first."""
        with self._db.reading(caller(context)) as tx:
            found, about = contacts.LIVE.page(tx, request, **_filters(request, CONTACT_REFERENCES))
        return pb.ListContactsResponse(data=map(messages.contact, found), meta=about)

    def UpdateContact(
        self, request: pb.UpdateContactRequest, context: grpc.ServicerContext
    ) -> pb.UpdateContactResponse:
        """Changes a contact, and has it enter its new stage."""
        who = caller(context)
        refuse_immutable(request, (), (*CONTACT_MEMBERS, *CONTACT_REFERENCES, "custom_fields"))
        with self._db.checks(who):
            judged = self._fields.judge(who, "contact", request.custom_fields)
            report([*violations(request.email, request.phone), *judged.violations])
            self._users.check_owner(who, request.owner_id or None)
        with self._db.transaction(who) as tx:
            before = contacts.lock(tx, request.id)
            ownership.check(who, before)
            after = replace(before, **_given(request, CONTACT_MEMBERS, CONTACT_REFERENCES))
            saved = contacts.save(tx, before, after, judged.values)
            if entered := stage_entered(before, saved):
                tell_stage_entered(tx, saved.id, entered)
            return tx.reply(pb.UpdateContactResponse(data=messages.contact(saved), meta=meta(who)))

    def DeleteContact(
        self, request: pb.DeleteContactRequest, context: grpc.ServicerContext
    ) -> pb.DeleteContactResponse:
        """Takes a contact out of sight; its open runs end."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            ownership.check(who, contacts.lock(tx, request.id))
            contacts.delete(tx, request.id)
            tell_contact_deleted(tx, request.id)
            return tx.reply(pb.DeleteContactResponse(data=Empty(), meta=meta(who)))

    def CreateContactStage(
        self, request: pb.CreateContactStageRequest, context: grpc.ServicerContext
    ) -> pb.CreateContactStageResponse:
        """Adds a stage."""
        who = caller(context)
        place = request.sort_order if request.HasField("sort_order") else None
        with self._db.transaction(who) as tx:
            made = stages.create(tx, request.name, request.description, place)
            return tx.reply(pb.CreateContactStageResponse(data=messages.stage(made), meta=meta(who)))

    def GetContactStage(
        self, request: pb.GetContactStageRequest, context: grpc.ServicerContext
    ) -> pb.GetContactStageResponse:
        """Reads one stage."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.GetContactStageResponse(data=messages.stage(stages.get(tx, request.id)), meta=meta(who))

    def ListContactStages(
        self, _request: pb.ListContactStagesRequest, context: grpc.ServicerContext
    ) -> pb.ListContactStagesResponse:
        """Lists the stages whole."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.ListContactStagesResponse(data=map(messages.stage, stages.in_order(tx)), meta=meta(who))

    def UpdateContactStage(
        self, request: pb.UpdateContactStageRequest, context: grpc.ServicerContext
    ) -> pb.UpdateContactStageResponse:
        """Changes a stage."""
        who = caller(context)
        refuse_immutable(request, (), STAGE_MEMBERS)
        with self._db.transaction(who) as tx:
            saved = stages.change(tx, request.id, **_given(request, STAGE_MEMBERS))
            return tx.reply(pb.UpdateContactStageResponse(data=messages.stage(saved), meta=meta(who)))

    def DeleteContactStage(
        self, request: pb.DeleteContactStageRequest, context: grpc.ServicerContext
    ) -> pb.DeleteContactStageResponse:
        """Removes a stage nobody stands on."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            stages.delete_unused(tx, request.id)
            return tx.reply(pb.DeleteContactStageResponse(data=Empty(), meta=meta(who)))

    def ReorderContactStages(
        self, request: pb.ReorderContactStagesRequest, context: grpc.ServicerContext
    ) -> pb.ReorderContactStagesResponse:
        """Moves stages, all or nothing."""
        who = caller(context)
        report(named_twice("stages", [each.id for each in request.stages]))
        with self._db.transaction(who) as tx:
            stages.place(tx, [stages.Placement(each.id, each.sort_order) for each in request.stages])
            return tx.reply(
                pb.ReorderContactStagesResponse(data=map(messages.stage, stages.in_order(tx)), meta=meta(who))
            )


class Accounts(account_service.CrmAccountServiceServicer):
    """spec v1 §8.3."""

    def __init__(self, db: Database, fields: Fields, users: Users) -> None:
        self._db, self._fields, self._users = db, fields, users

    def CreateAccount(
        self, request: account_pb.CreateAccountRequest, context: grpc.ServicerContext
    ) -> account_pb.CreateAccountResponse:
        """Adds an account."""
        who = caller(context)
        members = _members(request, ACCOUNT_MEMBERS, ACCOUNT_REFERENCES) | {"owner_id": _owner(request, who)}
        with self._db.checks(who):
            judged = self._fields.judge(who, "account", request.custom_fields)
            report(judged.violations)
            self._users.check_owner(who, members["owner_id"])
        with self._db.transaction(who) as tx:
            made = accounts.create(tx, custom_fields=judged.present, **members)
            return tx.reply(account_pb.CreateAccountResponse(data=messages.account(made), meta=meta(who)))

    def GetAccount(
        self, request: account_pb.GetAccountRequest, context: grpc.ServicerContext
    ) -> account_pb.GetAccountResponse:
        """Reads one account."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return account_pb.GetAccountResponse(data=messages.account(accounts.get(tx, request.id)), meta=meta(who))

    def ListAccounts(
        self, request: account_pb.ListAccountsRequest, context: grpc.ServicerContext
    ) -> account_pb.ListAccountsResponse:
        """Lists accounts, newest first."""
        with self._db.reading(caller(context)) as tx:
            found, about = accounts.LIVE.page(tx, request, **_filters(request, ACCOUNT_REFERENCES))
        return account_pb.ListAccountsResponse(data=map(messages.account, found), meta=about)

    def UpdateAccount(
        self, request: account_pb.UpdateAccountRequest, context: grpc.ServicerContext
    ) -> account_pb.UpdateAccountResponse:
        """Changes an account."""
        who = caller(context)
        refuse_immutable(request, (), (*ACCOUNT_MEMBERS, *ACCOUNT_REFERENCES, "custom_fields"))
        with self._db.checks(who):
            judged = self._fields.judge(who, "account", request.custom_fields)
            report(judged.violations)
            self._users.check_owner(who, request.owner_id or None)
        with self._db.transaction(who) as tx:
            before = accounts.lock(tx, request.id)
            ownership.check(who, before)
            after = replace(before, **_given(request, ACCOUNT_MEMBERS, ACCOUNT_REFERENCES))
            saved = accounts.save(tx, before, after, judged.values)
            return tx.reply(account_pb.UpdateAccountResponse(data=messages.account(saved), meta=meta(who)))

    def DeleteAccount(
        self, request: account_pb.DeleteAccountRequest, context: grpc.ServicerContext
    ) -> account_pb.DeleteAccountResponse:
        """Takes an account out of sight."""
        who = caller(context)
        with self._db.transaction(who) as tx:
            ownership.check(who, accounts.lock(tx, request.id))
            accounts.delete(tx, request.id)
            return tx.reply(account_pb.DeleteAccountResponse(data=Empty(), meta=meta(who)))


class Records(record_service.RecordServiceServicer):
    """What other services ask; not reachable through the gateway."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def CheckWriteAccess(
        self, request: record_pb.CheckWriteAccessRequest, context: grpc.ServicerContext
    ) -> record_pb.CheckWriteAccessResponse:
        """Answers whether the caller may write to a contact, an account or both."""
        who = caller(context)
        with self._db.reading(who) as tx:
            ownership.check(who, *owners.of(tx, contact_id=request.contact_id, account_id=request.account_id))
        return record_pb.CheckWriteAccessResponse()

    def BatchGetContactStages(
        self, request: record_pb.BatchGetContactStagesRequest, context: grpc.ServicerContext
    ) -> record_pb.BatchGetContactStagesResponse:
        """Reads stages by id."""
        with self._db.reading(caller(context)) as tx:
            found = stages.get_many(tx, request.ids)
        return record_pb.BatchGetContactStagesResponse(stages=map(messages.stage, found))

    def SeedOrganization(
        self, _request: record_pb.SeedOrganizationRequest, context: grpc.ServicerContext
    ) -> record_pb.SeedOrganizationResponse:
        """Gives a new organisation its stages."""
        with self._db.transaction(caller(context)) as tx:
            stages.seed(tx)
            return tx.reply(record_pb.SeedOrganizationResponse())


def _members(request: Message, members: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """What a new record is given; 0 in a reference is none."""
    values = {name: getattr(request, name) for name in members}
    return values | {name: getattr(request, name) or None for name in references}


def _owner(request: pb.CreateContactRequest | account_pb.CreateAccountRequest, who: Caller) -> int | None:
    """Who is to look after a new record: the caller unless the request says otherwise."""
    return (request.owner_id if request.HasField("owner_id") else who.user_id) or None


def _given(request: Message, members: Sequence[str], references: Sequence[str] = ()) -> dict[str, Any]:
    """What a PATCH gives: absent keeps, 0 in a reference clears (spec v1 D18)."""
    values = {name: getattr(request, name) for name in members if request.HasField(name)}
    return values | {name: getattr(request, name) or None for name in references if request.HasField(name)}


def _filters(request: Message, names: Sequence[str]) -> dict[str, int]:
    """What a list is narrowed to; 0 narrows nothing."""
    return {name: getattr(request, name) for name in names if getattr(request, name)}
