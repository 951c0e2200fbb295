"""Which way a run goes on: the branch language, and all of CEL behind it.

A branch is a condition in CEL (Common Expression Language) over `{{action_key.path}}` references. A reference becomes a
bound name of the same length before CEL sees the text, so an answer is a value and never a piece of a program, and
CEL's positions are those of the author's text. Texts in quotes and comments are left alone.

An author learns at once of an unknown reference, of a comparison between unlike types, and of arithmetic that mixes
whole numbers with answers: answers are doubles, as all numbers of JSON are. While a run is on its way nothing raises:
a reference without a value is null, and what can not be evaluated is not taken and leaves a note.

The language is kept to what costs no more than its own length: no loops (all, exists, map …) and no joining of texts
or lists. CEL's own budget counts iterations and not memory: a loop that joins a long answer to itself took a process
down within it.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from cel_expr_python import cel

from services.pipelines.actions import Forms, given_by, scope
from services.pipelines.definition import DEFAULT, Schema
from services.pipelines.graph import upstream
from services.pipelines.references import BOOLEAN, NUMBER, REFERENCE, TEXT, Scope, kind, look_up, wrong
from services.runtime.errors import Violation
from services.runtime.values import is_number

LONGEST = 2_000
"""Characters of an expression."""
MOST_READ = 64 * 1024
"""Characters of answers that one condition may read."""
REMEMBERED = 2_000

_LANGUAGE = cel.NewEnvConfigFromYaml("""
stdlib:
  exclude_macros: [all, exists, exists_one, filter, map]
  exclude_functions:
  - name: "_+_"
    overloads: [{id: add_string}, {id: add_bytes}, {id: add_list}]
""")
_TYPES = {
    TEXT: cel.Type("google.protobuf.StringValue"),
    BOOLEAN: cel.Type("google.protobuf.BoolValue"),
    NUMBER: cel.Type("google.protobuf.DoubleValue"),
}
"""CEL's types of values that may also be null. For the checker alone: values are bound as they are, undeclared."""
_CONDITIONS = ("BOOL", "bool_wrapper", "DYN")

_TOKENS = re.compile(
    r"""(?P<skipped>
          //[^\n]*
        | (?:[rR][bB]?|[bB][rR])(?:\'{3}.*?\'{3}|"{3}.*?"{3}|'[^'\n]*'|"[^"\n]*")
        | [bB]?(?:\'{3}(?:\\.|[^\\])*?\'{3}|"{3}(?:\\.|[^\\])*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
        | \w+
        )
      | (?P<reference>"""
    + REFERENCE.pattern
    + r""")
      | (?P<malformed>\{\{)
    """,
    re.VERBOSE | re.DOTALL,
)
_CODES = re.compile(r"^(?:[A-Z_]+: )+| \[[A-Z_]+\]$")
_PLACE = re.compile(r"^<input>:\d+:(\d+): ")
_NULLABLE = re.compile(r"wrapper\((\w+)\)")
_MIXED = re.compile(r"\((?:double, int|int, double)\)")
_ARITHMETIC = re.compile(r"overload for '_[-+*/%]_'")


class Verdict(NamedTuple):
    """Whether a branch is taken; `note` tells why it could not be evaluated."""

    taken: bool
    note: str = ""


class Parsed(NamedTuple):
    """An expression as CEL gets it."""

    text: str
    paths: Mapping[str, str]
    """Reference path by bound name."""
    lone: str
    """The path, when the expression is one reference and nothing else."""
    malformed: bool


def violations(schema: Schema, forms: Forms) -> Iterator[Violation]:
    """Every branch that can not be what its author means: rule R18."""
    results = given_by(schema, forms)
    for index, passed in enumerate(upstream(schema)):
        known = scope(results[each] for each in sorted(passed))
        for number, branch in enumerate(schema.stages[index].branches):
            for problem in problems(branch.expression, known):
                yield Violation(f"schema.stages[{index}].branches[{number}].expression", f"R18: {problem}")


def problems(expression: str, known: Scope) -> Iterator[str]:
    """What is wrong with a branch's expression when these actions may be referred to."""
    if expression == DEFAULT:
        return
    if not expression.strip() or len(expression) > LONGEST:
        yield f"must have 1–{LONGEST:,} characters, not only blanks"
        return
    parsed = _parse(expression)
    if parsed.malformed:
        yield "a reference is written {{action_key.path}}"
        return
    unknown = [f"{{{{{path}}}}}: {problem}" for path in parsed.paths.values() if (problem := wrong(path, known))]
    yield from unknown
    if not unknown and not parsed.lone:
        yield from _ill_typed(expression, parsed, known)


def holds(expression: str, variables: Mapping[str, Any]) -> Verdict:
    """Whether a branch is taken with these variables. Never raises."""
    if expression == DEFAULT:
        return Verdict(True)
    parsed = _parse(expression)
    if parsed.lone:
        return Verdict(is_true(look_up(parsed.lone, variables)))
    bound = {name: _bound(look_up(path, variables)) for name, path in parsed.paths.items()}
    if len(repr(bound)) > MOST_READ:
        return Verdict(False, f"it reads more than {MOST_READ:,} characters of answers")
    try:
        value = _compiled(parsed.text, tuple((name, "") for name in bound)).eval(data=bound)
    except RuntimeError as error:
        return Verdict(False, _plain(str(error), expression, parsed))
    if value.type() == cel.Type.ERROR:
        return Verdict(False, _plain(str(value.plain_value()), expression, parsed))
    return Verdict(is_true(value.plain_value()))


def is_true(value: Any) -> bool:
    """Truth of any value: null, false, 0, empty text and empty list are false (spec v1 D80)."""
    return bool(value)


def _ill_typed(expression: str, parsed: Parsed, known: Scope) -> Iterator[str]:
    """What CEL's checker finds. Numbers compare with any number, so they are typed for arithmetic alone."""
    kinds = {name: kind(path, known) for name, path in parsed.paths.items()}
    loose = tuple((name, "" if each == NUMBER else each) for name, each in kinds.items())
    try:
        made = _compiled(parsed.text, loose).return_type().name()
    except RuntimeError as error:
        yield _plain(str(error), expression, parsed)
        return
    if made not in _CONDITIONS:
        yield f"is not a condition: its value is of type {made.lower()}"
    try:
        _compiled(parsed.text, tuple(kinds.items()))
    except RuntimeError as error:
        found = str(error).split("ERROR: ")[1:]
        yield from (_plain(each, expression, parsed) for each in found if _ARITHMETIC.search(each))


@lru_cache(REMEMBERED)
def _parse(expression: str) -> Parsed:
    paths: dict[str, str] = {}
    malformed = False

    def named(match: re.Match[str]) -> str:
        nonlocal malformed
        if match["skipped"]:
            return match[0]
        if match["malformed"] or expression[: match.start()].rstrip().endswith("."):
            malformed = True
            return match[0]
        path = match["reference"].strip("{} \t")
        # Keys have no capitals, so that X can stand for the dot; blanks and braces become underscores.
        name = match[0].replace(".", "X").translate(_UNDERSCORES)
        paths[name] = path
        return name

    text = _TOKENS.sub(named, expression)
    lone = next(iter(paths.values()), "") if REFERENCE.fullmatch(expression.strip()) else ""
    return Parsed(text, paths, lone, malformed)


_UNDERSCORES = str.maketrans(dict.fromkeys("{} \t", "_"))


@lru_cache(REMEMBERED)
def _compiled(text: str, kinds: tuple[tuple[str, str], ...]) -> Any:
    """The expression with its names declared. Raises RuntimeError with what CEL found."""
    declared = {name: _TYPES.get(each, cel.Type.DYN) for name, each in kinds}
    return cel.NewEnv(config=_LANGUAGE, variables=declared).compile(text)


def _bound(value: Any) -> Any:
    """An answer as CEL gets it: every number is a double, whether it happens to be whole or not."""
    if isinstance(value, dict):
        return {key: _bound(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_bound(each) for each in value]
    return float(value) if is_number(value) else value


def _plain(found: str, expression: str, parsed: Parsed) -> str:
    """CEL's first finding in the author's words: without its codes and drawings, with the references as written."""
    line = _CODES.sub("", found.partition("\n")[0])
    place = _PLACE.match(line)
    line = _PLACE.sub("", line).partition(" expecting {")[0].replace(" (in container '')", "")
    line = _NULLABLE.sub(r"\1", line)
    for name, path in parsed.paths.items():
        line = line.replace(name, f"{{{{{path}}}}}")
    if _MIXED.search(line):
        line += "; answers are doubles, write 1.0 and not 1"
    return f"column {place[1]}: {line}" if place and "\n" not in expression else line
