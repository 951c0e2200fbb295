"""The rules every statement keeps so that the same code runs on one PostgreSQL and on a distributed one.

Design, data, statement rules 1–6; the seventh (refusals are known by SQLSTATE) is a matter of Python and tested there.
A scan of the text and no parser: it knows the tables by name and the few shapes that our statements have.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Collection, Iterator

from sqlalchemy import MetaData

import services
from services.runtime.tables import standing

_STORE = re.compile(r"services\.\w+\.store(\.\w+)*")
_TEXT = re.compile(r"'(?:[^']|'')*'")
_COMMENT = re.compile(r"--[^\n]*")
_SPACES = re.compile(r"\s+")
_FORBIDDEN = {
    r"\bset_config\s*\(": "1: set_config, where a transaction opens with set local",
    r"\bcreate (or replace )?(constraint )?trigger\b": "5: a trigger",
    r"\bmerge into\b": "5: merge",
    r"\bcopy\b.*\b(from|to)\b": "5: copy",
    r"\bon delete set (null|default)\b": "5: on delete set null",
    r"\bdeferrable\b|\binitially deferred\b": "5: a deferred constraint",
    r"\bplan_cache_mode\b": "5: plan_cache_mode",
}
_VOLATILE = re.compile(r"\b(random|gen_random_uuid|uuidv7|clock_timestamp|statement_timestamp|timeofday|nextval)\s*\(")
_ITEM = re.compile(r"(?:only )?(?:\w+\.)?(\w+)\b(?! ?[.(])(?: as (?!of\b)(\w+))?")
_NAMED = re.compile(rf"(?<![\w.])(?:from|join|update|using) ({_ITEM.pattern}(?:, ?{_ITEM.pattern})*)")
_INSERT_SELECT = re.compile(r"\binsert into \w+ (\([^)]*\) )?\(*\s*(select|with)\b")
_INSERT = re.compile(r"\binsert into (\w+)(?: as (\w+))? ?(\([^)]*\))?")
_UPSERT = re.compile(r"\bon conflict .*? do update set (.*?)(?= where | returning |$)")


def metadatas() -> dict[str, MetaData]:
    """The tables of every service, as its store describes them; be that a module or a package."""
    for found in pkgutil.walk_packages(services.__path__, "services."):
        if _STORE.fullmatch(found.name):
            importlib.import_module(found.name)
    return loaded_metadatas()


def loaded_metadatas() -> dict[str, MetaData]:
    """The tables of the services that this process has imported."""
    found = {"runtime": standing}
    for name, module in sys.modules.items():
        if _STORE.fullmatch(name) and isinstance(getattr(module, "metadata", None), MetaData):
            found[name.split(".")[1]] = module.metadata
    return found


def names_of(metadatas: dict[str, MetaData]) -> set[str]:
    """The names of these tables."""
    return {name for metadata in metadatas.values() for name in metadata.tables}


def broken_rules(sql: str, tables: Collection[str]) -> list[str]:
    """What a statement breaks, as sentences; nothing when it keeps all of them."""
    text = _SPACES.sub(" ", _TEXT.sub("''", _COMMENT.sub("", sql))).strip().lower()
    found = [why for pattern, why in _FORBIDDEN.items() if re.search(pattern, text)]
    found += _unscoped(text, tables)
    if _INSERT_SELECT.search(text) and " returning " not in text:
        found.append("3: insert … select without returning")
    if len(_INSERT.findall(text)) > 1 and _INSERT_SELECT.search(text):
        found.append("3: one of several inserts selects")
    for change in _UPSERT.findall(text):
        if "select" in change:
            found.append("4: on conflict do update with a select")
    if re.search(r"\b(update|insert into)\b", text) and _VOLATILE.search(text):
        found.append("4: a volatile function in a change")
    if any(re.search(r"\blimit\b", each) for each in _in_selects(text)):
        found.append("6: in (select … limit …)")
    return found


def _unscoped(text: str, tables: Collection[str]) -> Iterator[str]:
    """Rule 2: each table of a statement has its own `organization_id = :organization_id`."""
    wanted: dict[str, int] = {}
    for clause in _NAMED.finditer(text):
        for found in _ITEM.finditer(clause[1]):
            if found[1] in tables:
                name = found[2] or found[1]
                wanted[name] = wanted.get(name, 0) + 1
    for name, times in wanted.items():
        scope = rf"\b{name}\.organization_id = (?:%\(organization_id\)s|\$1\b)"
        if len(re.findall(scope, text)) < times:
            yield f"2: {name} is not scoped by the organisation"
    for target, _, columns in _INSERT.findall(text):
        if target in tables and "organization_id" not in columns:
            yield f"2: {target} is inserted into without the organisation"


def _in_selects(text: str) -> Iterator[str]:
    """The text of every `in (select …)`."""
    for found in re.finditer(r"\bin \(\s*(?=select\b)", text):
        depth, end = 1, found.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        yield text[found.end() : end]
