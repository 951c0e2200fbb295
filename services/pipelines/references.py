"""References: `{{action_key.path}}` in branches and templates, and what may be referred to where (spec v1 §4.6)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

REFERENCE = re.compile(r"\{\{[ \t]*([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*)[ \t]*\}\}")
PATH = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*")
TEXT, NUMBER, BOOLEAN, ANY = "text", "number", "boolean", "any"
"""What kind of value an action gives under a name; any: a list, or not known before the run."""

Members = Mapping[str, str] | None
"""The names an action's result has, with their kinds; None when nobody can know yet."""
Scope = Mapping[str, Sequence[Members]]
"""The actions that may be referred to at one place; several of one key stand on several stages (spec v1 D82)."""


def wrong(path: str, scope: Scope) -> str | None:
    """What is wrong with a reference's path, or None."""
    action, *names = path.split(".")
    if action not in scope:
        return f"no action '{action}' can be completed by then{_hint(action, scope)}"
    known = [members for members in scope[action] if members is not None]
    if len(known) < len(scope[action]) or not names:
        return None
    if not any(names[0] in members for members in known):
        return f"'{action}' gives no '{names[0]}'{_hint(names[0], {name for members in known for name in members})}"
    if len(names) > 1:
        return f"'{action}.{names[0]}' has no members"
    return None


def kind(path: str, scope: Scope) -> str:
    """The kind of value a reference has when it has one."""
    action, *names = path.split(".")
    kinds = {members.get(names[0]) if members else ANY for members in scope.get(action, ())} if names else {ANY}
    kinds.discard(None)
    return kinds.pop() or ANY if len(names) == len(kinds) == 1 else ANY


def wrong_template(template: str, scope: Scope) -> list[str]:
    """What is wrong with the references in a template."""
    found = [(match[0], wrong(match[1], scope)) for match in REFERENCE.finditer(template)]
    problems = [f"{text}: {problem}" for text, problem in found if problem]
    if "{{" in REFERENCE.sub("", template):
        problems.append("a reference is written {{action_key.path}}")
    return problems


def look_up(path: str, variables: Mapping[str, Any]) -> Any:
    """What the variables hold at this path; None when they hold nothing."""
    value: Any = variables
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
