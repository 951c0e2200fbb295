"""Pipelines drawn in a few words, as the documents that the contract takes and the tables keep."""

from typing import Any

Drawing = dict[str, Any]


def form(key: str = "kyc_form", form_id: int = 10, *, required: bool = True) -> Drawing:
    return _action(key, "form", required, form_definition_id=form_id)


def checklist(key: str, *items: str, required: bool = True) -> Drawing:
    return _action(key, "checklist", required, items=[{"key": item, "title": item.title()} for item in items])


def deal(key: str = "deal", *, required: bool = False, **config: Any) -> Drawing:
    return _action(key, "create_deal", required, **{"title_template": "New deal", "deal_stage_id": 1, **config})


def notice(key: str = "notice", *, required: bool = False, **config: Any) -> Drawing:
    return _action(key, "send_notification", required, **{"recipient": "contact", "template_id": 1, **config})


def stage(key: str, *actions: Drawing, to: str | list[tuple[str, str]] = "done") -> Drawing:
    """A stage that leads on: to one stage by default, or by branches of expression and target."""
    branches = [("default", to)] if isinstance(to, str) else to
    return {
        "key": key,
        "name": key.title(),
        "terminal": False,
        "actions": list(actions),
        "branches": [{"expression": expression, "target": target} for expression, target in branches],
    }


def ending(key: str, *actions: Drawing) -> Drawing:
    return {"key": key, "name": key.title(), "terminal": True, "actions": list(actions), "branches": []}


def drawn(*stages: Drawing, entry: str | None = None) -> Drawing:
    return {"entry_stage_key": entry if entry is not None else stages[0]["key"], "stages": list(stages)}


def kyc(form_id: int = 10, *, approved: str = "done", otherwise: str = "rejected") -> Drawing:
    """The pipeline of the walkthrough (spec v1 §7, step 3)."""
    ways = [("{{kyc_form.kyc_status}} == 'approved'", approved), ("default", otherwise)]
    return drawn(stage("review", form("kyc_form", form_id), to=ways), ending("done"), ending("rejected"))


def _action(key: str, kind: str, required: bool, **config: Any) -> Drawing:
    return {"key": key, "type": kind, "required": required, "config": config}
