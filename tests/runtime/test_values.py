"""Shapes of values that no domain owns (spec v1 D49); the others are tested where fields judge by them."""

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.values import plain, struct_of, wrong_phone


@pytest.mark.parametrize(
    "value",
    ["1234567", "+1234567", "123456789012345", "+1 (555) 123-4567", "[030] 12.34.567", "030-1234567"],
)
def test_a_phone_number(value: str) -> None:
    assert wrong_phone(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "123456",
        "1234567890123456",
        "++1234567",
        "12+34567",
        "1234567x",
        "٠١٢٣٤٥٦٧",
        "+",
        1234567,
        None,
        True,
        "1 " * 40,
    ],
    ids=ascii,
)
def test_no_phone_number(value: object) -> None:
    assert wrong_phone(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_document_survives_the_wire(document: dict[str, object]) -> None:
    struct = struct_pb2.Struct.FromString(struct_of(document).SerializeToString())
    assert plain(struct) == document
