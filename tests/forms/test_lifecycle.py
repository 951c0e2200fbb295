"""What may become of a form version, as decisions over values, and as a walk beside a model (spec v1 §2.1)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from services.forms import lifecycle
from services.forms.errors import (
    FormEmpty,
    FormHasSubmissions,
    FormNotDraft,
    FormNotPublished,
    FormPublished,
    FormSchemaInvalid,
)
from services.forms.lifecycle import Form
from services.forms.schema import Definition, Schema
from services.runtime.errors import Aborted, ServiceError
from tests.forms.world import entry, inline, options, reference, schema

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = schema(inline("a"))
EMPTY = schema({"key": "about", "kind": "section_header"})
PICKLIST = Definition(1, "contact", True, "picklist", {}, options("x"))


def form(status: str = "draft", asked: dict[str, Any] = ASKED) -> Form:
    return Form(1, 1, "KYC", "", 1, status, Schema.of(asked).document(), 1, None, None, NOW, NOW)


def publish(draft: Form, *definitions: Definition) -> Form:
    return lifecycle.publish(draft, draft.schema, {each.id: each for each in definitions})


ACTIONS: dict[str, Callable[[Form], Any]] = {
    "change": lambda each: lifecycle.change(each, description="new").status,
    "publish": lambda each: publish(each).status,
    "fork": lifecycle.refuse_unless_published,
    "archive": lambda each: lifecycle.archive(each).status,
    "delete": lambda each: lifecycle.refuse_deletion(each, submitted=False),
    "delete with submissions": lambda each: lifecycle.refuse_deletion(each, submitted=True),
}
TABLE: dict[str, tuple[Any, Any, Any]] = {
    # what becomes of:          a draft             a published one     an archived one
    "change":                  ("draft",            FormNotDraft,       FormNotDraft),
    "publish":                 ("published",        FormNotDraft,       FormNotDraft),
    "fork":                    (FormNotPublished,   None,               FormNotPublished),
    "archive":                 ("archived",         "archived",         "archived"),
    "delete":                  (None,               FormPublished,      None),
    "delete with submissions": (FormHasSubmissions, FormHasSubmissions, FormHasSubmissions),
}  # fmt: skip


def outcome(action: Callable[[Form], Any], of: Form) -> Any:
    try:
        return action(of)
    except ServiceError as error:
        return type(error)


@pytest.mark.parametrize("action", TABLE)
@pytest.mark.parametrize(("at", "status"), list(enumerate(("draft", "published", "archived"))))
def test_a_status_allows_what_the_table_says(action: str, at: int, status: str) -> None:
    assert outcome(ACTIONS[action], form(status)) == TABLE[action][at]


def test_an_archived_form_is_archived_again_without_a_change() -> None:
    archived = form("archived")
    assert lifecycle.archive(archived) is archived


def test_a_change_keeps_what_it_does_not_name() -> None:
    draft = replace(form(), description="old")
    assert lifecycle.change(draft) == draft
    assert lifecycle.change(draft, description="") == replace(draft, description="")
    assert lifecycle.change(draft, schema=Schema()) == replace(draft, schema=Schema().document())


# what the draft asks, the definitions there are → how publishing ends
PUBLISHING: dict[str, tuple[dict[str, Any], list[Definition], Any]] = {
    "nothing": (schema(), [], FormEmpty),
    "headers alone": (EMPTY, [], FormEmpty),
    "an inline field": (ASKED, [], None),
    "a reference alone": (schema(reference("a", 1)), [PICKLIST], None),
    "a definition that is archived by now": (
        schema(reference("a", 1)), [replace(PICKLIST, is_active=False)], FormSchemaInvalid,
    ),
    "a definition that is gone": (schema(reference("a", 1)), [], FormSchemaInvalid),
    "a write-back that is archived by now": (
        schema(inline("a"), write_back=[entry("a", 1)]), [replace(PICKLIST, is_active=False)], FormSchemaInvalid,
    ),
    "another broken rule": (schema(inline("a", "picklist")), [], FormSchemaInvalid),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "definitions", "refusal"), PUBLISHING.values(), ids=PUBLISHING)
def test_a_draft_is_published_when_it_obeys_every_rule(
    asked: dict[str, Any], definitions: list[Definition], refusal: Any
) -> None:
    ended = outcome(lambda each: publish(each, *definitions).status, form(asked=asked))
    assert ended == (refusal or "published")


def test_a_refused_publish_names_every_violation() -> None:
    asked = schema(reference("a", 1), inline("b", "picklist"))
    with pytest.raises(FormSchemaInvalid) as refused:
        publish(form(asked=asked))
    assert [each.field for each in refused.value.violations] == [
        "schema.fields[0].custom_field_definition_id",
        "schema.fields[1].picklist_options",
    ]


def test_a_published_form_has_what_its_references_copy() -> None:
    published = publish(form(asked=schema(reference("a", 1))), PICKLIST)
    assert published.schema["fields"][0]["picklist_options"] == options("x")
    assert published.schema["fields"][0]["type"] == "picklist"


def test_a_draft_that_changed_since_it_was_judged_is_not_published() -> None:
    with pytest.raises(Aborted):
        lifecycle.publish(form(), form(asked=EMPTY).schema, {})


def test_a_draft_that_was_published_since_it_was_judged_is_no_draft() -> None:
    with pytest.raises(FormNotDraft):
        lifecycle.publish(form("published"), form(asked=EMPTY).schema, {})


class Family(RuleBasedStateMachine):
    """Versions of one family under any sequence of calls, beside a model that knows each one's status and nothing more.

    Numbers and submissions, which the store keeps, are played here.
    """

    versions: Bundle[int] = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[int, Form] = {}
        self.submitted: set[int] = set()
        self.model: dict[int, str] = {}
        self.frozen: dict[int, dict[str, Any]] = {}
        self.last = 0

    @rule(target=versions, asked=st.sampled_from([ASKED, EMPTY]))
    def create(self, asked: dict[str, Any]) -> int:
        return self._add(form(asked=asked))

    @rule(target=versions, source=versions)
    def fork(self, source: int) -> int:
        refused = self._refused(source, lambda each: lifecycle.refuse_unless_published(each))
        assert refused == (self.model.get(source) != "published")
        return source if refused else self._add(replace(self.forms[source], status="draft"))

    @rule(version=versions, asked=st.sampled_from([ASKED, EMPTY]))
    def change(self, version: int, asked: dict[str, Any]) -> None:
        refused = self._refused(version, lambda each: lifecycle.change(each, schema=Schema.of(asked)))
        assert refused == (self.model.get(version) != "draft")

    @rule(version=versions)
    def publish(self, version: int) -> None:
        empty = version in self.forms and not Schema.of(self.forms[version].schema).data_fields
        refused = self._refused(version, publish)
        assert refused == (self.model.get(version) != "draft" or empty)
        if not refused:
            self.model[version] = "published"
            self.frozen[version] = self.forms[version].schema

    @rule(version=versions)
    def archive(self, version: int) -> None:
        refused = self._refused(version, lifecycle.archive)
        assert refused == (version not in self.model)
        if not refused:
            self.model[version] = "archived"

    @rule(version=versions)
    def submit(self, version: int) -> None:
        refused = self._refused(version, lambda each: lifecycle.refuse_unless_published(each))
        assert refused == (self.model.get(version) != "published")
        if not refused:
            self.submitted.add(version)

    @rule(version=versions)
    def delete(self, version: int) -> None:
        submitted = version in self.submitted
        refused = self._refused(version, lambda each: lifecycle.refuse_deletion(each, submitted=submitted))
        assert refused == (self.model.get(version) not in ("draft", "archived") or submitted)
        if not refused:
            del self.model[version], self.forms[version]

    @invariant()
    def every_version_has_the_status_the_model_knows(self) -> None:
        assert {number: each.status for number, each in self.forms.items()} == self.model

    @invariant()
    def what_was_published_never_changes(self) -> None:
        for number, asked in self.frozen.items():
            assert number not in self.forms or self.forms[number].schema == asked

    @invariant()
    def what_was_submitted_is_never_deleted(self) -> None:
        assert self.submitted <= self.forms.keys()

    def _add(self, made: Form) -> int:
        self.last += 1
        self.forms[self.last], self.model[self.last] = replace(made, version=self.last), "draft"
        return self.last

    def _refused(self, version: int, act: Callable[[Form], Form | None]) -> bool:
        if version not in self.forms:
            return True
        try:
            self.forms[version] = act(self.forms[version]) or self.forms[version]
        except ServiceError:
            return True
        return False


TestFamily = Family.TestCase
TestFamily.settings = settings(max_examples=60, stateful_step_count=30, deadline=None, derandomize=True)
