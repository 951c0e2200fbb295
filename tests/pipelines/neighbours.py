"""The services pipelines talks to, played: forms that has some, contacts that knows who may write to whom."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc
from crm.contacts.v1 import contact_stage_pb2
from crm.contacts.v1 import record_service_pb2 as records_pb
from crm.contacts.v1 import record_service_pb2_grpc as records_service
from crm.forms.v1 import form_catalog_service_pb2 as catalog_pb
from crm.forms.v1 import form_catalog_service_pb2_grpc as catalog_service
from crm.forms.v1 import form_pb2

from services.runtime.callers import caller
from services.runtime.errors import Forbidden, NotFound
from services.runtime.server import Wiring, start
from tests.harness import Houses

STAGES = range(1, 8)
"""The contact stages of every organisation."""
CONTACTS = range(1, 100)
"""The contacts of every organisation."""
KYC_FIELDS = {"kyc_status": "picklist", "id_type": "picklist", "id_number": "text", "amount": "number"}


class ContactNotFound(NotFound):
    """No such contact."""


class NotYourRecord(Forbidden):
    """You may not write to this record."""


class Forms(catalog_service.FormCatalogServiceServicer):
    """Has the forms it is given, and counts how often it is asked."""

    def __init__(self) -> None:
        self.forms: dict[int, form_pb2.Form] = {}
        self.asked = 0
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while the question is answered."""

    def add(self, form_id: int, status: str = "published", fields: dict[str, str] | None = None) -> None:
        given = [form_pb2.FormField(key=key, kind="inline", type=kind) for key, kind in (fields or KYC_FIELDS).items()]
        divider = form_pb2.FormField(key="divider", kind="section_header")
        schema = form_pb2.FormSchema(fields=[*given, divider])
        self.forms[form_id] = form_pb2.Form(id=form_id, status=status, schema=schema)

    def register(self, server: grpc.Server) -> Sequence[str]:
        catalog_service.add_FormCatalogServiceServicer_to_server(self, server)
        return [catalog_pb.DESCRIPTOR.services_by_name["FormCatalogService"].full_name]

    def BatchGetForms(
        self, request: catalog_pb.BatchGetFormsRequest, context: grpc.ServicerContext
    ) -> catalog_pb.BatchGetFormsResponse:
        self.asked += 1
        self.meanwhile()
        return catalog_pb.BatchGetFormsResponse(forms=[self.forms[each] for each in request.ids if each in self.forms])


class Contacts(records_service.RecordServiceServicer):
    """Knows CONTACTS and STAGES; contacts belong to nobody unless `owners` says otherwise."""

    def __init__(self) -> None:
        self.owners: dict[int, int] = {}

    def register(self, server: grpc.Server) -> Sequence[str]:
        records_service.add_RecordServiceServicer_to_server(self, server)
        return [records_pb.DESCRIPTOR.services_by_name["RecordService"].full_name]

    def CheckWriteAccess(
        self, request: records_pb.CheckWriteAccessRequest, context: grpc.ServicerContext
    ) -> records_pb.CheckWriteAccessResponse:
        if request.contact_id not in CONTACTS:
            raise ContactNotFound(field="contact_id")
        if not caller(context).may_write(self.owners.get(request.contact_id, 0)):
            raise NotYourRecord()
        return records_pb.CheckWriteAccessResponse()

    def BatchGetContactStages(
        self, request: records_pb.BatchGetContactStagesRequest, context: grpc.ServicerContext
    ) -> records_pb.BatchGetContactStagesResponse:
        return records_pb.BatchGetContactStagesResponse(
            stages=[contact_stage_pb2.ContactStage(id=each) for each in request.ids if each in STAGES]
        )

    def SeedOrganization(
        self, request: records_pb.SeedOrganizationRequest, context: grpc.ServicerContext
    ) -> records_pb.SeedOrganizationResponse:
        return records_pb.SeedOrganizationResponse()


@contextmanager
def moved_in(houses: Houses, name: str, register: Callable[[grpc.Server], Sequence[str]]) -> Iterator[None]:
    """Serves a played service at the real one's address, behind the real guard."""
    server, _, _ = start(houses.settings(name), Wiring(register))
    try:
        yield
    finally:
        server.stop(None).wait()
