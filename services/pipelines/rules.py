"""The whole rule set of a definition: graph, actions and branches, every violation at once (spec v1 §4.4, D83)."""

from collections.abc import Iterator
from itertools import chain, islice

from services.pipelines import actions, branching, graph
from services.pipelines.actions import Forms
from services.pipelines.definition import CONTACT, Pipeline, Schema
from services.runtime.errors import MOST_VIOLATIONS, Violation


def wrong_schema(schema: Schema, forms: Forms, *, publishing: bool = False) -> Iterator[Violation]:
    """Every rule the graph breaks. `publishing`: the forms it names must be published, not only exist (D75).

    It stops where nobody reads on, so that a large pipeline of nonsense costs no more than a good one.
    """
    large = list(graph.too_large(schema))
    found = chain(
        graph.violations(schema),
        actions.violations(schema, forms, publishing=publishing),
        branching.violations(schema, forms),
    )
    return islice(large or found, MOST_VIOLATIONS)


def wrong_trigger(pipeline: Pipeline) -> Iterator[Violation]:
    """Whether it may enrol by itself what enters a contact stage."""
    if pipeline.auto_enroll_contact_stage_id and pipeline.subject_type != CONTACT:
        yield Violation("auto_enroll_contact_stage_id", "R12: only contacts are enrolled by themselves")
