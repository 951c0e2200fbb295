"""The customer check that the journeys walk through (spec v1 §7): its field, form and pipeline, and tiny verbs."""

from typing import Any

from tests.journeys.conftest import Client

OPTIONS = [
    {"value": "pending", "label": "Pending"},
    {"value": "approved", "label": "Approved"},
    {"value": "rejected", "label": "Rejected"},
]
FIELD = {
    "object_type": "contact",
    "key": "kyc_status",
    "label": "KYC Status",
    "field_type": "picklist",
    "picklist_options": {"options": OPTIONS},
    "section": "Compliance",
}


class Kyc:
    """A published form and pipeline, triggered by the stage *engaged*."""

    def __init__(self, api: Client) -> None:
        self.api = api
        self.stage = next(s["id"] for s in self.api.call("GET", "/contact-stages") if s["name"] == "engaged")
        self.field = self.api.call("POST", "/custom-fields", FIELD)
        self.form = self.api.call("POST", "/forms", form_body(self.field["id"]))
        self.api.call("POST", f"/forms/{self.form['id']}/publish")
        self.pipeline = self.api.call("POST", "/pipelines", pipeline_body(self.form["id"], self.stage))
        self.api.call("POST", f"/pipelines/{self.pipeline['id']}/publish")

    def contact_in_review(self, **members: Any) -> tuple[int, dict[str, Any], dict[str, Any]]:
        """A contact moved into the stage, its run and the action that waits."""
        contact = self.api.call("POST", "/contacts", {"first_name": "Ada", **members})
        self.api.call("PATCH", f"/contacts/{contact['id']}", {"contact_stage_id": self.stage})
        run = self.runs(contact["id"])[0]
        return contact["id"], run, self.actions(run["id"])[0]

    def runs(self, contact_id: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.call(
            "GET",
            "/pipeline-runs",
            pipeline_definition_id=self.pipeline["id"],
            subject_type="contact",
            subject_id=contact_id,
        )
        return found

    def run(self, run_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.api.call("GET", f"/pipeline-runs/{run_id}")
        return found

    def actions(self, run_id: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.call("GET", f"/pipeline-runs/{run_id}/actions")
        return found

    def contact(self, contact_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.api.call("GET", f"/contacts/{contact_id}")
        return found

    def submit(self, contact_id: int, action_id: int, status: str) -> dict[str, Any]:
        made: dict[str, Any] = self.api.call("POST", *self.submission(contact_id, action_id, status))
        return made

    def submission(self, contact_id: int, action_id: int, status: str) -> tuple[str, dict[str, Any]]:
        return f"/forms/{self.form['id']}/submissions", {
            "contact_id": contact_id,
            "context_type": "pipeline_run_action",
            "context_id": action_id,
            "values": {"kyc_status": status, "id_type": "passport", "id_number": "AB123456"},
        }


def form_body(field_id: int) -> dict[str, Any]:
    return {
        "name": "KYC Verification",
        "schema": {
            "fields": [
                {
                    "key": "kyc_status",
                    "kind": "reference",
                    "label": "KYC Status",
                    "required": True,
                    "custom_field_definition_id": field_id,
                },
                {
                    "key": "id_type",
                    "kind": "inline",
                    "label": "ID type",
                    "type": "picklist",
                    "picklist_options": [
                        {"value": "passport", "label": "Passport"},
                        {"value": "national_id", "label": "National ID"},
                        {"value": "drivers", "label": "Driver's licence"},
                    ],
                },
                {
                    "key": "id_number",
                    "kind": "inline",
                    "label": "ID number",
                    "type": "text",
                    "validation": {"max_length": 50},
                },
            ],
            "write_back": [
                {"field_key": "kyc_status", "target": "contact", "custom_field_definition_id": field_id},
            ],
        },
    }


def pipeline_body(form_id: int, stage_id: int, approved: str = "done", other: str = "rejected") -> dict[str, Any]:
    return {
        "name": "KYC Onboarding",
        "subject_type": "contact",
        "auto_enroll_contact_stage_id": stage_id,
        "schema": {
            "entry_stage_key": "review",
            "stages": [
                {
                    "key": "review",
                    "name": "Review",
                    "actions": [
                        {
                            "key": "kyc_form",
                            "type": "form",
                            "required": True,
                            "config": {"form_definition_id": form_id},
                        }
                    ],
                    "branches": [
                        {"expression": "{{kyc_form.kyc_status}} == 'approved'", "target": approved},
                        {"expression": "default", "target": other},
                    ],
                },
                {"key": "done", "name": "Done", "terminal": True},
                {"key": "rejected", "name": "Rejected", "terminal": True},
            ],
        },
    }
