"""The fields service: the only place where it is put together."""

import grpc
from crm.fields.v1 import (
    custom_field_service_pb2,
    custom_field_service_pb2_grpc,
    field_rules_service_pb2,
    field_rules_service_pb2_grpc,
)

from services.fields.api import CustomFields, FieldRules
from services.runtime.db import Database, connection_info
from services.runtime.server import Wiring, run
from services.runtime.settings import Settings


def wire(settings: Settings) -> Wiring:
    """Puts the service together."""
    db = Database(connection_info(settings, "fields"), size=settings.threads)

    def register(server: grpc.Server) -> list[str]:
        custom_field_service_pb2_grpc.add_CrmCustomFieldServiceServicer_to_server(CustomFields(db), server)
        field_rules_service_pb2_grpc.add_FieldRulesServiceServicer_to_server(FieldRules(db), server)
        return [
            custom_field_service_pb2.DESCRIPTOR.services_by_name["CrmCustomFieldService"].full_name,
            field_rules_service_pb2.DESCRIPTOR.services_by_name["FieldRulesService"].full_name,
        ]

    return Wiring(register, closing=[db.close])


if __name__ == "__main__":
    run("fields", wire)
