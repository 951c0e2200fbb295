"""The pipelines service: the only place where it is put together."""

import grpc
from crm.pipelines.v1 import (
    pipeline_run_service_pb2,
    pipeline_run_service_pb2_grpc,
    pipeline_service_pb2,
    pipeline_service_pb2_grpc,
    run_event_service_pb2,
    run_event_service_pb2_grpc,
)

from services.pipelines.api import PipelineRuns, Pipelines, RunEvents
from services.pipelines.clients import Contacts, Forms
from services.runtime.channels import connect
from services.runtime.db import Database, connection_info
from services.runtime.server import Wiring, run
from services.runtime.settings import Settings


def wire(settings: Settings) -> Wiring:
    """Puts the service together."""
    db = Database(connection_info(settings, "pipelines"), size=settings.threads)
    channels = {name: connect(settings, name) for name in ("contacts", "forms")}
    contacts, forms = Contacts(channels["contacts"]), Forms(channels["forms"])

    def register(server: grpc.Server) -> list[str]:
        pipeline_service_pb2_grpc.add_CrmPipelineServiceServicer_to_server(Pipelines(db, forms, contacts), server)
        pipeline_run_service_pb2_grpc.add_CrmPipelineRunServiceServicer_to_server(PipelineRuns(db, contacts), server)
        run_event_service_pb2_grpc.add_RunEventServiceServicer_to_server(RunEvents(db), server)
        return [
            pipeline_service_pb2.DESCRIPTOR.services_by_name["CrmPipelineService"].full_name,
            pipeline_run_service_pb2.DESCRIPTOR.services_by_name["CrmPipelineRunService"].full_name,
            run_event_service_pb2.DESCRIPTOR.services_by_name["RunEventService"].full_name,
        ]

    return Wiring(register, closing=[*(each.close for each in channels.values()), db.close])


if __name__ == "__main__":
    run("pipelines", wire)
