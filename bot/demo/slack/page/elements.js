// Block elements a person can use: buttons, menus, inputs. Each works in messages, in the Home tab and in modals.
//
// ctx: {me, user(id), channel(id), people, act(payload) → {ok, error}, warn(text|null), form?}; form holds what is typed
// into a view: get(blockId, actionId), set(blockId, actionId, value). Messages have no form.

import { h, icon, safeUrl } from "./dom.js";
import { confirmDialog, showMenu } from "./layer.js";
import { textObject } from "./mrkdwn.js";

/** Ask for confirmation when the element wants it, send the action, show it as busy, and say so when it fails. */
async function run(element, block, extra, node, ctx) {
  if (element.confirm && !(await confirmDialog(element.confirm, ctx))) return false;
  node.setAttribute("aria-busy", "true");
  ctx.warn(null);
  const answer = await ctx.act({ block_id: block.block_id, action_id: element.action_id, type: element.type, ...extra });
  node.removeAttribute("aria-busy");
  if (!answer.ok) ctx.warn(answer.error ?? "That did not work.");
  return answer.ok;
}

function hooks(element, block) {
  return { "data-action-id": element.action_id, "data-block-id": block.block_id };
}

const BUTTON_STYLES = { primary: "btn btn--primary", danger: "btn btn--danger" };

function button(element, block, ctx) {
  const node = h("button", {
    type: "button", class: BUTTON_STYLES[element.style] ?? "btn", "aria-label": element.accessibility_label, ...hooks(element, block),
    on: {
      click: () => {
        if (node.getAttribute("aria-busy")) return;
        const url = safeUrl(element.url);
        if (url) window.open(url, "_blank", "noopener");
        run(element, block, { value: element.value }, node, ctx);
      },
    },
  }, h("span", { class: "btn__label" }, textObject(element.text, ctx)), h("span", { class: "btn__busy", "aria-hidden": "true" }));
  return node;
}

function overflow(element, block, ctx) {
  const node = h("button", {
    type: "button", class: "btn btn--overflow", "aria-label": "More actions", "aria-haspopup": "listbox", "aria-expanded": "false", ...hooks(element, block),
    on: { click: () => showMenu(node, element.options ?? [], (option) => run(element, block, { selected_option: option }, node, ctx), { ctx, label: "More actions" }) },
  }, icon("dots"));
  return node;
}

function optionsOf(element) {
  return element.options ?? (element.option_groups ?? []).flatMap((group) => group.options);
}

/** What was chosen already: from the form if the person touched it, else the element's initial value. */
function current(element, block, ctx, initial) {
  const typed = ctx.form?.get(block.block_id, element.action_id);
  if (typed !== undefined) return typed;
  if (initial !== undefined && initial !== null) ctx.form?.set(block.block_id, element.action_id, initial);
  return initial;
}

/** Keep a value in the form, and tell the bot at once outside input blocks (or where the block asks for it). */
function choose(element, block, value, extra, node, ctx) {
  ctx.form?.set(block.block_id, element.action_id, value);
  if (block.type !== "input" || block.dispatch_action) run(element, block, extra, node, ctx);
}

function select(element, block, ctx, options) {
  let chosen = current(element, block, ctx, element.initial_option?.value ?? element.initial_user ?? null);
  const shown = h("span", { class: "select__text" });
  const paint = () => {
    const option = options.find((each) => each.value === chosen);
    shown.replaceChildren(...textObject(option?.text ?? element.placeholder ?? { type: "plain_text", text: "Select an item" }, ctx));
    shown.classList.toggle("select__text--empty", !option);
  };
  const node = h("button", {
    type: "button", class: "select", role: "combobox", "aria-haspopup": "listbox", "aria-expanded": "false", "aria-label": element.placeholder?.text ?? "Select", ...hooks(element, block),
    on: {
      click: () => showMenu(node, options, (option) => {
        chosen = option.value;
        paint();
        const extra = element.type === "users_select" ? { selected_user: option.value } : { selected_option: option };
        choose(element, block, chosen, extra, node, ctx);
      }, { ctx, selected: chosen, search: true, label: element.placeholder?.text ?? "Options" }),
    },
  }, shown, icon("chevron"));
  paint();
  return node;
}

/** Radio buttons, and checkboxes (also standing in for multi-selects): one native control an option. */
function group(element, block, ctx) {
  const many = element.type !== "radio_buttons";
  const initial = many ? (element.initial_options ?? []).map((option) => option.value) : (element.initial_option?.value ?? null);
  let chosen = current(element, block, ctx, initial) ?? initial;
  const name = `${block.block_id}-${element.action_id}`;
  const node = h("div", { class: "choices", role: many ? "group" : "radiogroup", ...hooks(element, block) });
  for (const option of optionsOf(element)) {
    const control = h("input", {
      type: many ? "checkbox" : "radio", name, value: option.value, "data-value": option.value,
      on: {
        change: () => {
          if (!many) chosen = option.value;
          else chosen = control.checked ? [...chosen, option.value] : chosen.filter((value) => value !== option.value);
          const extra = many ? { selected_options: optionsOf(element).filter((each) => chosen.includes(each.value)) } : { selected_option: option };
          choose(element, block, chosen, extra, node, ctx);
        },
      },
    });
    control.checked = many ? chosen.includes(option.value) : chosen === option.value;
    node.append(h("label", { class: "choice" }, control, h("span", { class: "choice__text text" }, textObject(option.text, ctx),
      option.description ? h("span", { class: "choice__description" }, textObject(option.description, ctx)) : null)));
  }
  return node;
}

const FIELD_TYPES = { number_input: "number", datepicker: "date", timepicker: "time", email_text_input: "email", url_text_input: "url" };

function field(element, block, ctx) {
  const initial = element.initial_value ?? element.initial_date ?? element.initial_time;
  const store = () => ctx.form?.set(block.block_id, element.action_id, node.value);
  const node = h(element.multiline ? "textarea" : "input", {
    class: "field", type: element.multiline ? null : (FIELD_TYPES[element.type] ?? "text"), rows: element.multiline ? 4 : null,
    placeholder: element.placeholder?.text, maxlength: element.max_length, autofocus: element.focus_on_load, ...hooks(element, block),
    on: {
      input: store,
      change: () => {
        if (!["datepicker", "timepicker"].includes(element.type)) return;
        const extra = element.type === "datepicker" ? { selected_date: node.value } : { selected_time: node.value };
        choose(element, block, node.value, extra, node, ctx);
      },
      keydown: (event) => {
        if (event.key !== "Enter" || element.multiline || event.isComposing) return;
        event.preventDefault();
        if (block.dispatch_action) run(element, block, { value: node.value }, node, ctx);
        else node.closest("dialog")?.querySelector("[data-testid=modal-submit]")?.click();
      },
    },
  });
  node.value = current(element, block, ctx, initial) ?? "";
  return node;
}

function feedback(element, block, ctx) {
  const node = h("span", { class: "feedback", ...hooks(element, block) });
  for (const [choice, sign] of [[element.positive_button, "👍"], [element.negative_button, "👎"]]) {
    if (!choice) continue;
    node.append(h("button", {
      type: "button", class: "btn btn--small", "data-value": choice.value, "aria-label": choice.accessibility_label,
      on: { click: () => run(element, block, { value: choice.value }, node, ctx) },
    }, textObject({ type: "plain_text", text: `${sign} ${choice.text?.text ?? ""}` }, ctx)));
  }
  return node;
}

function people(ctx) {
  return ctx.people.map((user) => ({ value: user.id, text: { type: "plain_text", text: user.real_name } }));
}

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
    case "radio_buttons":
    case "checkboxes":
    case "multi_static_select":
      return group(element, block, ctx);
    case "feedback_buttons":
      return feedback(element, block, ctx);
    case "plain_text_input":
    case "number_input":
    case "datepicker":
    case "timepicker":
    case "email_text_input":
    case "url_text_input":
      return field(element, block, ctx);
    default:
      return h("span", { class: "unsupported" }, `This page cannot show the element “${element.type}”.`);
  }
}
