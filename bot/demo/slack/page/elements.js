// Block elements a person can use: buttons, menus, inputs. Each works in messages, in the Home tab and in modals.
//
// ctx: {me, user(id), channel(id), people, channels, act(payload) → {ok, error}, warn(text|null), form?}. form holds what
// is typed into a modal: get(blockId, actionId), set(blockId, actionId, value). Elsewhere there is none.

import { h, icon, safeUrl, span } from "./dom.js";
import { confirmDialog, showMenu } from "./layer.js";
import { textObject } from "./mrkdwn.js";
import { permalink } from "./route.js";

/**
 * Ask for confirmation when the element wants it, send the action, show it as busy, and say so when it fails.
 * value: a button's value, an option's value, a list of them, or typed text.
 */
async function run(element, block, value, node, ctx) {
  if (element.confirm && !(await confirmDialog(element.confirm, ctx))) return;
  node.setAttribute("aria-busy", "true");
  ctx.warn(null);
  const answer = await ctx.act({ block_id: block.block_id, action_id: element.action_id, value });
  node.removeAttribute("aria-busy");
  if (!answer.ok) ctx.warn(answer.error ?? "That did not work.");
}

/** Buttons and overflow options may carry a link besides their action. */
function follow(url) {
  const href = safeUrl(url);
  const here = href && permalink(href);
  if (here) location.hash = here;
  else if (href) window.open(href, "_blank", "noopener");
}

function hooks(element, block) {
  return { "data-action-id": element.action_id, "data-block-id": block.block_id };
}

const BUTTON_STYLES = { primary: "btn btn--primary", danger: "btn btn--danger" };

function button(element, block, ctx) {
  const node = h("button", {
    type: "button", class: BUTTON_STYLES[element.style] ?? "btn", "aria-label": element.accessibility_label,
    ...hooks(element, block),
    on: {
      click: () => {
        if (node.getAttribute("aria-busy")) return;
        follow(element.url);
        run(element, block, element.value, node, ctx);
      },
    },
  }, span("btn__label", textObject(element.text, ctx)), h("span", { class: "btn__busy", "aria-hidden": "true" }));
  return node;
}

function overflow(element, block, ctx) {
  const node = h("button", {
    type: "button", class: "btn btn--overflow", "aria-label": "More actions", "aria-haspopup": "listbox", "aria-expanded": "false",
    ...hooks(element, block),
    on: { click: () => showMenu(
      node,
      element.options ?? [],
      (option) => { follow(option.url); run(element, block, option.value, node, ctx); },
      { ctx, label: "More actions" },
    ) },
  }, icon("dots"));
  return node;
}

function optionsOf(element) {
  return element.options ?? (element.option_groups ?? []).flatMap((group) => group.options);
}

/** The value an element starts with, as a submit sends it: text, an option's value, or a list of them. */
export function initialValue(element) {
  if (element.initial_options) return element.initial_options.map((option) => option.value);
  const plain = [
    "initial_value",
    "initial_user",
    "initial_users",
    "initial_channel",
    "initial_conversation",
    "initial_date",
    "initial_time",
    "initial_date_time",
  ];
  return element.initial_option?.value ?? plain.map((key) => element[key]).find((value) => value !== undefined) ?? null;
}

/** What the control shows: what the person chose, else what the bot set. */
function current(element, block, ctx) {
  return ctx.form?.get(block.block_id, element.action_id) ?? initialValue(element);
}

/** Keep a value in the form, and tell the bot at once outside input blocks (or where the block asks for it). */
function choose(element, block, value, node, ctx) {
  ctx.form?.set(block.block_id, element.action_id, value);
  if (block.type !== "input" || block.dispatch_action) run(element, block, value, node, ctx);
}

function select(element, block, ctx, options) {
  let chosen = current(element, block, ctx);
  const shown = span("select__text");
  const paint = () => {
    const option = options.find((each) => each.value === chosen);
    shown.replaceChildren(...textObject(
      option?.text ?? element.placeholder ?? { type: "plain_text", text: "Select an item" },
      ctx,
    ));
    shown.classList.toggle("select__text--empty", !option);
  };
  const node = h("button", {
    type: "button", class: "select", role: "combobox", "aria-haspopup": "listbox", "aria-expanded": "false",
    "aria-label": element.placeholder?.text ?? "Select", ...hooks(element, block),
    on: {
      click: () => showMenu(node, options, (option) => {
        chosen = option.value;
        paint();
        choose(element, block, chosen, node, ctx);
      }, { ctx, selected: chosen, search: true, label: element.placeholder?.text ?? "Options" }),
    },
  }, shown, icon("chevron"));
  paint();
  return node;
}

/** Radio buttons, and checkboxes (also standing in for multi-selects): one native control an option. */
function group(element, block, ctx, options) {
  const many = element.type !== "radio_buttons";
  let chosen = current(element, block, ctx) ?? (many ? [] : null);
  const name = `${block.block_id}-${element.action_id}`;
  const node = h("div", { class: "choices", role: many ? "group" : "radiogroup", ...hooks(element, block) });
  for (const option of options) {
    const control = h("input", {
      type: many ? "checkbox" : "radio", name, value: option.value, "data-value": option.value,
      on: {
        change: () => {
          if (!many) chosen = option.value;
          else chosen = control.checked ? [...chosen, option.value] : chosen.filter((value) => value !== option.value);
          choose(element, block, chosen, node, ctx);
        },
      },
    });
    control.checked = many ? chosen.includes(option.value) : chosen === option.value;
    node.append(h("label", { class: "choice" }, control, span("choice__text text", textObject(option.text, ctx),
      option.description ? span("choice__description", textObject(option.description, ctx)) : null)));
  }
  return node;
}

const FIELD_TYPES = {
  number_input: "number",
  datepicker: "date",
  timepicker: "time",
  datetimepicker: "datetime-local",
  email_text_input: "email",
  url_text_input: "url",
};

function field(element, block, ctx) {
  const epoch = element.type === "datetimepicker"; // whole seconds since 1970, shown in the reader's own time
  const read = () => (epoch && node.value ? Math.floor(new Date(node.value).getTime() / 1000) : node.value);
  const store = () => ctx.form?.set(block.block_id, element.action_id, read());
  const node = h(element.multiline ? "textarea" : "input", {
    class: "field", type: element.multiline ? null : (FIELD_TYPES[element.type] ?? "text"), rows: element.multiline ? 4 : null,
    placeholder: element.placeholder?.text, maxlength: element.max_length, autofocus: element.focus_on_load,
    ...hooks(element, block),
    on: {
      input: store,
      change: () => {
        if (["datepicker", "timepicker", "datetimepicker"].includes(element.type)) choose(element, block, read(), node, ctx);
      },
      keydown: (event) => {
        if (event.key !== "Enter" || element.multiline || event.isComposing) return;
        event.preventDefault();
        if (block.dispatch_action) run(element, block, node.value, node, ctx);
        else node.closest("dialog")?.querySelector("[data-testid=modal-submit]")?.click();
      },
    },
  });
  const shown = current(element, block, ctx) ?? "";
  const local = (seconds) => new Date((seconds - new Date().getTimezoneOffset() * 60) * 1000).toISOString().slice(0, 16);
  node.value = epoch && shown !== "" ? local(shown) : shown;
  return node;
}

function feedback(element, block, ctx) {
  const node = h("span", { class: "feedback", ...hooks(element, block) });
  for (const [choice, sign] of [[element.positive_button, "👍"], [element.negative_button, "👎"]]) {
    if (!choice) continue;
    node.append(h("button", {
      type: "button", class: "btn btn--small", "data-value": choice.value, "aria-label": choice.accessibility_label,
      on: { click: () => run(element, block, choice.value, node, ctx) },
    }, textObject({ type: "plain_text", text: `${sign} ${choice.text?.text ?? ""}` }, ctx)));
  }
  return node;
}

const option = (value, text) => ({ value, text: { type: "plain_text", text } });
const people = (ctx) => ctx.people.map((user) => option(user.id, user.real_name));
const channels = (ctx) => ctx.channels.map((channel) => option(channel.id, `#${channel.name}`));

/** One element of an actions, section, context or input block as a node. */
export function renderElement(element, block, ctx) {
  switch (element.type) {
    case "button":
      return button(element, block, ctx);
    case "overflow":
      return overflow(element, block, ctx);
    case "static_select":
      return select(element, block, ctx, optionsOf(element));
    case "users_select":
      return select(element, block, ctx, people(ctx));
    case "channels_select":
    case "conversations_select":
      return select(element, block, ctx, channels(ctx));
    case "radio_buttons":
    case "checkboxes":
    case "multi_static_select":
      return group(element, block, ctx, optionsOf(element));
    case "multi_users_select":
      return group(element, block, ctx, people(ctx));
    case "icon_button":
      return button(element, block, ctx);
    case "feedback_buttons":
      return feedback(element, block, ctx);
    case "plain_text_input":
    case "number_input":
    case "datepicker":
    case "timepicker":
    case "datetimepicker":
    case "email_text_input":
    case "url_text_input":
      return field(element, block, ctx);
    default:
      return span("unsupported", `This page cannot show the element “${element.type}”.`);
  }
}
