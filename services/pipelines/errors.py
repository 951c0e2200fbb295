"""What pipelines and their runs refuse."""

from services.runtime.errors import Conflict, Invalid, NotFound, Refused


class PipelineNotFound(NotFound):
    """No such pipeline."""


class PipelineNameTaken(Conflict):
    """A pipeline of this name exists; fork its published version to change it."""


class PipelineNotDraft(Refused):
    """Only a draft can be changed or published."""


class PipelineNotPublished(Refused):
    """The pipeline is not published."""


class PipelinePublished(Refused):
    """A published pipeline can not be deleted; archive it first."""


class PipelineHasRuns(Refused):
    """The pipeline has been enrolled in; its runs keep it."""


class PipelineSchemaInvalid(Refused):
    """The pipeline breaks a rule."""


class ActionTypeUnavailable(Refused):
    """Actions of this type can not be run yet."""


class ContactStageNotFound(NotFound):
    """No such contact stage."""


class PipelineSubjectMismatch(Invalid):
    """The pipeline is for another kind of record."""


class PipelineAlreadyEnrolled(Refused):
    """An open run of this pipeline exists for this record."""


class PipelineRunNotFound(NotFound):
    """No such pipeline run."""


class PipelineRunNotRunning(Refused):
    """The run is not running."""


class PipelineRunNotPaused(Refused):
    """The run is not paused."""


class PipelineRunEnded(Refused):
    """The run has ended."""


class StageUnknown(Invalid):
    """The run's version of the pipeline has no such stage."""


class RunActionNotFound(NotFound):
    """No such action of a pipeline run."""


class RunActionNotPending(Refused):
    """The action is not waiting for a submission."""


class RunActionMismatch(Invalid):
    """The submission does not fit the action."""


class RunActionNotChecklist(Refused):
    """The action is not a checklist."""


class RunActionNotOpen(Refused):
    """The action is not open any more."""


class RunActionRequired(Refused):
    """The stage waits for this action; it can not be skipped."""
