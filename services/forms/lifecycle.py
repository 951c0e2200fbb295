"""What may become of a form version: draft → published → archived, and when it may be deleted.

spec v1 §2.1, §2.7–2.9, D36, D40–D44. The moments of a change are the database's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from services.forms.errors import (
    FormEmpty,
    FormHasSubmissions,
    FormNotDraft,
    FormNotPublished,
    FormPublished,
    FormSchemaInvalid,
)
from services.forms.schema import Definition, Schema, frozen, violations
from services.runtime.errors import Aborted, report


@dataclass(frozen=True, slots=True)
class Form:
    """One version of a form. `schema` is the document that `Schema.of` reads."""

    id: int
    organization_id: int
    name: str
    description: str
    version: int
    status: str
    schema: dict[str, Any]
    created_by: int
    published_at: datetime | None
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime


def change(form: Form, *, description: str | None = None, schema: Schema | None = None) -> Form:
    """The draft with what is given. Raises FormNotDraft."""
    _refuse_unless_draft(form)
    return replace(
        form,
        description=form.description if description is None else description,
        schema=form.schema if schema is None else schema.document(),
    )


def publish(form: Form, judged: Mapping[str, Any], definitions: Mapping[int, Definition]) -> Form:
    """The draft published, with what its references copy; `definitions` are those that the schema `judged` names.

    Raises FormNotDraft, Aborted when the draft has another schema by now, FormEmpty, FormSchemaInvalid.
    """
    _refuse_unless_draft(form)
    if form.schema != judged:
        raise Aborted()
    schema = Schema.of(form.schema)
    if not schema.data_fields:
        raise FormEmpty(field="schema.fields")
    report(violations(schema, definitions), FormSchemaInvalid)
    return replace(form, status="published", schema=frozen(schema, definitions).document())


def archive(form: Form) -> Form:
    """The form archived; an archived one is left as it is."""
    return form if form.status == "archived" else replace(form, status="archived")


def refuse_unless_published(form: Form) -> None:
    """Submissions and forks are for published versions alone. Raises FormNotPublished."""
    if form.status != "published":
        raise FormNotPublished()


def refuse_deletion(form: Form, *, submitted: bool) -> None:
    """Raises FormHasSubmissions, FormPublished (D42)."""
    if submitted:
        raise FormHasSubmissions()
    if form.status == "published":
        raise FormPublished()


def _refuse_unless_draft(form: Form) -> None:
    if form.status != "draft":
        raise FormNotDraft()
