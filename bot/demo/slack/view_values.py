"""From what a person entered in a modal's fields to Slack's `view.state.values`."""

from typing import Any

_DATES = {
    "datepicker": "selected_date",
    "timepicker": "selected_time",
    "datetimepicker": "selected_date_time",
}
_PICKS = {
    "users_select": "selected_user",
    "channels_select": "selected_channel",
    "conversations_select": "selected_conversation",
    "multi_users_select": "selected_users",
}
_INITIAL = {
    "datepicker": "initial_date",
    "timepicker": "initial_time",
    "datetimepicker": "initial_date_time",
    "users_select": "initial_user",
    "channels_select": "initial_channel",
    "conversations_select": "initial_conversation",
    "multi_users_select": "initial_users",
}
_MANY = ("checkboxes", "multi_static_select", "multi_users_select")
REQUIRED = "Please complete this required field."


def _options(element: dict[str, Any]) -> list[dict[str, Any]]:
    groups = element.get("option_groups", ())
    return [*element.get("options", ()), *(option for group in groups for option in group["options"])]


def initial_value(element: dict[str, Any]) -> Any:
    """What a field holds before anybody touches it: a text, an option's value, a list of them, or None."""
    kind = element["type"]
    if kind in ("checkboxes", "multi_static_select"):
        return [option["value"] for option in element.get("initial_options", ())]
    if kind in ("radio_buttons", "static_select"):
        chosen = element.get("initial_option")
        return None if chosen is None else chosen["value"]
    return element.get(_INITIAL.get(kind, "initial_value"))


def typed_value(element: dict[str, Any], given: Any) -> dict[str, Any]:
    """The state of one element for a text, an option's value, or a list of values. Raises ValueError."""
    kind = element["type"]
    wanted = given if isinstance(given, list) else [] if given in (None, "") else [given]
    if kind in ("checkboxes", "multi_static_select", "radio_buttons", "static_select", "overflow"):
        by_value = {option["value"]: option for option in _options(element)}
        if any(value not in by_value for value in wanted):
            raise ValueError(f"{given!r} is none of the options")
        chosen = [by_value[value] for value in wanted]
        if kind in _MANY:
            return {"type": kind, "selected_options": chosen}
        return {"type": kind, "selected_option": chosen[0] if chosen else None}
    if kind in _DATES:
        value: Any = wanted[0] if wanted else None
        return {"type": kind, _DATES[kind]: int(value) if kind == "datetimepicker" and value else value}
    if kind in _PICKS:
        return {"type": kind, _PICKS[kind]: wanted if kind in _MANY else wanted[0] if wanted else None}
    return {"type": kind, "value": str(wanted[0]) if wanted else None}


def _complaint(element: dict[str, Any], value: Any) -> str | None:
    """What Slack's own client says before it lets a value go."""
    if element["type"] == "plain_text_input" and isinstance(value, str):
        if len(value) < element.get("min_length", 0):
            return f"Enter at least {element['min_length']} characters."
        if len(value) > element.get("max_length", 3000):
            return f"Enter at most {element.get('max_length', 3000)} characters."
    if element["type"] == "number_input" and value not in (None, ""):
        try:
            float(value)
        except (TypeError, ValueError):
            return "Enter a number."
    return None


def state_values(view: dict[str, Any], entered: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """(`state.values`, complaint by block id) for what stands in the fields; one that is not named is empty."""
    values: dict[str, Any] = {}
    complaints: dict[str, str] = {}
    for block in view["blocks"]:
        if block["type"] != "input":
            continue
        block_id, element = block["block_id"], block["element"]
        value = entered.get(block_id, {}).get(element["action_id"])
        try:
            values[block_id] = {element["action_id"]: typed_value(element, value)}
        except ValueError as error:
            complaints[block_id] = str(error)
            continue
        if value in (None, "", []):
            if not block.get("optional", False):
                complaints[block_id] = REQUIRED
        elif (complaint := _complaint(element, value)) is not None:
            complaints[block_id] = complaint
    return values, complaints


def initial_values(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What stands in the fields of a view when it opens, by block id and action id."""
    inputs = [(b["block_id"], b["element"]) for b in view["blocks"] if b["type"] == "input"]
    return {block_id: {element["action_id"]: initial_value(element)} for block_id, element in inputs}
