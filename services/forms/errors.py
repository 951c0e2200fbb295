"""What forms refuse."""

from services.runtime.errors import Conflict, NotFound, Refused


class FormNotFound(NotFound):
    """No such form."""


class FormSubmissionNotFound(NotFound):
    """No such form submission."""


class FormNameTaken(Conflict):
    """A form of this name exists."""


class FormNotDraft(Refused):
    """Only a draft can be changed or published."""


class FormNotPublished(Refused):
    """Only a published form takes submissions and can be forked."""


class FormEmpty(Refused):
    """A form needs at least one field that holds a value to be published."""


class FormSchemaInvalid(Refused):
    """The schema breaks a rule."""


class FormPublished(Refused):
    """A published form can not be deleted; archive it first."""


class FormHasSubmissions(Refused):
    """The form has submissions, deleted ones counted."""


class RunActionNotPending(Refused):
    """The run action was completed by another submission."""
