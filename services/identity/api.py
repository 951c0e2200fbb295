"""Identity over gRPC: the caller's organisation for everyone in it, organisations and credentials for the operator."""

import grpc
from crm.contacts.v1 import record_service_pb2
from crm.identity.v1 import identity_admin_service_pb2 as admin_pb
from crm.identity.v1 import identity_admin_service_pb2_grpc as admin_service
from crm.identity.v1 import identity_service_pb2 as pb
from crm.identity.v1 import identity_service_pb2_grpc as service
from crm.identity.v1 import jwks_pb2, organization_pb2, user_pb2

from services.identity import people, store
from services.identity.api_key import new_key, read_key
from services.identity.people import Organization, User
from services.identity.tokens import EXCHANGED_LIFETIME, LIFETIME, Signer
from services.runtime.callers import Caller, caller
from services.runtime.db import Database, Event, Replay
from services.runtime.errors import report
from services.runtime.messages import timestamp
from services.runtime.server import meta

PLATFORM = 0
"""The organisation that counts organisations: Millrace itself."""
ORGANIZATION_FOUNDED = Event("contacts", "/crm.contacts.v1.RecordService/SeedOrganization")


class Identity(service.IdentityServiceServicer):
    """spec v1 §8.8."""

    def __init__(self, db: Database, signer: Signer) -> None:
        self._db, self._signer = db, signer

    def GetOrganization(
        self, _request: pb.GetOrganizationRequest, context: grpc.ServicerContext
    ) -> pb.GetOrganizationResponse:
        """Reads the caller's organisation."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.GetOrganizationResponse(data=_organization(store.get_organization(tx)), meta=meta(who))

    def CreateUser(self, request: pb.CreateUserRequest, context: grpc.ServicerContext) -> pb.CreateUserResponse:
        """Adds a person to the caller's organisation."""
        who = caller(context)
        report(people.email_violations("email", request.email))
        if not who.is_service:
            people.refuse_promotion(request.role, who.roles)
        with self._db.transaction(who) as tx:
            user = store.add_user(tx, email=request.email, name=request.name, role=request.role)
            return tx.reply(pb.CreateUserResponse(data=_user(user), meta=meta(who)))

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Reads one person."""
        who = caller(context)
        with self._db.reading(who) as tx:
            return pb.GetUserResponse(data=_user(store.get_user(tx, request.id)), meta=meta(who))

    def ListUsers(self, request: pb.ListUsersRequest, context: grpc.ServicerContext) -> pb.ListUsersResponse:
        """Lists people by id."""
        with self._db.reading(caller(context)) as tx:
            found, about = store.PEOPLE.page(tx, request)
        return pb.ListUsersResponse(data=map(_user, found), meta=about)

    def GetJwks(self, _request: pb.GetJwksRequest, _context: grpc.ServicerContext) -> pb.GetJwksResponse:
        """The keys users' tokens are verified with."""
        return pb.GetJwksResponse(keys=[jwks_pb2.JsonWebKey(**self._signer.public_key())])


class IdentityAdmin(admin_service.IdentityAdminServiceServicer):
    """What the operator and Millrace's own services ask; not reachable through the gateway."""

    def __init__(self, db: Database, signer: Signer) -> None:
        self._db, self._signer = db, signer

    def CreateOrganization(
        self, request: admin_pb.CreateOrganizationRequest, context: grpc.ServicerContext
    ) -> admin_pb.CreateOrganizationResponse:
        """Makes an organisation and its first user, and has its stages seeded."""
        if request.admin_email:
            report(people.email_violations("admin_email", request.admin_email))
        who = _acting_in(PLATFORM, caller(context))
        who = _acting_in(_reserve(self._db, who), who)
        with self._db.transaction(who) as tx:
            store.found(tx, request.name)
            email = request.admin_email or people.first_email(who.organization_id)
            user = store.add_first_user(tx, email=email, name="Admin", role=people.SUPER_ADMIN)
            tx.emit(ORGANIZATION_FOUNDED, record_service_pb2.SeedOrganizationRequest())
            return tx.reply(admin_pb.CreateOrganizationResponse(organization_id=who.organization_id, user_id=user.id))

    def AddUser(self, request: admin_pb.AddUserRequest, context: grpc.ServicerContext) -> admin_pb.AddUserResponse:
        """Adds a person to any organisation."""
        report(people.email_violations("email", request.email))
        with self._db.transaction(_acting_in(request.organization_id, caller(context))) as tx:
            user = store.add_user(tx, email=request.email, name=request.name, role=request.role)
            return tx.reply(admin_pb.AddUserResponse(user=_user(user)))

    def MintToken(
        self, request: admin_pb.MintTokenRequest, context: grpc.ServicerContext
    ) -> admin_pb.MintTokenResponse:
        """Signs a token for a user."""
        with self._db.reading(_acting_in(request.organization_id, caller(context))) as tx:
            user = store.get_user(tx, request.user_id)
        lifetime = request.ttl_seconds or LIFETIME
        token = self._signer.token(user.organization_id, user.id, user.role, lifetime)
        return admin_pb.MintTokenResponse(token=token, expires_in=lifetime)

    def CreateApiKey(
        self, request: admin_pb.CreateApiKeyRequest, context: grpc.ServicerContext
    ) -> admin_pb.CreateApiKeyResponse:
        """Makes an API key that acts as a user."""
        who = _keeping_no_answer(_acting_in(request.organization_id, caller(context)))
        key = new_key(who.organization_id)
        with self._db.transaction(who) as tx:
            key_id = store.add_key(tx, request.user_id, key)
            return tx.reply(admin_pb.CreateApiKeyResponse(api_key=str(key), api_key_id=key_id))

    def RevokeApiKey(
        self, request: admin_pb.RevokeApiKeyRequest, context: grpc.ServicerContext
    ) -> admin_pb.RevokeApiKeyResponse:
        """Ends an API key."""
        with self._db.transaction(_acting_in(request.organization_id, caller(context))) as tx:
            store.revoke_key(tx, request.api_key_id)
            return tx.reply(admin_pb.RevokeApiKeyResponse())

    def ExchangeApiKey(
        self, request: admin_pb.ExchangeApiKeyRequest, context: grpc.ServicerContext
    ) -> admin_pb.ExchangeApiKeyResponse:
        """A short-lived token for an API key."""
        key = read_key(request.api_key)
        with self._db.transaction(_keeping_no_answer(_acting_in(key.organization_id, caller(context)))) as tx:
            holder = store.holder_of(tx, key)
        token = self._signer.token(key.organization_id, holder.user_id, holder.role, EXCHANGED_LIFETIME)
        return admin_pb.ExchangeApiKeyResponse(token=token, expires_in=EXCHANGED_LIFETIME)

    def BatchGetUsers(
        self, request: admin_pb.BatchGetUsersRequest, context: grpc.ServicerContext
    ) -> admin_pb.BatchGetUsersResponse:
        """Reads people of the caller's organisation by id."""
        with self._db.reading(caller(context)) as tx:
            return admin_pb.BatchGetUsersResponse(users=map(_user, store.get_users(tx, request.ids)))


def _acting_in(organization_id: int, who: Caller) -> Caller:
    """The caller, from here on in the organisation the request names: its rows, its events, its line in the log.

    Only services reach the rpcs that do this.
    """
    who.organization_id = organization_id
    return who


def _keeping_no_answer(who: Caller) -> Caller:
    """The caller without its Idempotency-Key: an answer kept for a repeat would be the secret kept."""
    who.idempotency_key = ""
    return who


def _reserve(db: Database, who: Caller) -> int:
    """A new organisation's id, counted by the platform; the same one for a repeat under an Idempotency-Key.

    An organisation's rows can not be written by the transaction that takes its id. Were the answer alone kept there, a
    crash in between would leave a repeat with an organisation that does not exist; so the id is kept under the key by
    the platform, and the effect under the same key by the new organisation. Two statements more than a key costs else.
    """
    try:
        with db.transaction(who) as tx:
            reserved = admin_pb.CreateOrganizationResponse(organization_id=tx.new_id("organization"))
            return tx.reply(reserved).organization_id
    except Replay as replay:
        return admin_pb.CreateOrganizationResponse.FromString(replay.response).organization_id


def _organization(organization: Organization) -> organization_pb2.Organization:
    return organization_pb2.Organization(
        id=organization.organization_id, name=organization.name, created_at=timestamp(organization.created_at)
    )


def _user(user: User) -> user_pb2.User:
    return user_pb2.User(
        id=user.id,
        organization_id=user.organization_id,
        email=user.email,
        name=user.name,
        role=user.role,
        created_at=timestamp(user.created_at),
    )
