"""The block, element and view types that are accepted, with their keys and size limits.

It lists what this project uses or may be asked for; a type or key that is not listed is refused rather than
waved through. Limits are those of https://docs.slack.dev/reference/block-kit, reasons are worded as Slack
words them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_MARKDOWN_CHARS = 12_000
"""Of all markdown blocks of one message together."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason for Slack to refuse. `path` is a JSON pointer into {"text", "blocks"} or into the view."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.reason} [json-pointer:{self.path}]"


Check = Callable[[Any, str], Iterable[Problem]]


def _string(maximum: int, minimum: int = 1, pattern: str | None = None) -> Check:
    def check(value: Any, path: str) -> Iterable[Problem]:
        if not isinstance(value, str):
            yield Problem(path, "must be a string")
        elif len(value) < minimum:
            yield Problem(path, f"must be more than {minimum - 1} characters")
        elif len(value) > maximum:
            yield Problem(path, f"must be less than {maximum + 1} characters")
        elif pattern is not None and not re.fullmatch(pattern, value):
            yield Problem(path, f"input must match regex pattern: {pattern}")

    return check


def _boolean(value: Any, path: str) -> Iterable[Problem]:
    if not isinstance(value, bool):
        yield Problem(path, "must be a boolean")


def _integer(value: Any, path: str) -> Iterable[Problem]:
    if not isinstance(value, int) or isinstance(value, bool):
        yield Problem(path, "must be an integer")


def _anything(_value: Any, _path: str) -> Iterable[Problem]:
    return ()


def _one_of(*allowed: str) -> Check:
    def check(value: Any, path: str) -> Iterable[Problem]:
        if value not in allowed:
            yield Problem(path, f"must be one of: {', '.join(allowed)}")

    return check


def array(item: Check, maximum: int, minimum: int = 1) -> Check:
    def check(value: Any, path: str) -> Iterable[Problem]:
        if not isinstance(value, list):
            yield Problem(path, "must be an array")
            return
        if len(value) < minimum:
            yield Problem(path, f"no less than {minimum} items required")
        if len(value) > maximum:
            yield Problem(path, f"no more than {maximum} items allowed")
        for index, element in enumerate(value):
            yield from item(element, f"{path}/{index}")

    return check


def _object(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, **rules: Any) -> Check:
    """An object with exactly these keys; `exactly_one` and `at_least_one` name groups of optional keys."""
    fields = {**required, **(optional or {})}

    def check(value: Any, path: str) -> Iterable[Problem]:
        if not isinstance(value, dict):
            yield Problem(path, "must be an object")
            return
        for key in required:
            if value.get(key) is None:
                yield Problem(path, f"missing required field: {key}")
        for key, content in value.items():
            if key not in fields and key != "type":
                yield Problem(path, f"invalid additional property: {key}")
            elif key in fields and content is not None:
                yield from fields[key](content, f"{path}/{key}")
        for name, wanted in (("exactly_one", (1,)), ("at_least_one", range(1, 9)), ("at_most_one", (0, 1))):
            group: tuple[str, ...] = rules.get(name, ())
            if group and sum(value.get(key) is not None for key in group) not in wanted:
                yield Problem(path, f"{name.replace('_', ' ')} of {', '.join(group)} must be given")

    return check


def typed(types: Mapping[str, Check]) -> Check:
    def check(value: Any, path: str) -> Iterable[Problem]:
        if not isinstance(value, dict):
            yield Problem(path, "must be an object")
        elif "type" not in value:
            yield Problem(path, "missing required field: type")
        elif not isinstance(value["type"], str) or value["type"] not in types:
            yield Problem(path + "/type", f"unsupported type: {value['type']}")
        else:
            yield from types[value["type"]](value, path)

    return check


def _plain(maximum: int) -> Check:
    return typed({"plain_text": _object({"text": _string(maximum)}, {"emoji": _boolean})})


def _text(maximum: int) -> Check:
    content = {"text": _string(maximum)}
    return typed(
        {
            "plain_text": _object(content, {"emoji": _boolean}),
            "mrkdwn": _object(content, {"verbatim": _boolean}),
        }
    )


_ID = _string(255)
_URL = _string(3000)
_CONFIRM = _object(
    {"title": _plain(100), "text": _text(300), "confirm": _plain(30), "deny": _plain(30)},
    {"style": _one_of("primary", "danger")},
)
_SLACK_FILE = _object({}, {"id": _string(255, pattern="^F[A-Z0-9]{8,}$"), "url": _URL}, exactly_one=("id", "url"))
_PICTURE = {"image_url": _URL, "slack_file": _SLACK_FILE}
_OPTION = _object({"text": _text(75), "value": _string(150)}, {"description": _text(75)})
_PLAIN_OPTION = _object({"text": _plain(75), "value": _string(150)}, {"description": _plain(75), "url": _URL})
_OPTION_GROUP = _object({"label": _plain(75), "options": array(_PLAIN_OPTION, 100)})
_INTERACTIVE: dict[str, Check] = {"action_id": _ID, "confirm": _CONFIRM, "focus_on_load": _boolean}
_MENU: dict[str, Check] = {**_INTERACTIVE, "placeholder": _plain(150)}
_STATIC: dict[str, Check] = {
    **_MENU,
    "options": array(_PLAIN_OPTION, 100),
    "option_groups": array(_OPTION_GROUP, 100),
}
_MULTI: dict[str, Check] = {"max_selected_items": _integer}
_TYPING: dict[str, Check] = {**_MENU, "dispatch_action_config": _anything}
_FEEDBACK = _object({"text": _plain(75), "value": _string(2000)}, {"accessibility_label": _string(75)})

_ELEMENTS: dict[str, Check] = {
    "button": _object(
        {"text": _plain(75)},
        {
            "action_id": _ID,
            "confirm": _CONFIRM,
            "value": _string(2000, minimum=0),
            "url": _URL,
            "style": _one_of("primary", "danger"),
            "accessibility_label": _string(75),
        },
    ),
    "overflow": _object({"options": array(_PLAIN_OPTION, 5)}, {"action_id": _ID, "confirm": _CONFIRM}),
    "static_select": _object(
        {}, {**_STATIC, "initial_option": _PLAIN_OPTION}, exactly_one=("options", "option_groups")
    ),
    "multi_static_select": _object(
        {},
        {**_STATIC, **_MULTI, "initial_options": array(_PLAIN_OPTION, 100)},
        exactly_one=("options", "option_groups"),
    ),
    "users_select": _object({}, {**_MENU, "initial_user": _ID}),
    "multi_users_select": _object({}, {**_MENU, **_MULTI, "initial_users": array(_ID, 100)}),
    "channels_select": _object({}, {**_MENU, "initial_channel": _ID, "response_url_enabled": _boolean}),
    "conversations_select": _object(
        {}, {**_MENU, "initial_conversation": _ID, "response_url_enabled": _boolean, "filter": _anything}
    ),
    "radio_buttons": _object({"options": array(_OPTION, 10)}, {**_INTERACTIVE, "initial_option": _OPTION}),
    "checkboxes": _object({"options": array(_OPTION, 10)}, {**_INTERACTIVE, "initial_options": array(_OPTION, 10)}),
    "datepicker": _object(
        {}, {**_MENU, "initial_date": _string(10, pattern=r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")}
    ),
    "timepicker": _object(
        {}, {**_MENU, "initial_time": _string(5, pattern=r"([01]\d|2[0-3]):[0-5]\d"), "timezone": _ID}
    ),
    "datetimepicker": _object({}, {**_INTERACTIVE, "initial_date_time": _integer}),
    "image": _object({"alt_text": _string(2000)}, _PICTURE, exactly_one=("image_url", "slack_file")),
    "plain_text_input": _object(
        {},
        {
            **_TYPING,
            "initial_value": _string(3000, minimum=0),
            "multiline": _boolean,
            "min_length": _integer,
            "max_length": _integer,
        },
    ),
    "number_input": _object(
        {"is_decimal_allowed": _boolean},
        {**_TYPING, "initial_value": _string(255), "min_value": _string(255), "max_value": _string(255)},
    ),
    "email_text_input": _object({}, {**_TYPING, "initial_value": _string(3000, minimum=0)}),
    "url_text_input": _object({}, {**_TYPING, "initial_value": _string(3000, minimum=0)}),
    "feedback_buttons": _object({"positive_button": _FEEDBACK, "negative_button": _FEEDBACK}, {"action_id": _ID}),
    "icon_button": _object(
        {"icon": _one_of("trash"), "text": _plain(75)},
        {
            "action_id": _ID,
            "value": _string(2000),
            "confirm": _CONFIRM,
            "accessibility_label": _string(75),
            "visible_to_user_ids": array(_ID, 10),
        },
    ),
}


def _elements(*names: str) -> Check:
    return typed({name: _ELEMENTS[name] for name in names})


_MENUS = ("static_select", "users_select", "channels_select", "conversations_select")
_MULTI_MENUS = ("multi_static_select", "multi_users_select")
_PICKERS = ("datepicker", "timepicker", "radio_buttons", "checkboxes")
_INPUTS = ("plain_text_input", "number_input", "email_text_input", "url_text_input")
_TEXT_OR_IMAGE = {
    "plain_text": _text(3000),
    "mrkdwn": _text(3000),
    "image": _ELEMENTS["image"],
}
_RICH_LEAF = typed(
    dict.fromkeys(("text", "link", "emoji", "user", "usergroup", "channel", "broadcast", "date", "color"), _anything)
)
_RICH_RUN = _object({"elements": array(_RICH_LEAF, 1000, minimum=0)}, {"border": _integer, "language": _string(80)})
_RICH_LIST = _object(
    {
        "elements": array(typed({"rich_text_section": _RICH_RUN}), 1000),
        "style": _one_of("bullet", "ordered"),
    },
    {"indent": _integer, "offset": _integer, "border": _integer},
)
_RICH_ELEMENTS = {
    "rich_text_section": _RICH_RUN,
    "rich_text_preformatted": _RICH_RUN,
    "rich_text_quote": _RICH_RUN,
    "rich_text_list": _RICH_LIST,
}


def _block(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, **rules: Any) -> Check:
    return _object(required, {**(optional or {}), "block_id": _ID}, **rules)


_RICH_TEXT = _block({"elements": array(typed(_RICH_ELEMENTS), 1000)})
_CELL = typed({"raw_text": _object({"text": _string(10_000)}), "rich_text": _RICH_TEXT})
_TASK = _block(
    {
        "task_id": _ID,
        "title": _string(3000),
        "status": _one_of("pending", "in_progress", "complete", "error"),
    },
    {
        "details": typed({"rich_text": _RICH_TEXT}),
        "output": typed({"rich_text": _RICH_TEXT}),
        "sources": array(typed({"url": _object({"url": _URL, "text": _string(3000)})}), 100, minimum=0),
    },
)

BLOCKS: dict[str, Check] = {
    "divider": _block({}),
    "header": _block({"text": _plain(150)}),
    "section": _block(
        {},
        {
            "text": _text(3000),
            "fields": array(_text(2000), 10),
            "expand": _boolean,
            "accessory": _elements("button", "overflow", "image", *_MENUS, *_MULTI_MENUS, *_PICKERS),
        },
        at_least_one=("text", "fields"),
    ),
    "context": _block({"elements": array(typed(_TEXT_OR_IMAGE), 10)}),
    "image": _block(
        {"alt_text": _string(2000)},
        {**_PICTURE, "title": _plain(2000)},
        exactly_one=("image_url", "slack_file"),
    ),
    "actions": _block({"elements": array(_elements("button", "overflow", "datetimepicker", *_MENUS, *_PICKERS), 25)}),
    "input": _block(
        {
            "label": _plain(2000),
            "element": _elements("datetimepicker", *_MENUS, *_MULTI_MENUS, *_PICKERS, *_INPUTS),
        },
        {"hint": _plain(2000), "optional": _boolean, "dispatch_action": _boolean},
    ),
    "rich_text": _RICH_TEXT,
}
MESSAGE_ONLY_BLOCKS: dict[str, Check] = {
    "markdown": _block({"text": _string(MAX_MARKDOWN_CHARS)}),
    "table": _block({"rows": array(array(_CELL, 20), 100)}, {"column_settings": _anything}),
    "context_actions": _block({"elements": array(_elements("feedback_buttons", "icon_button"), 5)}),
    "task_card": _TASK,
    "plan": _block({"title": _string(3000)}, {"tasks": array(typed({"task_card": _TASK}), 50, minimum=0)}),
}
_VIEW_OPTIONAL: dict[str, Check] = {
    "private_metadata": _string(3000, minimum=0),
    "callback_id": _string(255, minimum=0),
    "external_id": _string(255, minimum=0),
}
VIEW = typed(
    {
        "modal": _object(
            {"title": _plain(24), "blocks": _anything},
            {
                **_VIEW_OPTIONAL,
                "submit": _plain(24),
                "close": _plain(24),
                "clear_on_close": _boolean,
                "notify_on_close": _boolean,
                "submit_disabled": _boolean,
            },
        ),
        "home": _object({"blocks": _anything}, _VIEW_OPTIONAL),
    }
)
