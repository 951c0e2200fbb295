"""Writes Envoy's configuration for one environment from the templates beside this file, the contract and the addresses.

What the contract says is not repeated here: a service is public when one of its rpcs has an HTTP binding, its cluster
is the domain in its package (`crm.<domain>.v1`), and an rpc needs no token when its access is ACCESS_PUBLIC.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from crm.runtime.v1 import access_pb2
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto

HERE = Path(__file__).parent
TIMEOUT = 15
"""Seconds a call may take in all. A caller's shorter deadline stands; services always know theirs, as grpc-timeout."""
STREAM_IDLE_TIMEOUT = 300
"""Seconds a stream may be silent; it may last for ever."""

Json = dict[str, Any]


class PublicService(NamedTuple):
    """A service that callers reach through the gateway."""

    name: str
    domain: str
    methods: Sequence[MethodDescriptorProto]


def render(
    directory: Path,
    *,
    port: int,
    admin_port: int,
    addresses: Mapping[str, str],
    jwks: Path,
    descriptors: Path,
    issuer: str,
    audience: str,
    host: str = "127.0.0.1",
) -> Path:
    """Writes envoy.yaml and clusters.yaml into the directory and returns the former, for `envoy -c`.

    addresses: service → host:port as in MILLRACE_ADDRESSES; more than the public services may be in it.
    jwks, descriptors: files Envoy reads at its start; the keys of user tokens and the contract of `make gen`.
    Raises KeyError for a public service without an address, ValueError for a contract that cannot be guarded.
    """
    services = public_services(FileDescriptorSet.FromString(descriptors.read_bytes()))
    domains = sorted({service.domain for service in services})
    clusters = directory / "clusters.yaml"
    clusters.write_text("resources:\n" + "".join(_cluster(domain, addresses[domain]) for domain in domains))
    envoy = directory / "envoy.yaml"
    envoy.write_text(
        _fill(
            HERE / "envoy.yaml",
            host=host,
            port=port,
            admin_port=admin_port,
            clusters=str(clusters.resolve()),
            error_lua=str(HERE / "error.lua"),
            jwks=str(jwks.resolve()),
            issuer=issuer,
            audience=audience,
            descriptors=str(descriptors.resolve()),
            services=[service.name for service in services],
            token_rules=_token_rules(services),
            routes=[*(route for service in services for route in _routes(service)), _ELSEWHERE],
            local_replies={"mappers": list(_local_replies())},
        )
    )
    return envoy


def public_services(contract: FileDescriptorSet) -> list[PublicService]:
    """The services with an HTTP binding; all others are internal."""
    return [
        PublicService(f"{file.package}.{service.name}", file.package.split(".")[1], service.method)
        for file in contract.file
        for service in file.service
        if any(method.options.HasExtension(annotations_pb2.http) for method in service.method)
    ]


def _fill(template: Path, **values: object) -> str:
    """JSON is YAML, so whatever a value holds, it stays in its place."""
    return Template(template.read_text()).substitute({name: json.dumps(value) for name, value in values.items()})


def _cluster(domain: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    return _fill(HERE / "cluster.yaml", name=domain, host=host.strip("[]"), port=int(port))


# --- Routes -----------------------------------------------------------------------------------------------------------

# Routes know gRPC paths only: the transcoder puts one in place of the HTTP path and asks for the route again. Until
# then an HTTP request is here, where it finds the policies of the whole host (browsers, body size).
_ELSEWHERE: Json = {
    "match": {"prefix": "/"},
    "route": {"cluster": "nowhere", "cluster_not_found_response_code": "NOT_FOUND"},
}

# Bodies of gRPC callers stream through; the service limits its messages itself and answers RESOURCE_EXHAUSTED.
_UNBUFFERED: Json = {
    "envoy.filters.http.buffer": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        "disabled": True,
    }
}


def _routes(service: PublicService) -> Iterator[Json]:
    for method in service.methods:
        if method.client_streaming or method.server_streaming:
            yield {
                "match": {"path": f"/{service.name}/{method.name}"},
                "route": {"cluster": service.domain, "timeout": "0s", "idle_timeout": f"{STREAM_IDLE_TIMEOUT}s"},
                "typed_per_filter_config": _UNBUFFERED,
            }
    yield {
        "match": {"prefix": f"/{service.name}/"},
        "route": {
            "cluster": service.domain,
            "timeout": f"{TIMEOUT}s",
            "max_stream_duration": {"grpc_timeout_header_max": f"{TIMEOUT}s"},
        },
        "request_headers_to_add": [
            {"header": {"key": "grpc-timeout", "value": f"{TIMEOUT}S"}, "append_action": "ADD_IF_ABSENT"}
        ],
        "typed_per_filter_config": _UNBUFFERED,
    }


# --- Tokens -----------------------------------------------------------------------------------------------------------


def _token_rules(services: Sequence[PublicService]) -> list[Json]:
    """What needs a user token: everything under /api/ and every public service but its ACCESS_PUBLIC rpcs."""
    free: list[Json] = []
    for service in services:
        for method in service.methods:
            rule = method.options.Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            path = getattr(rule, verb) if verb else ""
            if method.options.Extensions[access_pb2.access] == access_pb2.ACCESS_PUBLIC:
                free.append({"match": {"path": f"/{service.name}/{method.name}"}})
                if "{" in path:
                    raise ValueError(f"{service.name}.{method.name}: a public path cannot have variables: {path}")
                if verb:
                    only = [{"name": ":method", "string_match": {"exact": verb.upper()}}]
                    free.append({"match": {"path": path, "headers": only}})
            elif verb and not path.startswith("/api/"):
                raise ValueError(f"{service.name}.{method.name}: nothing asks for a token at {path}")
    guarded = ["/api/", *(f"/{service.name}/" for service in services)]
    return [*free, *({"match": {"prefix": prefix}, "requires": {"provider_name": "user"}} for prefix in guarded)]


# --- Envoy's own replies ----------------------------------------------------------------------------------------------

REPLIES = (
    (400, "INVALID_ARGUMENT", "bad request: %LOCAL_REPLY_BODY%"),
    (401, "UNAUTHENTICATED", "%LOCAL_REPLY_BODY%"),
    (403, "UNAUTHENTICATED", "%LOCAL_REPLY_BODY%"),  # a token for another audience
    (404, "NOT_FOUND", "nothing answers to this method and path"),
    (408, "DEADLINE_EXCEEDED", "the request did not arrive in time"),
    (413, "INVALID_ARGUMENT", "the request body is too large"),
    (429, "RESOURCE_EXHAUSTED", "too many requests"),
    (431, "INVALID_ARGUMENT", "the request headers are too large"),
    (502, "UNAVAILABLE", "the service is not available"),
    (503, "UNAVAILABLE", "the service is not available"),
    (504, "DEADLINE_EXCEEDED", "the service did not answer in time"),
)
"""HTTP status, error_code and message. Envoy's text stands where it tells the caller what to mend; where it is empty or
speaks of our insides, ours does."""
_ANSWERED_AS = {403: 401}

# A gRPC caller. A transcoded request is gRPC by now as well, but remembers the path it came by.
_GRPC: Json = {
    "and_filter": {
        "filters": [
            {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}},
            {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": False}}},
        ]
    }
}

# A request that could not be read has no id yet; the others' is in the answer by now, put there by the route.
_REQUEST_ID: Json = {"header": {"key": "x-request-id", "value": "req_%UNIQUE_ID%"}, "append_action": "ADD_IF_ABSENT"}


def _local_replies() -> Iterator[Json]:
    """The error body for HTTP callers, one line of text for gRPC callers (it becomes grpc-message).

    The first that matches decides, so API v2, told apart by its path, has its own in front of these.
    """
    yield _reply(_status("LE", 399), _text("%LOCAL_REPLY_BODY%"))  # health and preflight are not errors
    for status, error_code, message in REPLIES:
        for is_grpc, body in ((True, _text(message)), (False, _error_body(error_code, message))):
            reply = _reply(_status("EQ", status, _GRPC if is_grpc else None), body)
            yield reply | ({"status_code": _ANSWERED_AS[status]} if status in _ANSWERED_AS else {})
    yield _reply(_status("GE", 500, _GRPC), _text("internal error"))
    yield _reply(_status("GE", 500), _error_body("INTERNAL", "internal error"))
    yield _reply(_status("GE", 400, _GRPC), _text("%LOCAL_REPLY_BODY%"))
    yield _reply(_status("GE", 400), _error_body("INVALID_ARGUMENT", "bad request: %LOCAL_REPLY_BODY%"))


def _reply(condition: Json, body: Json) -> Json:
    return {"filter": condition, "body_format_override": body, "headers_to_add": [_REQUEST_ID]}


def _status(op: str, status: int, and_: Json | None = None) -> Json:
    value = {"default_value": status, "runtime_key": "millrace.never_set"}
    condition: Json = {"status_code_filter": {"comparison": {"op": op, "value": value}}}
    return {"and_filter": {"filters": [condition, and_]}} if and_ else condition


def _text(message: str) -> Json:
    return {"text_format_source": {"inline_string": message}}


def _error_body(error_code: str, message: str) -> Json:
    members = {"code": "%RESPONSE_CODE%", "message": message, "error_code": error_code, "details": []}
    return {"json_format": {**members, "request_id": "%RESP(X-REQUEST-ID)%"}}
