"""Logs: one JSON object per line on standard output, the same keys everywhere."""

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

_common: dict[str, str] = {}
"""What every line of this process says."""


def configure_logs(service: str, level: str) -> None:
    """Sets up structlog for this process, and sends the standard library's warnings the same way."""
    _common["service"] = service
    structlog.configure(
        processors=[
            lambda _logger, _method, event: {**_common, **event},
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Line(service))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def access_log() -> Callable[..., None]:
    """What writes the line that every rpc gets: the same shape, without the processors, as cheap as a line can be."""
    write = structlog.BytesLogger(sys.stdout.buffer).msg

    def log(**members: Any) -> None:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        write(_dump({**_common, "event": "rpc", "level": "info", "timestamp": at, **members}))

    return log


class _Line(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """A library's record in our shape."""
        line = {"service": self._service, "event": record.getMessage(), "level": record.levelname.lower()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line | {"logger": record.name})


def _dump(event: dict[str, Any], **_options: Any) -> bytes:
    return bytes(orjson.dumps(event, default=str))
