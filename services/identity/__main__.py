"""The identity service: the only place where it is put together."""

import grpc
from crm.identity.v1 import (
    identity_admin_service_pb2,
    identity_admin_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
)

from services.identity.api import Identity, IdentityAdmin
from services.identity.tokens import Signer
from services.runtime.db import Database, connection_info
from services.runtime.outbox import Outbox
from services.runtime.server import Wiring, run
from services.runtime.settings import Settings


def wire(settings: Settings) -> Wiring:
    """Puts the service together."""
    if settings.signing_key is None:
        raise ValueError("identity signs tokens: set MILLRACE_SIGNING_KEY")
    signer = Signer(settings.signing_key, settings.issuer, settings.audience)
    db = Database(connection_info(settings, "identity"), size=settings.threads)
    outbox = Outbox("identity", settings, db)
    db.after_commit = outbox.deliver

    def register(server: grpc.Server) -> list[str]:
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(Identity(db, signer), server)
        identity_admin_service_pb2_grpc.add_IdentityAdminServiceServicer_to_server(IdentityAdmin(db, signer), server)
        return [
            identity_service_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name,
            identity_admin_service_pb2.DESCRIPTOR.services_by_name["IdentityAdminService"].full_name,
        ]

    return Wiring(register, starting=[outbox.start], closing=[outbox.close, db.close])


if __name__ == "__main__":
    run("identity", wire)
