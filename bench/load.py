"""One client process of the load generator: threads that each call again as soon as they are answered.

Reads its orders from standard input as JSON and answers with the latencies of every call, in milliseconds:

    {"address", "rpc", "payloads": [base64 …], "metadata": [[k, v] …], "threads", "seconds"}     gRPC
    {"address", "path", "headers": {…}, "threads", "seconds"}                                  HTTP/JSON
"""

import base64
import http.client
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc


def main() -> None:
    """Runs one order."""
    order = json.load(sys.stdin)
    make = _over_http if "path" in order else _over_grpc
    latencies: list[list[float]] = [[] for _ in range(order["threads"])]
    failures: list[str] = []
    barrier = threading.Barrier(order["threads"])

    def loop(mine: list[float], call: Callable[[], None]) -> None:
        call()
        barrier.wait()
        end = time.perf_counter() + order["seconds"]
        while (began := time.perf_counter()) < end:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - counted and shown, whatever it is
                failures.append(str(error)[:200])
            mine.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=loop, args=(mine, make(order))) for mine in latencies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"latencies": list(itertools.chain(*latencies)), "failures": failures}, sys.stdout)


def _over_grpc(order: dict[str, Any]) -> Callable[[], None]:
    channel = _channel(order["address"])
    call = channel.unary_unary(order["rpc"], _as_is, _as_is)
    payloads = itertools.cycle([base64.b64decode(each) for each in order["payloads"]])
    metadata = tuple((key, value) for key, value in order["metadata"])

    def once() -> None:
        call(next(payloads), timeout=30, metadata=metadata)

    return once


def _over_http(order: dict[str, Any]) -> Callable[[], None]:
    host, port = order["address"].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)

    def once() -> None:
        connection.request("GET", order["path"], headers=order["headers"])
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body[:200]!r}")

    return once


_channels: dict[str, grpc.Channel] = {}


def _channel(address: str) -> grpc.Channel:
    """One channel per process, as a real client has."""
    return _channels.setdefault(address, grpc.insecure_channel(address))


def _as_is(message: bytes) -> bytes:
    return message


if __name__ == "__main__":
    main()
