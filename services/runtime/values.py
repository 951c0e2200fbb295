"""Shapes of values that no domain owns: dates, moments, addresses, numbers as JSON carries them.

Each check answers what is wrong, or None. Values are JSON values as protobuf's Struct gives them: every number is a
float, so 5 and 5.0 are one value (spec v1 D23–D26, D49).
"""

import math
import re
from datetime import date, datetime
from typing import Any

from email_validator import EmailNotValidError, validate_email
from google.protobuf import struct_pb2
from pydantic import AnyHttpUrl, TypeAdapter, ValidationError

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")
_PHONE_NOISE = re.compile(r"[\s\-.()\[\]]")
_PHONE = re.compile(r"\+?[0-9]{7,15}")
_URL = TypeAdapter(AnyHttpUrl)
_ABSOLUTE = re.compile(r"https?://[^/\\?#]", re.IGNORECASE)
"""As browsers read them, `http:a` and `https:///a` are addresses of a host `a`; to people they are typing errors."""

LARGEST_WHOLE = 2**53
"""JSON numbers are exact up to here."""


def is_number(value: Any) -> bool:
    """Whether it is a JSON number; true and false are not, nor NaN and infinity, which protobuf can carry."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether it is a whole JSON number, 5 and 5.0 alike, that JSON carries exactly."""
    return is_number(value) and float(value).is_integer() and abs(value) <= LARGEST_WHOLE


def decimals(value: float) -> int:
    """How many decimals a JSON number was written with."""
    text = repr(float(value))
    if "e" in text or "E" in text:
        return len(f"{value:.20f}".rstrip("0").partition(".")[2])
    return len(text.rstrip("0").partition(".")[2])


def wrong_date(value: Any) -> str | None:
    """YYYY-MM-DD and a real day."""
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            date.fromisoformat(value)
        except ValueError:
            return "is not a day of the calendar"
        return None
    return "must be a date such as 2026-01-31"


def wrong_moment(value: Any) -> str | None:
    """RFC 3339 with an offset or Z."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
        try:
            moment_of(value)
        except ValueError:
            return "is not a moment of the calendar"
        return None
    return "must be a date-time with zone such as 2026-01-31T09:30:00Z"


def moment_of(value: str) -> datetime:
    """The moment an RFC 3339 text names."""
    return datetime.fromisoformat(value.upper().replace("Z", "+00:00"))


def wrong_url(value: Any) -> str | None:
    """An absolute http or https address of at most 2,048 characters."""
    if isinstance(value, str) and len(value) <= 2048 and _ABSOLUTE.match(value) and not re.search(r"\s", value):
        try:
            _URL.validate_python(value)
        except ValidationError:
            return "must be an absolute http or https address"
        return None
    return "must be an absolute http or https address"


def wrong_email(value: Any) -> str | None:
    """One @, a dotted domain, at most 254 characters."""
    if isinstance(value, str) and len(value) <= 254:
        try:
            validate_email(value, check_deliverability=False, test_environment=True)
        except EmailNotValidError:
            return "must be a valid e-mail address"
        if "." in value.rpartition("@")[2]:
            return None
    return "must be a valid e-mail address"


def wrong_phone(value: Any) -> str | None:
    """An optional + and 7–15 digits, separators aside."""
    if isinstance(value, str) and len(value) <= 40 and _PHONE.fullmatch(_PHONE_NOISE.sub("", value)):
        return None
    return "must be a phone number of 7–15 digits"


def plain(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct as Python values; whole numbers become integers, which is how they are stored."""
    return {key: plain_value(value) for key, value in struct.fields.items()}


def plain_value(value: struct_pb2.Value) -> Any:
    """A Value as a Python value; null and unset are None."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) <= LARGEST_WHOLE else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [plain_value(each) for each in value.list_value.values]
    if kind == "struct_value":
        return plain(value.struct_value)
    return None


def struct_of(values: dict[str, Any]) -> struct_pb2.Struct:
    """Python values as a Struct; an empty one is still present in its message."""
    struct = struct_pb2.Struct()
    struct.update(values)
    return struct


def value_of(value: Any) -> struct_pb2.Value:
    """A Python value as a Value; None is an explicit null."""
    holder = struct_pb2.Struct()
    holder["value"] = value
    return holder.fields["value"]
