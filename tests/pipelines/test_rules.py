"""Every rule of a definition, each with a pipeline that breaks it alone (spec v1 §4.4, D74)."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from services.pipelines import rules
from services.pipelines.actions import Form, kind_of, unavailable
from services.pipelines.definition import Schema
from tests.pipelines.drawings import Drawing, checklist, deal, drawn, ending, form, kyc, notice, stage

FORMS = {
    10: Form(
        published=True,
        fields={
            "kyc_status": kind_of("picklist"),
            "amount": kind_of("currency"),
            "agreed": kind_of("boolean"),
            "tags": kind_of("multi_picklist"),
        },
    ),
    11: Form(published=False, fields={}),
}
Broken = set[tuple[str, str]]
"""Path and rule of each violation."""


def broken(drawing: Drawing, *, publishing: bool = False) -> Broken:
    found = list(rules.wrong_schema(Schema.of(drawing), FORMS, publishing=publishing))
    assert all(": " in each.message for each in found)
    return {(each.field, each.message.partition(": ")[0]) for each in found}


def messages(drawing: Drawing) -> list[str]:
    return [each.message for each in rules.wrong_schema(Schema.of(drawing), FORMS)]


def review(drawing: Drawing) -> Any:
    return drawing["stages"][0]


def spoilt(change: Callable[[Drawing], Any]) -> Drawing:
    """The walkthrough's pipeline with one change."""
    drawing = copy.deepcopy(kyc())
    change(drawing)
    return drawing


def put(path: str, value: Any) -> Callable[[Drawing], None]:
    """Sets one member, such as `0.actions.0.key` of the stages."""

    def change(drawing: Drawing) -> None:
        *way, last = path.split(".")
        place: Any = drawing["stages"]
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        place[int(last) if last.isdigit() else last] = value

    return change


RICH = drawn(
    stage(
        "intake",
        form("kyc_form"),
        checklist("papers", "passport", "proof", required=False),
        to=[
            ("{{kyc_form.kyc_status}} == 'approved' && {{kyc_form.amount}} > 1000", "welcome"),
            ("{{papers.proof}}", "welcome"),
            ("default", "refused"),
        ],
    ),
    stage(
        "welcome",
        deal(title_template="KYC {{ kyc_form.kyc_status }}", amount_var="kyc_form.amount"),
        notice(recipient="owner", template_id="welcome {{no reference here"),
        notice("second", recipient="{{kyc_form.kyc_status}} {{deal.title}}"),
    ),
    ending("done"),
    ending("refused", notice("sorry", required=True)),
)


@pytest.mark.parametrize("drawing", [kyc(), RICH, drawn(ending("done"))], ids=["kyc", "rich", "one stage"])
def test_a_pipeline_that_keeps_the_rules_breaks_none(drawing: Drawing) -> None:
    assert broken(drawing, publishing=True) == set()


CASES: list[tuple[str, Drawing, Broken]] = [
    ("R1: unknown entry", spoilt(lambda d: d.update(entry_stage_key="start")), {("schema.entry_stage_key", "R1")}),
    ("R1: no entry", spoilt(lambda d: d.update(entry_stage_key="")), {("schema.entry_stage_key", "R1")}),
    ("R2: capitals", drawn(ending("Done")), {("schema.stages[0].key", "R2")}),
    ("R2: a digit first", drawn(ending("1st")), {("schema.stages[0].key", "R2")}),
    ("R2: a trailing line break", drawn(ending("done\n")), {("schema.stages[0].key", "R2")}),
    ("R2: too long", drawn(ending("a" * 101)), {("schema.stages[0].key", "R2")}),
    ("R3: twice", drawn(stage("review"), ending("done"), ending("done")), {("schema.stages[2].key", "R3")}),
    ("R4: a dash", drawn(stage("a", form("a-b")), ending("done")), {("schema.stages[0].actions[0].key", "R4")}),
    (
        "R5: twice in a stage",
        drawn(stage("review", form("a"), form("a")), ending("done")),
        {("schema.stages[0].actions[1].key", "R5")},
    ),
    (
        "R6: no way on",
        drawn(
            stage("a", form(), to=[("{{kyc_form.agreed}}", "b"), ("default", "done")]),
            stage("b", to=[]),
            ending("done"),
        ),
        {("schema.stages[1].branches", "R6")},
    ),
    (
        "R7: no default",
        drawn(stage("review", form(), to=[("{{kyc_form.agreed}}", "done")]), ending("done")),
        {("schema.stages[0].branches[0].expression", "R7")},
    ),
    (
        "R7: default with a blank",
        drawn(stage("review", to=[("default ", "done")]), ending("done")),
        {("schema.stages[0].branches[0].expression", "R7"), ("schema.stages[0].branches[0].expression", "R18")},
    ),
    (
        "R8: unknown target",
        drawn(stage("a", form(), to=[("{{kyc_form.agreed}}", "gone"), ("default", "done")]), ending("done")),
        {("schema.stages[0].branches[0].target", "R8")},
    ),
    (
        "R9: itself",
        drawn(stage("review", form(), to=[("{{kyc_form.agreed}}", "review"), ("default", "done")]), ending("done")),
        {("schema.stages[0].branches[0].target", "R9")},
    ),
    (
        "R9: a longer way round",
        drawn(
            stage("a", to="b"),
            stage("b", form(), to=[("{{kyc_form.agreed}}", "c"), ("default", "done")]),
            stage("c", to="a"),
            ending("done"),
        ),
        {("schema.stages[2].branches[0].target", "R9")},
    ),
    ("R10: an orphan", drawn(stage("review"), ending("done"), ending("lost")), {("schema.stages[2]", "R10")}),
    (
        "R11: no form named",
        spoilt(put("0.actions.0.config", {})),
        {("schema.stages[0].actions[0].config.form_definition_id", "R11")},
    ),
    (
        "R11: a form's id as text",
        spoilt(put("0.actions.0.config", {"form_definition_id": "10"})),
        {("schema.stages[0].actions[0].config.form_definition_id", "R11")},
    ),
    (
        "R11: an unknown form",
        spoilt(put("0.actions.0.config", {"form_definition_id": 404})),
        {("schema.stages[0].actions[0].config.form_definition_id", "R11")},
    ),
    (
        "R11: an unknown member",
        spoilt(put("0.actions.0.config.colour", "red")),
        {("schema.stages[0].actions[0].config.colour", "R11")},
    ),
    (
        "R11: no items",
        drawn(stage("review", checklist("papers")), ending("done")),
        {("schema.stages[0].actions[0].config.items", "R11")},
    ),
    (
        "R11: items of another shape",
        drawn(
            stage(
                "review",
                {**checklist("papers"), "config": {"items": ["x", {"key": "a", "title": " ", "note": "y"}]}},
            ),
            ending("done"),
        ),
        {
            ("schema.stages[0].actions[0].config.items[0]", "R11"),
            ("schema.stages[0].actions[0].config.items[1].note", "R11"),
            ("schema.stages[0].actions[0].config.items[1].title", "R11"),
        },
    ),
    (
        "R11: a deal without title and stage",
        drawn(ending("done", deal(title_template="", deal_stage_id=None))),
        {
            ("schema.stages[0].actions[0].config.title_template", "R11"),
            ("schema.stages[0].actions[0].config.deal_stage_id", "R11"),
        },
    ),
    (
        "R11: a deal's amount that is no reference",
        drawn(ending("done", deal(amount_var="1,000"))),
        {("schema.stages[0].actions[0].config.amount_var", "R11")},
    ),
    (
        "R11: a notification without recipient and template",
        drawn(ending("done", notice(recipient=None, template_id=0))),
        {
            ("schema.stages[0].actions[0].config.recipient", "R11"),
            ("schema.stages[0].actions[0].config.template_id", "R11"),
        },
    ),
    (
        "R11: a template that refers to what is not done yet",
        drawn(stage("review", form(), deal(title_template="{{kyc_form.kyc_status}}")), ending("done")),
        {("schema.stages[0].actions[1].config.title_template", "R11")},
    ),
    (
        "R11: a template with half a reference",
        drawn(ending("done", deal(title_template="{{kyc_form.}}"))),
        {("schema.stages[0].actions[0].config.title_template", "R11")},
    ),
    (
        "R11: an amount nobody gives",
        drawn(stage("review", form(), to="won"), ending("won", deal(amount_var="{{kyc_form.amout}}"))),
        {("schema.stages[1].actions[0].config.amount_var", "R11")},
    ),
    (
        "R13: no stages",
        {"entry_stage_key": "a", "stages": []},
        {("schema.stages", "R13"), ("schema.entry_stage_key", "R1")},
    ),
    (
        "R13: no end",
        drawn(stage("a", to="b"), stage("b", to="a")),
        {("schema.stages", "R13"), ("schema.stages[1].branches[0].target", "R9")},
    ),
    (
        "R14: default before the end",
        drawn(stage("review", to=[("default", "done"), ("default", "done")]), ending("done")),
        {("schema.stages[0].branches[0].expression", "R14")},
    ),
    (
        "R15: a way on from the end",
        drawn({**ending("done"), "branches": [{"expression": "default", "target": "done"}]}),
        {("schema.stages[0].branches", "R15"), ("schema.stages[0].branches[0].target", "R9")},
    ),
    (
        "R15: a form at the end",
        drawn(ending("done", form())),
        {("schema.stages[0].actions[0].type", "R15")},
    ),
    ("R16: no name", drawn({**ending("done"), "name": " "}), {("schema.stages[0].name", "R16")}),
    ("R16: a long name", drawn({**ending("done"), "name": "x" * 256}), {("schema.stages[0].name", "R16")}),
    (
        "R17: an unknown type",
        drawn(stage("review", {**form(), "type": "phone_call"}), ending("done")),
        {("schema.stages[0].actions[0].type", "R17")},
    ),
    (
        "R18: what does not parse",
        spoilt(put("0.branches.0.expression", "{{kyc_form.kyc_status}} ==")),
        {("schema.stages[0].branches[0].expression", "R18")},
    ),
    (
        "R18: an unknown field",
        spoilt(put("0.branches.0.expression", "{{kyc_form.kyc_statu}} == 'approved'")),
        {("schema.stages[0].branches[0].expression", "R18")},
    ),
    (
        "R18: an action of a later stage",
        drawn(
            stage("a", to=[("{{kyc_form.agreed}}", "b"), ("default", "done")]),
            stage("b", form()),
            ending("done"),
        ),
        {("schema.stages[0].branches[0].expression", "R18")},
    ),
    (
        "R18: an action of another way",
        drawn(
            stage("a", form("start"), to=[("{{start.agreed}}", "b"), ("default", "c")]),
            stage("b", form()),
            stage("c", to=[("{{kyc_form.agreed}}", "done"), ("default", "done")]),
            ending("done"),
        ),
        {("schema.stages[2].branches[0].expression", "R18")},
    ),
    (
        "R19: an item's key",
        drawn(stage("review", checklist("papers", "ok", "Not")), ending("done")),
        {("schema.stages[0].actions[0].config.items[1].key", "R19")},
    ),
    (
        "R19: an item twice",
        drawn(stage("review", checklist("papers", "ok", "ok")), ending("done")),
        {("schema.stages[0].actions[0].config.items[1].key", "R19")},
    ),
]


@pytest.mark.parametrize(("drawing", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_broken_rule_is_named_with_its_path(drawing: Drawing, expected: Broken) -> None:
    assert broken(drawing) == expected


def test_every_rule_of_a_schema_has_a_case() -> None:
    rules_of_trigger = {"R12"}
    named = {rule for _, _, expected in CASES for _, rule in expected}
    assert named | rules_of_trigger == {f"R{number}" for number in range(1, 20)}


def test_all_violations_are_told_at_once() -> None:
    drawing = drawn(
        {**stage("Review", {**form(), "type": "call"}, to=[("1 +", "gone")]), "name": ""}, ending("lost"), entry="no"
    )
    assert broken(drawing) == {
        ("schema.entry_stage_key", "R1"),
        ("schema.stages[0].key", "R2"),
        ("schema.stages[0].name", "R16"),
        ("schema.stages[0].branches[0].expression", "R7"),
        ("schema.stages[0].branches[0].expression", "R18"),
        ("schema.stages[0].branches[0].target", "R8"),
        ("schema.stages[0].actions[0].type", "R17"),
    }


def test_a_form_must_exist_in_a_draft_and_be_published_to_publish() -> None:
    drawing = drawn(stage("review", form(form_id=11)), ending("done"))
    assert broken(drawing) == set()
    path = "schema.stages[0].actions[0].config.form_definition_id"
    assert broken(drawing, publishing=True) == {(path, "R11")}


def test_nearest_names_are_suggested() -> None:
    wrong_action = spoilt(put("0.branches.0.expression", "{{kyc_from.kyc_status}} == 'a'"))
    assert [each for each in messages(wrong_action) if "did you mean 'kyc_form'?" in each]
    wrong_field = spoilt(put("0.branches.0.expression", "{{kyc_form.kyc_stats}} == 'a'"))
    assert [each for each in messages(wrong_field) if "did you mean 'kyc_status'?" in each]


def test_a_loop_is_told_with_its_stages() -> None:
    drawing = drawn(
        stage("a", to="b"), stage("b", form(), to=[("{{kyc_form.agreed}}", "a"), ("default", "c")]), ending("c")
    )
    assert messages(drawing) == ["R9: a loop: a → b → a"]


def test_a_stage_may_refer_to_actions_of_every_stage_on_a_way_to_it() -> None:
    drawing = drawn(
        stage("a", form("start"), to=[("{{start.agreed}}", "b"), ("default", "c")]),
        stage("b", form("more"), to="c"),
        stage("c", to=[("{{start.agreed}} && {{more.agreed}}", "done"), ("default", "done")]),
        ending("done"),
    )
    assert broken(drawing) == set()


def test_actions_of_one_key_on_several_stages_give_what_either_gives() -> None:
    """spec v1 D82: the key is unique in its stage only."""
    drawing = drawn(
        stage("a", form("answer"), to="b"),
        stage(
            "b",
            checklist("answer", "proof"),
            to=[("{{answer.proof}} || {{answer.agreed}}", "done"), ("default", "done")],
        ),
        ending("done"),
    )
    assert broken(drawing) == set()


def test_nothing_can_run_automatic_actions_yet() -> None:
    found = list(unavailable(Schema.of(RICH)))
    assert [each.field for each in found] == [
        "schema.stages[1].actions[0].type",
        "schema.stages[1].actions[1].type",
        "schema.stages[1].actions[2].type",
        "schema.stages[3].actions[0].type",
    ]
    assert list(unavailable(Schema.of(kyc()))) == []


def test_a_pipeline_as_large_as_allowed_is_judged_whole() -> None:
    """Every action gives different names under the same keys: the worst there is to look up."""
    expression = " || ".join(f"{{{{a{number % 5}.x{number}}}}}" for number in range(100))
    stages = [
        stage(
            f"s{number}",
            *(checklist(f"a{each}", f"x{each}", f"y{number}_{each}") for each in range(5)),
            to=[(expression, f"s{number + 1}")] * 4 + [("default", f"s{number + 1}")],
        )
        for number in range(199)
    ]
    assert {rule for _, rule in broken(drawn(*stages, ending("s199")))} == {"R18"}


def test_a_pipeline_larger_than_people_draw_is_refused_as_such() -> None:
    crowd = [
        stage(f"s{number}", *(form(f"f{each}") for each in range(50)), to=f"s{number + 1}") for number in range(21)
    ]
    assert broken(drawn(*crowd, ending("s21"))) == {("schema.stages", "R13")}
