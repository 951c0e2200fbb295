"""Whether a submission's values answer a form: judged by the published schema alone, which is self-contained.

spec v1 §2.5, §2.10, D38, D46–D52.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from services.forms.schema import RATING, Field, Schema
from services.runtime.errors import Violation
from services.runtime.values import (
    decimals,
    is_number,
    is_whole,
    moment_of,
    wrong_date,
    wrong_email,
    wrong_moment,
    wrong_phone,
    wrong_url,
)

CURRENCY_DECIMALS = 4

_UPLOAD = re.compile(r"upload_[0-9A-Za-z]{1,64}")


def judge(schema: Schema, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Violation]]:
    """The values as they are to be stored, those that are no values left out, and everything that is wrong."""
    stored: dict[str, Any] = {}
    wrong: list[Violation] = []
    fields = schema.data_fields
    for key, field in fields.items():
        value = given.get(key)
        if is_absent(value):
            message = "is required" if field.required else None
        else:
            stored[key] = value
            message = _JUDGES[field.type](field, value)
        if message:
            wrong.append(Violation(f"values.{key}", message))
    wrong += [Violation(f"values.{key}", "is not a field of this form") for key in sorted(given.keys() - fields.keys())]
    return stored, wrong


def is_absent(value: Any) -> bool:
    """null, "" and [] are no values; false and 0 are (D51)."""
    return value is None or value in ("", [])


Judge = Callable[[Field, Any], str | None]
"""Answers what is wrong with a value, or None."""


def _text(field: Field, value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be a text"
    longest = field.validation.get("max_length")
    return f"must have at most {longest} characters" if longest is not None and len(value) > longest else None


def _bounded(wrong: Callable[[Any], str | None], order: Callable[[Any], Any] = lambda value: value) -> Judge:
    """Judges the shape first, then min and max, compared as `order` gives them."""

    def judge_bounded(field: Field, value: Any) -> str | None:
        if message := wrong(value):
            return message
        bounds = {**RATING, **field.validation} if field.type == "rating" else field.validation
        if "min" in bounds and order(value) < order(bounds["min"]):
            return f"must be at least {bounds['min']}"
        if "max" in bounds and order(value) > order(bounds["max"]):
            return f"must be at most {bounds['max']}"
        return None

    return judge_bounded


def _wrong_whole(value: Any) -> str | None:
    return None if is_whole(value) else "must be a whole number"


def _wrong_amount(value: Any) -> str | None:
    if not is_number(value):
        return "must be a number"
    return f"must have at most {CURRENCY_DECIMALS} decimals" if decimals(value) > CURRENCY_DECIMALS else None


def _shaped(wrong: Callable[[Any], str | None]) -> Judge:
    return lambda _field, value: wrong(value)


def _boolean(_field: Field, value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _picklist(field: Field, value: Any) -> str | None:
    return None if value in _choices(field) else "must be one of the options"


def _multi_picklist(field: Field, value: Any) -> str | None:
    if not isinstance(value, list):
        return "must be a list of options"
    if any(each not in _choices(field) for each in value):
        return "must hold only options"
    return None if len(set(value)) == len(value) else "must not hold an option twice"


# Whether an upload exists and is of the right type and size is known where uploads are kept (D50), which is not here
# yet: until then the ids are judged by their shape and number alone.
def _file_upload(field: Field, value: Any) -> str | None:
    if not isinstance(value, list) or any(_wrong_upload(each) for each in value):
        return "must be a list of upload ids"
    most = field.validation.get("max_files")
    if most is not None and len(value) > most:
        return f"must have at most {most} files"
    return None if len(set(value)) == len(value) else "must not hold an upload twice"


def _wrong_upload(value: Any) -> str | None:
    return None if isinstance(value, str) and _UPLOAD.fullmatch(value) else "must be an upload id"


def _choices(field: Field) -> list[str]:
    return [option["value"] for option in field.picklist_options]


_JUDGES: Mapping[str, Judge] = {
    "text": _text,
    "long_text": _text,
    "number": _bounded(_wrong_whole),
    "currency": _bounded(_wrong_amount),
    "rating": _bounded(_wrong_whole),
    "boolean": _boolean,
    "date": _bounded(wrong_date),
    "datetime": _bounded(wrong_moment, moment_of),
    "url": _shaped(wrong_url),
    "email": _shaped(wrong_email),
    "phone": _shaped(wrong_phone),
    "picklist": _picklist,
    "multi_picklist": _multi_picklist,
    "file_upload": _file_upload,
    "signature": _shaped(_wrong_upload),
}
