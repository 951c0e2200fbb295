"""A forms service with its neighbours."""

from collections.abc import Iterator

import pytest

from tests.forms.world import Pipelines, World
from tests.harness import Houses


@pytest.fixture
def pipelines(houses: Houses) -> Iterator[Pipelines]:
    """Pipelines, played and open."""
    played = Pipelines()
    with played.open(houses):
        yield played


@pytest.fixture
def world(houses: Houses, pipelines: Pipelines) -> World:
    """Forms, fields and contacts for real, as an administrator uses them."""
    houses.start("fields", "contacts", "forms")
    return World(houses, pipelines, houses.someone())
