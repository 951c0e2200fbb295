"""The forms service: the only place where it is put together."""

import grpc
from crm.forms.v1 import (
    form_catalog_service_pb2,
    form_catalog_service_pb2_grpc,
    form_service_pb2,
    form_service_pb2_grpc,
)

from services.forms.api import FormCatalog, Forms
from services.forms.clients import Fields, Records, Runs
from services.runtime.channels import connect
from services.runtime.db import Database, connection_info
from services.runtime.outbox import Outbox
from services.runtime.server import Wiring, run
from services.runtime.settings import Settings


def wire(settings: Settings) -> Wiring:
    """Puts the service together."""
    db = Database(connection_info(settings, "forms"), size=settings.threads)
    outbox = Outbox("forms", settings, db)
    db.after_commit = outbox.deliver
    channels = {name: connect(settings, name) for name in ("fields", "contacts", "pipelines")}
    forms = Forms(db, Fields(channels["fields"]), Records(channels["contacts"]), Runs(channels["pipelines"]))

    def register(server: grpc.Server) -> list[str]:
        form_service_pb2_grpc.add_CrmFormServiceServicer_to_server(forms, server)
        form_catalog_service_pb2_grpc.add_FormCatalogServiceServicer_to_server(FormCatalog(db), server)
        return [
            form_service_pb2.DESCRIPTOR.services_by_name["CrmFormService"].full_name,
            form_catalog_service_pb2.DESCRIPTOR.services_by_name["FormCatalogService"].full_name,
        ]

    closing = [outbox.close, *(channel.close for channel in channels.values()), db.close]
    return Wiring(register, starting=[outbox.start], closing=closing)


if __name__ == "__main__":
    run("forms", wire)
