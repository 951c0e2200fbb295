"""What contacts and accounts refuse."""

from services.runtime.errors import Conflict, Forbidden, Invalid, NotFound, Refused


class ContactNotFound(NotFound):
    """No such contact."""


class AccountNotFound(NotFound):
    """No such account."""


class ParentAccountNotFound(NotFound):
    """No such account to stand below."""


class ContactStageNotFound(NotFound):
    """No such contact stage."""


class OwnerNotFound(NotFound):
    """No such user to look after the record."""


class NotYourRecord(Forbidden):
    """Another user looks after this record."""


class AccountCycle(Invalid):
    """An account cannot stand below itself."""


class ContactStageNameTaken(Conflict):
    """Another contact stage has this name."""


class ContactStageInUse(Refused):
    """A contact stands on this stage."""
