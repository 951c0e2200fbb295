"""The services contacts talks to, played: identity that knows some people, pipelines that notes what it is told."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc
from crm.identity.v1 import identity_admin_service_pb2 as identity_pb
from crm.identity.v1 import identity_admin_service_pb2_grpc as identity_service
from crm.identity.v1 import user_pb2
from crm.pipelines.v1 import run_event_service_pb2 as events_pb
from crm.pipelines.v1 import run_event_service_pb2_grpc as events_service

from services.runtime.callers import caller
from services.runtime.server import Wiring, start
from tests.harness import Houses

PEOPLE = range(1, 10)
"""The users of every organisation."""


class Identity(identity_service.IdentityAdminServiceServicer):
    """Knows PEOPLE, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def register(self, server: grpc.Server) -> Sequence[str]:
        identity_service.add_IdentityAdminServiceServicer_to_server(self, server)
        return [identity_pb.DESCRIPTOR.services_by_name["IdentityAdminService"].full_name]

    def BatchGetUsers(
        self, request: identity_pb.BatchGetUsersRequest, context: grpc.ServicerContext
    ) -> identity_pb.BatchGetUsersResponse:
        self.asked += 1
        return identity_pb.BatchGetUsersResponse(
            users=[user_pb2.User(id=each) for each in request.ids if each in PEOPLE]
        )


class Pipelines(events_service.RunEventServiceServicer):
    """Notes what it is told, and for whom."""

    def __init__(self) -> None:
        self.entered: list[tuple[int, int]] = []
        """Contact and stage."""
        self.cancelled: list[tuple[str, int]] = []
        self.acting: list[tuple[int, int]] = []
        """Organisation and user of each call."""

    def register(self, server: grpc.Server) -> Sequence[str]:
        events_service.add_RunEventServiceServicer_to_server(self, server)
        return [events_pb.DESCRIPTOR.services_by_name["RunEventService"].full_name]

    def EnterContactStage(
        self, request: events_pb.EnterContactStageRequest, context: grpc.ServicerContext
    ) -> events_pb.EnterContactStageResponse:
        self._note(context)
        self.entered.append((request.contact_id, request.contact_stage_id))
        return events_pb.EnterContactStageResponse()

    def CancelSubjectRuns(
        self, request: events_pb.CancelSubjectRunsRequest, context: grpc.ServicerContext
    ) -> events_pb.CancelSubjectRunsResponse:
        self._note(context)
        self.cancelled.append((request.subject_type, request.subject_id))
        return events_pb.CancelSubjectRunsResponse()

    def _note(self, context: grpc.ServicerContext) -> None:
        who = caller(context)
        self.acting.append((who.organization_id, who.user_id))


@contextmanager
def moved_in(houses: Houses, name: str, register: Callable[[grpc.Server], Sequence[str]]) -> Iterator[None]:
    """Serves a played service at the real one's address, behind the real guard."""
    server, _, _ = start(houses.settings(name), Wiring(register))
    try:
        yield
    finally:
        server.stop(None).wait()
