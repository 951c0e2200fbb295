"""The branch language: what is taken on which answers, and what an author is told (spec v1 §4.7; design: engine)."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pipelines.branching import LONGEST, MOST_READ, Verdict, holds, problems
from services.pipelines.references import ANY, BOOLEAN, NUMBER, TEXT

KNOWN = {"f": [{"status": TEXT, "amount": NUMBER, "agreed": BOOLEAN, "tags": ANY}], "papers": [{"proof": BOOLEAN}]}
TAKEN, NOT, ERROR = "taken", "not taken", "not taken, with a note"

MATRIX: list[tuple[str, list[tuple[dict[str, Any], str]]]] = [
    ("default", [({}, TAKEN), ({"status": "x"}, TAKEN)]),
    (
        "{{f.status}} == 'approved'",
        [({"status": "approved"}, TAKEN), ({"status": "Approved"}, NOT), ({"status": ""}, NOT), ({}, NOT)],
    ),
    ('{{f.status}} == "approved"', [({"status": "approved"}, TAKEN), ({"status": "rejected"}, NOT)]),
    ("{{ f.status }}=='approved'", [({"status": "approved"}, TAKEN)]),
    ("{{f.status}} != 'approved'", [({"status": "approved"}, NOT), ({"status": "x"}, TAKEN), ({}, TAKEN)]),
    ("{{f.status}} == null", [({}, TAKEN), ({"status": None}, TAKEN), ({"status": ""}, NOT)]),
    ("{{f}} == null", [({}, NOT)]),
    ("{{papers}} == null", [({}, TAKEN)]),
    ("{{f}}", [({}, TAKEN), ({"status": "x"}, TAKEN)]),
    ("{{papers}}", [({}, NOT)]),
    ("{{f.status}} in ['a', 'b']", [({"status": "a"}, TAKEN), ({"status": "c"}, NOT), ({}, NOT)]),
    ("{{f.status}} > 'a'", [({"status": "b"}, TAKEN), ({"status": "a"}, NOT), ({}, ERROR)]),
    ("{{f.status}}.startsWith('app')", [({"status": "approved"}, TAKEN), ({"status": "no"}, NOT), ({}, ERROR)]),
    ("{{f.status}}.matches('^a+$')", [({"status": "aaa"}, TAKEN), ({"status": "ab"}, NOT)]),
    ("size({{f.status}}) > 3", [({"status": "four"}, TAKEN), ({"status": "no"}, NOT)]),
    ("{{f.amount}} > 1000", [({"amount": 1001}, TAKEN), ({"amount": 1000.5}, TAKEN), ({"amount": 1000}, NOT)]),
    ("{{f.amount}} > 1000", [({}, ERROR), ({"amount": "2000"}, ERROR), ({"amount": True}, ERROR)]),
    ("{{f.amount}} == 5", [({"amount": 5}, TAKEN), ({"amount": 5.0}, TAKEN), ({"amount": "5"}, NOT)]),
    ("{{f.amount}} in [1, 2]", [({"amount": 2}, TAKEN), ({"amount": 2.5}, NOT)]),
    ("{{f.amount}} * 1.5 > 100.0", [({"amount": 70}, TAKEN), ({"amount": 70.5}, TAKEN), ({"amount": 2}, NOT)]),
    ("{{f.amount}} / 0.0 > 1.0", [({"amount": 1}, TAKEN), ({"amount": -1}, NOT)]),
    ("1 / int({{f.amount}}) == 1", [({"amount": 1}, TAKEN), ({"amount": 0}, ERROR)]),
    ("{{f.agreed}}", [({"agreed": True}, TAKEN), ({"agreed": False}, NOT), ({}, NOT)]),
    ("!{{f.agreed}}", [({"agreed": False}, TAKEN), ({"agreed": True}, NOT), ({}, ERROR)]),
    (
        "{{f.agreed}} && {{f.amount}} >= 10",
        [({"agreed": True, "amount": 10}, TAKEN), ({"agreed": False}, NOT), ({"agreed": True}, ERROR)],
    ),
    (
        "{{f.status}} == 'a' || {{f.amount}} > 3",
        [({"status": "a"}, TAKEN), ({"amount": 4}, TAKEN), ({"status": "b"}, ERROR)],
    ),
    ("'x' in {{f.tags}}", [({"tags": ["x", "y"]}, TAKEN), ({"tags": ["y"]}, NOT), ({"tags": []}, NOT), ({}, ERROR)]),
    ("size({{f.tags}}) >= 2", [({"tags": ["x", "y"]}, TAKEN), ({"tags": ["y"]}, NOT)]),
    ("{{f.tags}}[0] == 'x'", [({"tags": ["x"]}, TAKEN), ({"tags": ["y"]}, NOT), ({"tags": []}, ERROR)]),
    (
        "{{f.tags}}",
        [({"tags": ["x"]}, TAKEN), ({"tags": []}, NOT), ({}, NOT), ({"tags": 0}, NOT), ({"tags": ""}, NOT)],
    ),
    (
        "timestamp({{f.status}}) > timestamp('2026-01-01T00:00:00Z')",
        [({"status": "2026-06-01T00:00:00Z"}, TAKEN), ({"status": "soon"}, ERROR)],
    ),
    ("{{f.status}} == 'it\\'s {{x}} // so'", [({"status": "it's {{x}} // so"}, TAKEN)]),
    ("{{f.status}} == 'a' // unless {{nobody}} isn't here", [({"status": "a"}, TAKEN)]),
    ("{{f.status}} == '''it's''' && true", [({"status": "it's"}, TAKEN)]),
    ("{{f.status}} ==\n  'approved'", [({"status": "approved"}, TAKEN)]),
    ("{{f.status}} == 'é😀'", [({"status": "é😀"}, TAKEN)]),
    ("true", [({}, TAKEN)]),
    ("1 == 2", [({}, NOT)]),
]
FLAT = [(expression, answers, expected) for expression, rows in MATRIX for answers, expected in rows]


def told(verdict: Verdict) -> str:
    if verdict.note:
        assert not verdict.taken
        return ERROR
    return TAKEN if verdict.taken else NOT


@pytest.mark.parametrize(("expression", "answers", "expected"), FLAT)
def test_what_is_taken(expression: str, answers: dict[str, Any], expected: str) -> None:
    assert list(problems(expression, KNOWN)) == []
    assert told(holds(expression, {"f": answers})) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "x" * (LONGEST + 1),
        "{{f.status}} ==",
        "{{f.status}} = 'a'",
        "{{f.status}} == 'a",
        "{{f.status}} and {{f.agreed}}",
        "Default",
        " default",
        "status == 'a'",
        "{{f.nothing}} == 'a'",
        "{{g.status}} == 'a'",
        "{{f.status.more}} == 'a'",
        "{{}}",
        "{{f.}}",
        "{{F.status}}",
        "{{f.status}",
        "{{f.status}}{{f.agreed}}",
        "{{f.status}} == 'A7",
        "{{f.status}}x == 'a'",
        "not{{f.agreed}}",
        "A0 == 'a'",
        "{{f.status}} == T0",
        "has({{f.status}})",
        "{{f}}.{{f.status}}",
        "{{f.status}} == 3",
        "{{f.agreed}} == 'yes'",
        "{{f.amount}} + 1 > 3",
        "{{f.amount}} % 2 == 0",
        "{{f.amount}} * 1.5 > 100",
        "{{f.agreed}} ? 'a' : 'b'",
        "size({{f.tags}})",
        "{{f.amount}} * 2.0",
        "'approved'",
        "{{f.tags}}.exists(t, t == 'x')",
        "{{f.tags}}.all(t, t == 'x')",
        "{{f.tags}}.map(t, t) == []",
        "{{f.status}} + 'x' == 'ax'",
        "[1] + [2] == [1, 2]",
        "unknown({{f.status}})",
        "(" * 60 + "true" + ")" * 60,
    ],
)
def test_what_an_author_is_told_at_once(expression: str) -> None:
    found = list(problems(expression, KNOWN))
    assert found
    assert not any(name in each for each in found for name in ("A0", "T0", "N0", "B0"))  # the author's words, not ours


def test_a_finding_names_the_column_in_the_authors_text() -> None:
    (found,) = problems("{{f.status}} == 'a' && {{f.status}} == 3", KNOWN)
    assert found.startswith("column 37: ")


def test_a_note_is_in_the_authors_words() -> None:
    assert holds("{{f.amount}} > 3", {}).note == "No matching overloads found : _>_(null_type, int64)"


@pytest.mark.parametrize(
    "answer",
    [
        "' || true || '",
        "approved' || 'a' == 'a",
        '" || true',
        "{{f.agreed}}",
        "}} || true || {{f.status",
        "\\' || true //",
        "''' || true",
        "default",
        "true",
    ],
)
def test_an_answer_is_a_value_and_never_a_piece_of_a_program(answer: str) -> None:
    assert holds("{{f.status}} == 'approved'", {"f": {"status": answer}}) == Verdict(False)
    assert holds("{{f.status}} != 'approved'", {"f": {"status": answer}}) == Verdict(True)


@given(st.text(max_size=30))
def test_any_text_equals_itself_alone(answer: str) -> None:
    variables = {"f": {"status": answer, "other": answer}}
    assert holds("{{f.status}} == {{f.other}}", variables).taken
    assert not holds("{{f.status}} == 'approved'", {"f": {"status": answer + "!"}}).taken


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([expression for expression, _ in MATRIX]), json_values, json_values)
def test_nothing_raises_while_a_run_is_on_its_way(expression: str, status: Any, amount: Any) -> None:
    answers = {"status": status, "amount": amount, "agreed": amount, "tags": status}
    assert told(holds(expression, {"f": answers})) in (TAKEN, NOT, ERROR)


PIECES = ["{{f.status}}", "{{f.amount}}", "'", '"', "==", "{{", "}}", "(", "//", "r", "A1", " ", ".", "+", "1"]


@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_no_text_breaks_the_judge_or_the_run(expression: str) -> None:
    sound = not list(problems(expression, KNOWN))
    verdict = holds(expression, {"f": {"status": "1", "amount": 1}})
    assert not sound or expression == "default" or not verdict.note or "{{" in expression


def test_answers_too_long_to_compare_are_not_compared() -> None:
    """A loop over a long answer took a process down within CEL's own budget; neither is possible."""
    assert told(holds("{{f.status}} == 'a'", {"f": {"status": "x" * MOST_READ}})) == ERROR
    assert told(holds("{{f.status}} == 'a'", {"f": {"status": "x" * (MOST_READ - 100)}})) == NOT


def test_conditions_are_judged_in_many_threads_at_once() -> None:
    wrong: list[int] = []

    def judge(number: int) -> None:
        for each in range(200):
            verdict = holds(f"{{{{f.amount}}}} == {each % 50}", {"f": {"amount": number}})
            if verdict.taken != (each % 50 == number):
                wrong.append(each)

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
