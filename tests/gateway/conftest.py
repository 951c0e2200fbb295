"""One Envoy and one server of fake services for all tests of a process."""

from collections.abc import Iterator

import grpc
import httpx
import pytest

from tests.gateway.envoy import Gateway, running
from tests.gateway.fakes import FIELD_RULES, FIELDS, IDENTITY, Stage


@pytest.fixture(scope="session")
def services() -> Iterator[tuple[Stage, int]]:
    """Identity, fields and the internal rules of fields, at one port."""
    stage = Stage()
    with stage.serving("127.0.0.1:0", FIELDS, FIELD_RULES, IDENTITY) as port:
        yield stage, port


@pytest.fixture
def stage(services: tuple[Stage, int]) -> Iterator[Stage]:
    """What the services do in this test; without it they echo."""
    services[0].reset()
    yield services[0]
    services[0].reset()


@pytest.fixture(scope="session")
def gateway(services: tuple[Stage, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running(tmp_path_factory.mktemp("gateway"), services[1]) as gateway:
        yield gateway


@pytest.fixture
def api(gateway: Gateway) -> Iterator[httpx.Client]:
    """An HTTP/JSON caller with a good token."""
    authorization = {"authorization": f"Bearer {gateway.token()}"}
    with httpx.Client(base_url=f"{gateway.url}/api/v1/crm", headers=authorization) as client:
        yield client


@pytest.fixture
def channel(gateway: Gateway) -> Iterator[grpc.Channel]:
    """A gRPC caller's connection."""
    with grpc.insecure_channel(gateway.address) as channel:
        yield channel


@pytest.fixture
def signed(gateway: Gateway) -> tuple[tuple[str, str], ...]:
    """A gRPC caller's metadata with a good token."""
    return (("authorization", f"Bearer {gateway.token()}"),)
