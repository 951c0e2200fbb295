"""What an action must be by its type, and what it gives: rules R11, R17 and R19 (spec v1 §4.5, D75, D76)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from services.pipelines.definition import Action, Schema
from services.pipelines.graph import KEY, WRONG_KEY, upstream
from services.pipelines.references import ANY, BOOLEAN, NUMBER, PATH, REFERENCE, TEXT, Members, Scope, wrong
from services.pipelines.references import wrong_template as wrong_references
from services.runtime.errors import Violation
from services.runtime.values import is_number, is_whole

FORM, CHECKLIST, CREATE_DEAL, SEND_NOTIFICATION = "form", "checklist", "create_deal", "send_notification"
AWAITED = frozenset({FORM, CHECKLIST})
"""What a person does; the row waits."""
AUTOMATIC = frozenset({CREATE_DEAL, SEND_NOTIFICATION})
"""What runs by itself on entry."""
UNAVAILABLE = AUTOMATIC
"""What nothing can run yet: a pipeline with such an action is not published."""

LARGEST_ID = 2**31 - 1
LONGEST_TEXT = 1_000
LONGEST_TITLE = 255
MOST_ITEMS = 200
MOST_FORMS = 500
"""Different forms in one pipeline: as many as can be asked about at once."""

_KINDS = {
    **dict.fromkeys(("text", "long_text", "date", "datetime", "url", "email", "phone", "picklist", "signature"), TEXT),
    **dict.fromkeys(("number", "currency", "rating"), NUMBER),
    "boolean": BOOLEAN,
}


class Form(NamedTuple):
    """What is known of a form that an action names."""

    published: bool
    fields: Mapping[str, str]
    """The kind of each data field's answer, by the field's key."""


Forms = Mapping[int, Form]
"""The forms that exist, of those a pipeline names."""


def form_ids(schema: Schema) -> list[int]:
    """The forms a pipeline names."""
    return sorted({action.config["form_definition_id"] for _, action in _each(schema) if _names_form(action)})


def kind_of(field_type: str) -> str:
    """The kind of a form field's answer; lists, and types that are not known yet, are `any`."""
    return _KINDS.get(field_type, ANY)


def violations(schema: Schema, forms: Forms, *, publishing: bool) -> Iterator[Violation]:
    """Everything wrong with the actions, each with its path and rule. `publishing`: forms must be published too."""
    before, results = upstream(schema), given_by(schema, forms)
    for index, stage in enumerate(schema.stages):
        ready = scope(results[each] for each in sorted(before[index] - {index}))
        for number, action in enumerate(stage.actions):
            path = f"schema.stages[{index}].actions[{number}]"
            if action.type not in _RULES:
                yield Violation(f"{path}.type", f"R17: must be one of {', '.join(_RULES)}")
                continue
            if stage.terminal and action.type in AWAITED:
                yield Violation(f"{path}.type", f"R15: nobody can do a {action.type} on a terminal stage")
            yield from _wrong_config(path, action, ready)
            if action.type in AUTOMATIC:
                # They run in their order, so that the next one may refer to it; a person is not that quick.
                ready[action.key] = [*ready.get(action.key, ()), results[index][action.key]]
            if _names_form(action):
                yield from _wrong_form(path, action, forms, publishing)
    if len(form_ids(schema)) > MOST_FORMS:
        yield Violation("schema.stages", f"R11: a pipeline names at most {MOST_FORMS} different forms")


def unavailable(schema: Schema) -> Iterator[Violation]:
    """The actions that nothing can run yet."""
    for path, action in _each(schema):
        if action.type in UNAVAILABLE:
            yield Violation(f"{path}.type", f"{action.type} can not be run yet")


def given_by(schema: Schema, forms: Forms) -> list[dict[str, Members]]:
    """For each stage, by index, what its actions give."""
    return [{action.key: _members(action, forms) for action in stage.actions} for stage in schema.stages]


def scope(results: Iterable[Mapping[str, Members]]) -> dict[str, list[Members]]:
    """What may be referred to when stages with these results can have been passed."""
    found: dict[str, list[Members]] = {}
    for each in results:
        for key, members in each.items():
            found.setdefault(key, []).append(members)
    return found


def _members(action: Action, forms: Forms) -> Members:
    if action.type == FORM:
        form = forms.get(action.config["form_definition_id"]) if _names_form(action) else None
        return form.fields if form else None
    if action.type == CHECKLIST:
        items = action.config.get("items")
        known = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
        return {item["key"]: BOOLEAN for item in known if isinstance(item.get("key"), str)}
    return _RESULTS.get(action.type)


_RESULTS: Mapping[str, Members] = {
    "create_deal": {"deal_id": NUMBER, "title": TEXT, "value": NUMBER},
    "send_notification": {"engagement_id": NUMBER, "status": TEXT},
}
"""What automatic actions give (spec v1 D103)."""


def _each(schema: Schema) -> Iterator[tuple[str, Action]]:
    for index, stage in enumerate(schema.stages):
        for number, action in enumerate(stage.actions):
            yield f"schema.stages[{index}].actions[{number}]", action


def _names_form(action: Action) -> bool:
    return action.type == FORM and _is_id(action.config.get("form_definition_id"))


def _wrong_form(path: str, action: Action, forms: Forms, publishing: bool) -> Iterator[Violation]:
    number = action.config["form_definition_id"]
    if number not in forms:
        yield Violation(f"{path}.config.form_definition_id", f"R11: there is no form {number}")
    elif publishing and not forms[number].published:
        yield Violation(f"{path}.config.form_definition_id", f"R11: form {number} is not published")


Rule = Callable[[Any, Scope], Iterator[tuple[str, str]]]
"""What is wrong with one member of a config: where below the member, and what, beginning with the rule."""


class Member(NamedTuple):
    """One member of a config."""

    rule: Rule
    needed: bool = True


def _wrong_config(path: str, action: Action, known: Scope) -> Iterator[Violation]:
    members = _RULES[action.type]
    for name in sorted(action.config.keys() - members.keys()):
        yield Violation(f"{path}.config.{name}", f"R11: is not a member of a {action.type} action")
    for name, member in members.items():
        if action.config.get(name) is None:
            if member.needed:
                yield Violation(f"{path}.config.{name}", f"R11: a {action.type} action needs it")
            continue
        for below, message in member.rule(action.config[name], known):
            yield Violation(f"{path}.config.{name}{below}", message)


def _wrong_id(value: Any, _known: Scope) -> Iterator[tuple[str, str]]:
    if not _is_id(value):
        yield "", "R11: must be an id, a whole number from 1"


def _wrong_items(value: Any, _known: Scope) -> Iterator[tuple[str, str]]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_ITEMS:
        yield "", f"R11: must be a list of 1–{MOST_ITEMS} items"
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            yield f"[{index}]", "R11: must be an item with key and title"
            continue
        for name in sorted(item.keys() - {"key", "title"}):
            yield f"[{index}].{name}", "R11: is not a member of an item"
        key, title = item.get("key"), item.get("title")
        if not isinstance(key, str) or not KEY.fullmatch(key):
            yield f"[{index}].key", f"R19: {WRONG_KEY}"
        elif key in seen:
            yield f"[{index}].key", f"R19: '{key}' stands twice"
        else:
            seen.add(key)
        if not isinstance(title, str) or not title.strip() or len(title) > LONGEST_TITLE:
            yield f"[{index}].title", f"R11: must have 1–{LONGEST_TITLE} characters, not only blanks"


def _wrong_template(value: Any, known: Scope) -> Iterator[tuple[str, str]]:
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_TEXT:
        yield "", f"R11: must be a text of 1–{LONGEST_TEXT} characters, not only blanks"
        return
    yield from (("", f"R11: {problem}") for problem in wrong_references(value, known))


def _wrong_amount(value: Any, known: Scope) -> Iterator[tuple[str, str]]:
    """`a.b` or `{{a.b}}` (spec v1 D77)."""
    found = REFERENCE.fullmatch(value) or PATH.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        yield "", "R11: must be a reference such as {{action_key.path}}"
    elif problem := wrong(found[found.re.groups], known):
        yield "", f"R11: {problem}"


def _wrong_template_id(value: Any, _known: Scope) -> Iterator[tuple[str, str]]:
    if not (_is_id(value) if is_number(value) else isinstance(value, str) and 0 < len(value) <= LONGEST_TITLE):
        yield "", "R11: must be a template's number or name"


def _is_id(value: Any) -> bool:
    return is_whole(value) and 1 <= value <= LARGEST_ID


_RULES: Mapping[str, Mapping[str, Member]] = {
    FORM: {"form_definition_id": Member(_wrong_id)},
    CHECKLIST: {"items": Member(_wrong_items)},
    CREATE_DEAL: {
        "title_template": Member(_wrong_template),
        "deal_stage_id": Member(_wrong_id),
        "amount_var": Member(_wrong_amount, needed=False),
    },
    SEND_NOTIFICATION: {"recipient": Member(_wrong_template), "template_id": Member(_wrong_template_id)},
}
