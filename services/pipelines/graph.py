"""What the graph of a pipeline must be: rules R1–R10 and R13–R16 (spec v1 §4.4, D74)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.pipelines.definition import DEFAULT, Schema, Stage
from services.runtime.errors import Violation

KEY = re.compile(r"[a-z][a-z0-9_]{0,99}")
LONGEST_NAME = 255
MOST_IN_ALL = 1_000
"""Actions of a pipeline, and branches."""
WRONG_KEY = "must be a lower-case identifier of at most 100 characters, such as `id_check`"


@dataclass(frozen=True, slots=True)
class Edge:
    """A branch that leads to an existing stage; stages by their index."""

    source: int
    branch: int
    target: int


def violations(schema: Schema) -> Iterator[Violation]:
    """Everything wrong with the graph, each with its path and rule."""
    yield from _wrong_whole(schema)
    for index, stage in enumerate(schema.stages):
        yield from _wrong_stage(schema, index, stage)
    yield from _loops(schema)
    yield from _orphans(schema)


def too_large(schema: Schema) -> Iterator[Violation]:
    """Every run keeps its graph, and every change of it is judged whole: it stays within what people draw."""
    for name, number in (
        ("actions", sum(len(stage.actions) for stage in schema.stages)),
        ("branches", sum(len(stage.branches) for stage in schema.stages)),
    ):
        if number > MOST_IN_ALL:
            yield Violation("schema.stages", f"R13: a pipeline has at most {MOST_IN_ALL:,} {name} in all")


def reachable(schema: Schema, key: str) -> set[str]:
    """The keys of the stages that can be reached from this one, itself included."""
    ways: dict[int, set[int]] = {}
    for edge in edges(schema):
        ways.setdefault(edge.source, set()).add(edge.target)
    found = (_spread(ways, index) for index, stage in enumerate(schema.stages) if stage.key == key)
    return {schema.stages[index].key for index in set[int]().union(*found)}


def upstream(schema: Schema) -> list[set[int]]:
    """For each stage, by index, the stages a run can have been on when it leaves it, itself included."""
    ways: dict[int, set[int]] = {}
    for edge in edges(schema):
        ways.setdefault(edge.target, set()).add(edge.source)
    return [_spread(ways, index) for index in range(len(schema.stages))]


def edges(schema: Schema) -> Iterator[Edge]:
    """The branches that lead somewhere. Of stages with the same key the first is meant."""
    first: dict[str, int] = {}
    for index, stage in enumerate(schema.stages):
        first.setdefault(stage.key, index)
    for source, stage in enumerate(schema.stages):
        for number, branch in enumerate(stage.branches):
            if branch.target in first:
                yield Edge(source, number, first[branch.target])


def _spread(ways: Mapping[int, set[int]], start: int) -> set[int]:
    """Everywhere one gets from here, and here."""
    found, waiting = {start}, [start]
    while waiting:
        fresh = ways.get(waiting.pop(), set()) - found
        found |= fresh
        waiting.extend(fresh)
    return found


def _wrong_whole(schema: Schema) -> Iterator[Violation]:
    if not schema.stages:
        yield Violation("schema.stages", "R13: a pipeline needs at least one stage")
    elif not any(stage.terminal for stage in schema.stages):
        yield Violation("schema.stages", "R13: a pipeline needs a terminal stage, where runs are completed")
    if schema.stage(schema.entry_stage_key) is None:
        yield Violation("schema.entry_stage_key", f"R1: there is no stage '{schema.entry_stage_key}'")


def _wrong_stage(schema: Schema, index: int, stage: Stage) -> Iterator[Violation]:
    path = f"schema.stages[{index}]"
    if not KEY.fullmatch(stage.key):
        yield Violation(f"{path}.key", f"R2: {WRONG_KEY}")
    if any(other.key == stage.key for other in schema.stages[:index]):
        yield Violation(f"{path}.key", f"R3: '{stage.key}' stands twice")
    if not stage.name.strip() or len(stage.name) > LONGEST_NAME:
        yield Violation(f"{path}.name", f"R16: must have 1–{LONGEST_NAME} characters, not only blanks")
    seen: set[str] = set()
    for number, action in enumerate(stage.actions):
        if not KEY.fullmatch(action.key):
            yield Violation(f"{path}.actions[{number}].key", f"R4: {WRONG_KEY}")
        if action.key in seen:
            yield Violation(f"{path}.actions[{number}].key", f"R5: '{action.key}' stands twice in this stage")
        seen.add(action.key)
    yield from _wrong_branches(schema, path, stage)


def _wrong_branches(schema: Schema, path: str, stage: Stage) -> Iterator[Violation]:
    if stage.terminal and stage.branches:
        yield Violation(f"{path}.branches", "R15: a terminal stage leads nowhere")
        return
    if not stage.terminal and not stage.branches:
        yield Violation(f"{path}.branches", "R6: a stage that is not terminal needs a branch")
    last = len(stage.branches) - 1
    for number, branch in enumerate(stage.branches):
        at = f"{path}.branches[{number}]"
        if number == last and branch.expression != DEFAULT:
            yield Violation(f"{at}.expression", f"R7: the last branch must be exactly `{DEFAULT}`")
        if number != last and branch.expression == DEFAULT:
            yield Violation(f"{at}.expression", f"R14: `{DEFAULT}` stands last; the branches after it are never tried")
        if schema.stage(branch.target) is None:
            yield Violation(f"{at}.target", f"R8: there is no stage '{branch.target}'")


def _loops(schema: Schema) -> Iterator[Violation]:
    """One violation for each branch that closes a loop."""
    ways: dict[int, list[Edge]] = {}
    for edge in edges(schema):
        ways.setdefault(edge.source, []).append(edge)
    done: set[int] = set()
    trail: list[int] = []

    def walk(index: int) -> Iterator[Violation]:
        trail.append(index)
        for edge in ways.get(index, ()):
            if edge.target in trail:
                loop = [*trail[trail.index(edge.target) :], edge.target]
                path = f"schema.stages[{edge.source}].branches[{edge.branch}].target"
                yield Violation(path, f"R9: a loop: {' → '.join(schema.stages[each].key for each in loop)}")
            elif edge.target not in done:
                yield from walk(edge.target)
        trail.pop()
        done.add(index)

    for index in range(len(schema.stages)):
        if index not in done:
            yield from walk(index)


def _orphans(schema: Schema) -> Iterator[Violation]:
    if schema.stage(schema.entry_stage_key) is None:
        return
    found = reachable(schema, schema.entry_stage_key)
    for index, stage in enumerate(schema.stages):
        if stage.key not in found:
            yield Violation(f"schema.stages[{index}]", f"R10: '{stage.key}' can not be reached from the entry stage")
