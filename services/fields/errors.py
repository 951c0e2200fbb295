"""What custom fields refuse."""

from services.runtime.errors import Conflict, NotFound


class CustomFieldNotFound(NotFound):
    """No such custom field."""


class CustomFieldKeyTaken(Conflict):
    """A custom field of this object type has this key, in use or archived."""
