"""What identity refuses."""

from services.runtime.errors import Conflict, Forbidden, NotFound, Unauthenticated


class OrganizationNotFound(NotFound):
    """No such organisation."""


class UserNotFound(NotFound):
    """No such user."""


class UserEmailTaken(Conflict):
    """A user of this organisation has this e-mail address."""


class RoleAboveYours(Forbidden):
    """Only a super admin makes a super admin."""


class ApiKeyNotFound(NotFound):
    """No such API key."""


class ApiKeyInvalid(Unauthenticated):
    """The API key is not valid."""
