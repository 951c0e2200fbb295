"""Which way a run goes on: the branch language, and all of CEL behind it.

A branch is a condition in CEL (Common Expression Language) over `{{action_key.path}}` references. Before CEL sees the
text each reference becomes the name of a bound value, `A0`, with blanks to the same length: an answer is a value and
never a piece of a program, CEL's positions are those of the author's text, and one environment does for every
expression. Texts in quotes and comments are left alone.

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
from services.pipelines.references import ANY, BOOLEAN, NUMBER, REFERENCE, TEXT, Scope, kind, look_up, wrong
from services.runtime.errors import Violation
from services.runtime.values import is_number

LONGEST = 2_000
"""Characters of an expression."""
MOST_READ = 64 * 1024
"""Characters of answers that one condition may read."""
REMEMBERED = 2_000

_CONFIG = cel.NewEnvConfigFromYaml("""
stdlib:
  exclude_macros: [all, exists, exists_one, filter, has, map]
  exclude_functions:
  - name: "_+_"
    overloads: [{id: add_string}, {id: add_bytes}, {id: add_list}]
""")
_TYPES = {
    TEXT: ("T", cel.Type("google.protobuf.StringValue")),
    NUMBER: ("N", cel.Type("google.protobuf.DoubleValue")),
    BOOLEAN: ("B", cel.Type("google.protobuf.BoolValue")),
    ANY: ("A", cel.Type.DYN),
}
"""What names of each kind begin with, and CEL's type of values of the kind that may also be null. While a run is on its
way all answers are `any`: the other types are the checker's alone."""
MOST_REFERENCES = 300
"""More than fit into an expression."""
_LANGUAGE = cel.NewEnv(
    config=_CONFIG,
    variables={f"{letter}{number}": of for letter, of in _TYPES.values() for number in range(MOST_REFERENCES)},
)
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
_PLACE = re.compile(r"^<input>:(-?\d+):(-?\d+): ")
_NAME = re.compile(r"[TNBA]\d+")
_JOINED = re.compile(r"\w$|\.\s*$")
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
    references: tuple[tuple[int, str], ...]
    """Where in the text each reference's name stands, and its path."""
    lone: str
    """The path, when the expression is one reference and nothing else."""
    malformed: bool

    @property
    def paths(self) -> list[str]:
        """What is referred to, by the number in its name."""
        return list(dict.fromkeys(path for _, path in self.references))

    def typed(self, kinds: Mapping[str, str]) -> str:
        """The text with each name telling the kind of its value."""
        text = list(self.text)
        for start, path in self.references:
            text[start], _ = _TYPES[kinds[path]]
        return "".join(text)


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
        yield "a reference is written {{action_key.path}} and stands by itself"
        return
    unknown = [f"{{{{{path}}}}}: {problem}" for path in parsed.paths if (problem := wrong(path, known))]
    yield from unknown
    if not unknown and not parsed.lone:
        yield from _ill_typed(parsed, known)


def holds(expression: str, variables: Mapping[str, Any]) -> Verdict:
    """Whether a branch is taken with these variables. Never raises."""
    if expression == DEFAULT:
        return Verdict(True)
    parsed = _parse(expression)
    if parsed.lone:
        return Verdict(is_true(look_up(parsed.lone, variables)))
    answers = {f"A{number}": _bound(look_up(path, variables)) for number, path in enumerate(parsed.paths)}
    if len(repr(answers)) > MOST_READ:
        return Verdict(False, f"it reads more than {MOST_READ:,} characters of answers")
    try:
        value = _compiled(parsed.text).eval(data=answers)
    except RuntimeError as error:
        return Verdict(False, _plain(str(error), parsed))
    if value.type() == cel.Type.ERROR:
        return Verdict(False, _plain(str(value.plain_value()), parsed))
    return Verdict(is_true(value.plain_value()))


def is_true(value: Any) -> bool:
    """Truth of any value: null, false, 0, empty text and empty list are false, all else is true (spec v1 D80)."""
    return value not in (None, False, 0, "", [])


def _ill_typed(parsed: Parsed, known: Scope) -> Iterator[str]:
    """What CEL's checker finds. Numbers compare with any number, so they are typed for arithmetic alone."""
    kinds = {path: kind(path, known) for path in parsed.paths}
    made, found = _checked(parsed.typed({path: ANY if each == NUMBER else each for path, each in kinds.items()}))
    if not found and NUMBER in kinds.values():
        exactly, found = _checked(parsed.typed(kinds))
        made, found = exactly or made, [each for each in found if _ARITHMETIC.search(each)]
    yield from (_plain(each, parsed) for each in found)
    if not found and made not in _CONDITIONS:
        yield f"is not a condition: its value is of type {made.lower()}"


def _checked(text: str) -> tuple[str, list[str]]:
    """The type of an expression's value, or what CEL's checker finds wrong with it."""
    try:
        return _LANGUAGE.compile(text).return_type().name(), []
    except RuntimeError as error:
        found = str(error)
        return "", found.split("ERROR: ")[1:] or [found]


@lru_cache(REMEMBERED)
def _parse(expression: str) -> Parsed:
    text, end = "", 0
    references, numbers = list[tuple[int, str]](), dict[str, int]()
    malformed = False
    for match in _TOKENS.finditer(expression):
        text += expression[end : match.start()]
        token, end = match[0], match.end()
        if match["reference"]:
            path = token.strip("{} \t")
            number = numbers.setdefault(path, len(numbers))
            malformed = malformed or _JOINED.search(text) is not None
            references.append((len(text), path))
            token = f"A{number}".ljust(len(token))
        elif match["malformed"] or _NAME.fullmatch(token):
            malformed = True
        text += token
    text += expression[end:]
    lone = references[0][1] if REFERENCE.fullmatch(expression.strip()) else ""
    return Parsed(text, tuple(references), lone, malformed)


@lru_cache(REMEMBERED)
def _compiled(text: str) -> Any:
    """The expression, ready to be evaluated. Raises RuntimeError."""
    return _LANGUAGE.compile(text)


def _bound(value: Any) -> Any:
    """An answer as CEL gets it: every number is a double, whether it happens to be whole or not."""
    if isinstance(value, dict):
        return {key: _bound(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_bound(each) for each in value]
    return float(value) if is_number(value) else value


def _plain(found: str, parsed: Parsed) -> str:
    """CEL's first finding for an author: without its codes and drawings, and with the references as written."""
    line = _CODES.sub("", found.partition("\n")[0])
    place = _PLACE.match(line)
    line = _PLACE.sub("", line).partition(" expecting {")[0].replace(" (in container '')", "")
    for number, path in enumerate(parsed.paths):
        line = re.sub(rf"\b[TNBA]{number}\b", f"{{{{{path}}}}}", line)
    line = _NULLABLE.sub(r"\1", line)
    if _MIXED.search(line):
        line += "; answers are doubles, write 1.0 and not 1"
    if place is None or place[1] == "-1":
        return line
    return f"column {place[2]}: {line}" if place[1] == "1" else f"line {place[1]}, column {place[2]}: {line}"
