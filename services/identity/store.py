"""The tables of organisations, users and API keys, and their statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    any_,
    bindparam,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)

from services.identity.api_key import ApiKey
from services.identity.errors import ApiKeyInvalid, ApiKeyNotFound, OrganizationNotFound, UserEmailTaken, UserNotFound
from services.identity.people import Organization, User
from services.runtime.db import Transaction, refusing
from services.runtime.lists import Listing
from services.runtime.statements import columns_of, given, mine, statement
from services.runtime.tables import moment, new_metadata, organization_id, record_id

metadata = new_metadata()

organizations = Table(
    "organizations",
    metadata,
    organization_id(),
    Column("name", Text, nullable=False),
    moment("created_at", nullable=False, server_default=text("now()")),
)

users = Table(
    "users",
    metadata,
    organization_id(),
    record_id(),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    moment("created_at", nullable=False, server_default=text("now()")),
    ForeignKeyConstraint(["organization_id"], ["organizations.organization_id"]),
)
Index("users_organization_id_email_key", users.c.organization_id, func.lower(users.c.email), unique=True)

api_keys = Table(
    "api_keys",
    metadata,
    organization_id(),
    record_id(),
    Column("user_id", BigInteger, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_by", BigInteger, nullable=False),
    moment("created_at", nullable=False, server_default=text("now()")),
    moment("last_used_at"),
    moment("revoked_at"),
    UniqueConstraint("organization_id", "secret_hash"),
    ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"]),
)


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom an API key speaks for, and whether its use is to be noted again."""

    key_id: int
    secret_hash: bytes
    user_id: int
    role: str
    is_unnoted: bool


_organization = columns_of(organizations, Organization)
_user = columns_of(users, User)
_this_key = (mine(api_keys), api_keys.c.id == given("id", api_keys.c.id))
_unnoted = or_(
    api_keys.c.last_used_at.is_(null()), api_keys.c.last_used_at < func.now() - literal_column("interval '1 minute'")
)

FOUND = statement(
    insert(organizations).values({name: given(name, organizations.c[name]) for name in ("organization_id", "name")})
)
GET_ORGANIZATION = statement(select(*_organization).where(mine(organizations)), Organization)
ADD_USER = statement(
    insert(users)
    .values({name: given(name, users.c[name]) for name in ("organization_id", "id", "email", "name", "role")})
    .returning(*_user),
    User,
)
GET_USER = statement(select(*_user).where(mine(users), users.c.id == given("id", users.c.id)), User)
GET_USERS = statement(
    select(*_user)
    .where(mine(users), users.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))
    .order_by(users.c.id),
    User,
)
PEOPLE = Listing(users, _user, User, users.c.id)
"""People by id."""
ADD_KEY = statement(
    insert(api_keys).values(
        {
            name: given(name, api_keys.c[name])
            for name in ("organization_id", "id", "user_id", "secret_hash", "created_by")
        }
    )
)
FIND_KEY = statement(
    select(
        api_keys.c.id.label("key_id"),
        api_keys.c.secret_hash,
        api_keys.c.user_id,
        users.c.role,
        _unnoted.label("is_unnoted"),
    )
    .join_from(api_keys, users, api_keys.c.user_id == users.c.id)
    .where(
        mine(api_keys),
        mine(users),
        api_keys.c.secret_hash == given("secret_hash", api_keys.c.secret_hash),
        api_keys.c.revoked_at.is_(null()),
    ),
    Holder,
)
NOTE_USE = statement(update(api_keys).where(*_this_key, _unnoted).values(last_used_at=func.now()))
REVOKE_KEY = statement(
    update(api_keys).where(*_this_key).values(revoked_at=func.coalesce(api_keys.c.revoked_at, func.now()))
)


def found(tx: Transaction, name: str) -> None:
    """Adds the transaction's organisation itself."""
    tx.run(FOUND, name=name)


def get_organization(tx: Transaction) -> Organization:
    """The transaction's organisation. Raises OrganizationNotFound."""
    organization = tx.one(GET_ORGANIZATION)
    if organization is None:
        raise OrganizationNotFound()
    return organization


def add_user(tx: Transaction, **members: Any) -> User:
    """Adds a person. Raises OrganizationNotFound, UserEmailTaken."""
    # Asked first: the id of a user that is refused for want of an organisation would be missing once there is one.
    get_organization(tx)
    return add_first_user(tx, **members)


def add_first_user(tx: Transaction, **members: Any) -> User:
    """Adds a person to an organisation that is known to exist. Raises UserEmailTaken."""
    with refusing(unique=UserEmailTaken, field="email"):
        user = tx.one(ADD_USER, id=tx.new_id("user"), **members)
    assert user is not None
    return user


def get_user(tx: Transaction, user_id: int) -> User:
    """The person. Raises UserNotFound."""
    user = tx.one(GET_USER, id=user_id)
    if user is None:
        raise UserNotFound()
    return user


def get_users(tx: Transaction, ids: Sequence[int]) -> list[User]:
    """Those of the people that exist, by id."""
    return tx.all(GET_USERS, ids=list(ids))


def add_key(tx: Transaction, user_id: int, key: ApiKey) -> int:
    """Keeps what is kept of a key; answers its id. Raises UserNotFound."""
    key_id = tx.new_id("api_key")
    with refusing(missing=UserNotFound, field="user_id"):
        tx.run(ADD_KEY, id=key_id, user_id=user_id, secret_hash=key.digest, created_by=tx.who.user_id)
    return key_id


def holder_of(tx: Transaction, key: ApiKey) -> Holder:
    """Whom a key speaks for; notes its use, once a minute at most. Raises ApiKeyInvalid."""
    holder = tx.one(FIND_KEY, secret_hash=key.digest)
    if holder is None or not key.matches(holder.secret_hash):
        raise ApiKeyInvalid()
    if holder.is_unnoted:
        tx.run(NOTE_USE, id=holder.key_id)
    return holder


def revoke_key(tx: Transaction, key_id: int) -> None:
    """Ends a key, for good. Raises ApiKeyNotFound."""
    if not tx.run(REVOKE_KEY, id=key_id):
        raise ApiKeyNotFound()
