"""The contacts service: the only place where it is put together."""

import grpc
from crm.contacts.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    contact_service_pb2,
    contact_service_pb2_grpc,
    record_service_pb2,
    record_service_pb2_grpc,
)

from services.contacts.api import Accounts, Contacts, Records
from services.contacts.clients import Fields, Users
from services.runtime.channels import connect
from services.runtime.db import Database, connection_info
from services.runtime.outbox import Outbox
from services.runtime.server import Wiring, run
from services.runtime.settings import Settings


def wire(settings: Settings) -> Wiring:
    """Puts the service together."""
    db = Database(connection_info(settings, "contacts"), size=settings.threads)
    outbox = Outbox("contacts", settings, db)
    db.after_commit = outbox.deliver
    channels = [connect(settings, "fields"), connect(settings, "identity")]
    fields, users = Fields(channels[0]), Users(channels[1])

    def register(server: grpc.Server) -> list[str]:
        contact_service_pb2_grpc.add_CrmContactServiceServicer_to_server(Contacts(db, fields, users), server)
        account_service_pb2_grpc.add_CrmAccountServiceServicer_to_server(Accounts(db, fields, users), server)
        record_service_pb2_grpc.add_RecordServiceServicer_to_server(Records(db), server)
        return [
            contact_service_pb2.DESCRIPTOR.services_by_name["CrmContactService"].full_name,
            account_service_pb2.DESCRIPTOR.services_by_name["CrmAccountService"].full_name,
            record_service_pb2.DESCRIPTOR.services_by_name["RecordService"].full_name,
        ]

    return Wiring(
        register, starting=[outbox.start], closing=[outbox.close, db.close, *(each.close for each in channels)]
    )


if __name__ == "__main__":
    run("contacts", wire)
