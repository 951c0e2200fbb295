"""Records of the contacts service as the contract shows them."""

from crm.contacts.v1 import account_pb2, contact_pb2, contact_stage_pb2

from services.contacts.account import Account
from services.contacts.contact import Contact
from services.contacts.stage import ContactStage
from services.runtime.messages import timestamp
from services.runtime.values import struct_of


def contact(record: Contact) -> contact_pb2.Contact:
    """A contact."""
    return contact_pb2.Contact(
        id=record.id,
        organization_id=record.organization_id,
        first_name=record.first_name,
        last_name=record.last_name,
        email=record.email,
        phone=record.phone,
        account_id=record.account_id or 0,
        owner_id=record.owner_id or 0,
        contact_stage_id=record.contact_stage_id or 0,
        custom_fields=struct_of(record.custom_fields),
        created_by=record.created_by,
        created_at=timestamp(record.created_at),
        updated_at=timestamp(record.updated_at),
    )


def account(record: Account) -> account_pb2.Account:
    """An account."""
    return account_pb2.Account(
        id=record.id,
        organization_id=record.organization_id,
        name=record.name,
        parent_account_id=record.parent_account_id or 0,
        owner_id=record.owner_id or 0,
        custom_fields=struct_of(record.custom_fields),
        created_by=record.created_by,
        created_at=timestamp(record.created_at),
        updated_at=timestamp(record.updated_at),
    )


def stage(record: ContactStage) -> contact_stage_pb2.ContactStage:
    """A contact stage."""
    return contact_stage_pb2.ContactStage(
        id=record.id, name=record.name, description=record.description, sort_order=record.sort_order
    )
