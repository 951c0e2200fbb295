"""The customer-onboarding walkthrough and its variants, over HTTP through the gateway (spec v1 §7)."""

from typing import Any

import pytest

from tests.journeys.conftest import Client, Organization
from tests.journeys.kyc import FIELD, OPTIONS, Kyc, form_body, pipeline_body


@pytest.fixture
def kyc(api: Client) -> Kyc:
    return Kyc(api)


def test_the_walkthrough(organization: Organization, api: Client) -> None:
    stage = next(s["id"] for s in api.call("GET", "/contact-stages") if s["name"] == "engaged")
    contact = api.call("POST", "/contacts", {"first_name": "Ada", "last_name": "Lovelace"})["id"]

    # 1: the field
    field = api.call("POST", "/custom-fields", FIELD)
    assert field["organization_id"] == organization.id
    assert field["field_type"] == "picklist"
    assert field["picklist_options"] == {"options": OPTIONS}
    assert field.get("validation_rules") is None
    assert (field["section"], field["position"], field["is_active"]) == ("Compliance", 0, True)
    assert api.refused("POST", "/custom-fields", FIELD) == (409, "ErrCustomFieldKeyTaken")
    for wrong in (
        {"key": "other", "picklist_options": None},
        {"key": "other", "picklist_options": {"options": [{"value": "a", "label": ""}]}},
        {"key": "Kyc"},
    ):
        assert api.refused("POST", "/custom-fields", {**FIELD, **wrong}) == (400, "INVALID_ARGUMENT")

    # 2: the form
    form = api.call("POST", "/forms", form_body(field["id"]))
    assert (form["status"], form["version"]) == ("draft", 1)
    submission = {"contact_id": contact, "values": {"kyc_status": "approved"}}
    assert api.refused("POST", f"/forms/{form['id']}/submissions", submission) == (400, "ErrFormNotPublished")
    published = api.call("POST", f"/forms/{form['id']}/publish")
    assert published["status"] == "published"
    assert published["schema"]["fields"][0]["picklist_options"] == OPTIONS
    assert api.refused("PATCH", f"/forms/{form['id']}", {"description": "x"}) == (400, "ErrFormNotDraft")
    assert api.refused("POST", f"/forms/{form['id']}/publish") == (400, "ErrFormNotDraft")

    # 3: the pipeline
    pipeline = api.call("POST", "/pipelines", pipeline_body(form["id"], stage))
    assert (pipeline["status"], pipeline["version"]) == ("draft", 1)
    assert pipeline["auto_enroll_contact_stage_id"] == stage
    enrol = {"pipeline_definition_id": pipeline["id"]}
    assert api.refused("POST", f"/contacts/{contact}/pipeline-runs", enrol) == (400, "ErrPipelineNotPublished")
    assert api.call("POST", f"/pipelines/{pipeline['id']}/publish")["status"] == "published"

    # 4: entering the stage
    moved = api.call("PATCH", f"/contacts/{contact}", {"contact_stage_id": stage})
    assert moved["contact_stage_id"] == stage
    filters = {"pipeline_definition_id": pipeline["id"], "subject_type": "contact", "subject_id": contact}
    (run,) = api.call("GET", "/pipeline-runs", **filters)
    expected = {**RUN_AT_REST, "subject_id": contact, "enrolled_by_user_id": organization.user_id}
    assert {name: run.get(name) for name in expected} == expected
    assert run["started_at"]
    (action,) = api.call("GET", f"/pipeline-runs/{run['id']}/actions")
    assert {name: action.get(name) for name in ACTION_AT_REST} == ACTION_AT_REST
    api.call("PATCH", f"/contacts/{contact}", {"contact_stage_id": 0})
    api.call("PATCH", f"/contacts/{contact}", {"contact_stage_id": stage})
    assert len(api.call("GET", "/pipeline-runs", **filters)) == 1
    assert api.refused("POST", f"/contacts/{contact}/pipeline-runs", enrol) == (400, "ErrPipelineAlreadyEnrolled")

    # 5: the submission
    values = {"kyc_status": "approved", "id_type": "passport", "id_number": "AB123456"}
    context = {"contact_id": contact, "context_type": "pipeline_run_action", "context_id": action["id"]}
    sent = api.call("POST", f"/forms/{form['id']}/submissions", {**context, "values": values})
    assert {name: sent[name] for name in context} == context
    assert (sent["form_definition_id"], sent["form_version"], sent["account_id"]) == (form["id"], 1, 0)
    assert sent["submitted_by_user_id"] == organization.user_id
    assert len(sent["schema_snapshot"]["fields"]) == 3
    assert len(sent["schema_snapshot"]["write_back"]) == 1
    assert sent["write_back_result"] == [
        {
            "target": "contact",
            "field_key": "kyc_status",
            "custom_field_definition_id": field["id"],
            "status": "applied",
            "old_value": None,
            "new_value": "approved",
            "error": "",
        }
    ]
    assert api.call("GET", f"/contacts/{contact}")["custom_fields"] == {"kyc_status": "approved"}

    # 6: the end of the run
    ended = api.call("GET", f"/pipeline-runs/{run['id']}")
    assert (ended["status"], ended["current_stage_key"]) == ("completed", "done")
    assert ended["completed_at"]
    assert ended["variables"] == {"kyc_form": values}
    (done,) = api.call("GET", f"/pipeline-runs/{run['id']}/actions")
    assert (done["id"], done["status"], done["form_submission_id"]) == (action["id"], "completed", sent["id"])
    assert (done["result"], done["completed_by_user_id"]) == (values, organization.user_id)
    assert done["completed_at"]
    again = api.refused("POST", f"/forms/{form['id']}/submissions", {**context, "values": values})
    assert again == (400, "ErrRunActionNotPending")
    assert len(api.call("GET", "/form-submissions", form_definition_id=form["id"])) == 1
    assert api.call("POST", f"/contacts/{contact}/pipeline-runs", enrol)["enroll_source"] == "manual"
    assert api.refused("DELETE", f"/forms/{form['id']}") == (400, "ErrFormHasSubmissions")
    assert api.call("POST", f"/forms/{form['id']}/archive")["status"] == "archived"
    assert api.refused("DELETE", f"/forms/{form['id']}") == (400, "ErrFormHasSubmissions")
    assert api.call("POST", f"/pipelines/{pipeline['id']}/archive")["status"] == "archived"
    assert api.refused("DELETE", f"/pipelines/{pipeline['id']}") == (400, "ErrPipelineHasRuns")


RUN_AT_REST: dict[str, Any] = {
    "status": "running",
    "current_stage_key": "review",
    "definition_version": 1,
    "subject_type": "contact",
    "variables": {},
    "enroll_source": "auto",
    "cancel_reason": "",
    "failure_reason": "",
    "paused_at": None,
    "completed_at": None,
    "cancelled_at": None,
    "failed_at": None,
}
ACTION_AT_REST: dict[str, Any] = {
    "stage_key": "review",
    "action_key": "kyc_form",
    "action_type": "form",
    "required": True,
    "status": "pending",
    "form_submission_id": 0,
    "deal_id": 0,
    "engagement_id": 0,
    "completed_at": None,
    "error_message": "",
}


@pytest.mark.parametrize("status", ["rejected", "pending"])
def test_v1_another_answer_takes_the_default_branch(kyc: Kyc, status: str) -> None:
    contact, run, action = kyc.contact_in_review()
    kyc.submit(contact, action["id"], status)
    ended = kyc.run(run["id"])
    assert (ended["status"], ended["current_stage_key"]) == ("completed", "rejected")
    assert kyc.contact(contact)["custom_fields"] == {"kyc_status": status}


def test_v2_a_value_outside_the_options_changes_nothing(kyc: Kyc) -> None:
    contact, run, action = kyc.contact_in_review()
    assert kyc.api.refused("POST", *kyc.submission(contact, action["id"], "maybe")) == (400, "INVALID_ARGUMENT")
    assert kyc.api.call("GET", "/form-submissions", contact_id=contact) == []
    assert kyc.actions(run["id"])[0]["status"] == "pending"
    assert kyc.contact(contact)["custom_fields"] == {}


def test_v3_an_archived_field_is_skipped_and_the_run_goes_on(kyc: Kyc) -> None:
    contact, run, action = kyc.contact_in_review()
    kyc.api.call("POST", f"/custom-fields/{kyc.field['id']}:archive")
    (row,) = kyc.submit(contact, action["id"], "approved")["write_back_result"]
    assert (row["status"], row["new_value"]) == ("skipped", None)
    assert kyc.contact(contact)["custom_fields"] == {}
    assert kyc.run(run["id"])["current_stage_key"] == "done"


def test_v4_live_rules_judge_the_write_back_and_the_snapshot_judges_the_submission(kyc: Kyc) -> None:
    contact, run, action = kyc.contact_in_review()
    fewer = {"options": [option for option in OPTIONS if option["value"] != "approved"]}
    kyc.api.call("PATCH", f"/custom-fields/{kyc.field['id']}", {"picklist_options": fewer})
    (row,) = kyc.submit(contact, action["id"], "approved")["write_back_result"]
    assert (row["status"], row["new_value"]) == ("failed", "approved")
    assert row["error"]
    assert kyc.contact(contact)["custom_fields"] == {}
    assert kyc.run(run["id"])["current_stage_key"] == "done"


def test_v5_a_paused_run_keeps_the_answer_and_moves_on_when_resumed(kyc: Kyc) -> None:
    contact, run, action = kyc.contact_in_review()
    assert kyc.api.call("POST", f"/pipeline-runs/{run['id']}/pause")["paused_at"]
    kyc.submit(contact, action["id"], "approved")
    held = kyc.run(run["id"])
    assert (held["status"], held["current_stage_key"]) == ("paused", "review")
    assert held["variables"]["kyc_form"]["kyc_status"] == "approved"
    assert kyc.actions(run["id"])[0]["status"] == "completed"
    resumed = kyc.api.call("POST", f"/pipeline-runs/{run['id']}/resume")
    assert (resumed["status"], resumed["current_stage_key"]) == ("completed", "done")
    assert resumed.get("paused_at") is None


def test_v6_a_cancelled_run_starts_anew(kyc: Kyc) -> None:
    _, run, action = kyc.contact_in_review()
    cancelled = kyc.api.call("POST", f"/pipeline-runs/{run['id']}/cancel", {"reason": "asked to"})
    assert (cancelled["status"], cancelled["cancel_reason"]) == ("cancelled", "asked to")
    assert kyc.actions(run["id"])[0]["status"] == "skipped"
    again = kyc.api.call("POST", f"/pipeline-runs/{run['id']}/restart", {"from_stage_key": "review"})
    assert (again["status"], again["cancel_reason"], again["variables"]) == ("running", "", {})
    assert again.get("cancelled_at") is None
    (row,) = kyc.actions(run["id"])
    assert row["status"] == "pending"
    assert row["id"] != action["id"]


def test_v7_a_completed_run_starts_anew_and_nothing_outside_is_undone(kyc: Kyc) -> None:
    contact, run, action = kyc.contact_in_review()
    sent = kyc.submit(contact, action["id"], "approved")
    again = kyc.api.call("POST", f"/pipeline-runs/{run['id']}/restart", {"from_stage_key": "review"})
    assert (again["status"], again["variables"], again.get("completed_at")) == ("running", {}, None)
    (row,) = kyc.actions(run["id"])
    assert (row["status"], row["id"] == action["id"]) == ("pending", False)
    assert kyc.api.call("GET", f"/form-submissions/{sent['id']}")["id"] == sent["id"]
    assert kyc.contact(contact)["custom_fields"] == {"kyc_status": "approved"}


def test_v8_a_run_ends_on_the_version_it_started_with(kyc: Kyc) -> None:
    contact, run, action = kyc.contact_in_review()
    draft = kyc.api.call("POST", f"/pipelines/{kyc.pipeline['id']}/drafts")
    swapped = pipeline_body(kyc.form["id"], kyc.stage, approved="rejected", other="done")["schema"]
    kyc.api.call("PATCH", f"/pipelines/{draft['id']}", {"schema": swapped})
    assert kyc.api.call("POST", f"/pipelines/{draft['id']}/publish")["version"] == 2
    kyc.submit(contact, action["id"], "approved")
    ended = kyc.run(run["id"])
    assert (ended["status"], ended["current_stage_key"], ended["definition_version"]) == ("completed", "done", 1)
    newcomer = kyc.api.call("POST", "/contacts", {"first_name": "Grace", "contact_stage_id": kyc.stage})["id"]
    (newer,) = kyc.api.call("GET", "/pipeline-runs", subject_type="contact", subject_id=newcomer)
    assert newer["definition_version"] == 2
