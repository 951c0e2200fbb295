"""A pipeline as values: versions, and the graph of stages, actions and branches that a version is (spec v1 §4, D86)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Self

DRAFT, PUBLISHED, ARCHIVED = "draft", "published", "archived"
CONTACT = "contact"
DEFAULT = "default"
"""The branch that always holds."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something that happens, or must be done, on a stage. `config` belongs to the type."""

    key: str
    type: str
    required: bool
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Branch:
    """A way on: an expression and the key of the stage it leads to."""

    expression: str
    target: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A step, with its actions in order and its branches in the order they are tried."""

    key: str
    name: str
    terminal: bool
    actions: tuple[Action, ...] = ()
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    """The graph. Anything an author wrote, whether it keeps the rules or not."""

    entry_stage_key: str
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The graph a stored document holds."""
        return cls(document["entry_stage_key"], tuple(_stage(**stage) for stage in document["stages"]))

    def document(self) -> dict[str, Any]:
        """The graph as it is stored."""
        return asdict(self)

    def stage(self, key: str) -> Stage | None:
        """The stage of this key, if there is one."""
        return next((stage for stage in self.stages if stage.key == key), None)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One version of a pipeline. All versions that share a name are a family. `schema` is its graph as it is stored."""

    id: int
    organization_id: int
    name: str
    description: str
    subject_type: str
    version: int
    status: str
    schema: dict[str, Any]
    auto_enroll_contact_stage_id: int
    created_by: int
    published_at: datetime | None
    archived_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @property
    def graph(self) -> Schema:
        """Its graph."""
        return Schema.of(self.schema)


def _stage(
    *, key: str, name: str, terminal: bool, actions: list[dict[str, Any]], branches: list[dict[str, str]]
) -> Stage:
    made = tuple(Action(**action) for action in actions)
    return Stage(key, name, terminal, made, tuple(Branch(**branch) for branch in branches))
