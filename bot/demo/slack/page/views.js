// Views: the App Home tab and modals. What is typed into a modal is kept by view id, so a repaint loses nothing.

import { div, h, icon, span } from "./dom.js";
import { paintBlocks } from "./blocks.js";
import { post } from "./api.js";
import { initialValue } from "./elements.js";
import { textObject } from "./mrkdwn.js";

const forms = new Map();

/** The values typed into one view so far. */
function formOf(viewId) {
  if (!forms.has(viewId)) forms.set(viewId, new Map());
  const values = forms.get(viewId);
  const key = (blockId, actionId) => `${blockId}\n${actionId}`;
  return {
    get: (blockId, actionId) => values.get(key(blockId, actionId)),
    set: (blockId, actionId, value) => values.set(key(blockId, actionId), value),
  };
}

function viewContext(view, ctx, warn, form) {
  return { ...ctx, warn, form, act: (payload) => post("/local/action", { as: ctx.me, view_id: view.id, ...payload }) };
}

/** Paint the Home tab into container. */
export function paintHome(container, view, ctx) {
  if (!container.querySelector(".home__blocks")) {
    container.replaceChildren(
      h("div", { class: "view__warning", role: "alert", "data-testid": "home-warning" }),
      h("div", { class: "home__blocks", "data-testid": "home" }),
    );
  }
  const [warning, blocks] = container.children;
  if (!view) {
    blocks.replaceChildren(div(
      "empty",
      h("h2", null, "Nothing here yet"),
      h("p", null, "The bot has not published its Home tab for you."),
    ));
    return;
  }
  blocks.querySelector(".empty")?.remove();
  paintBlocks(
    blocks,
    view.blocks ?? [],
    viewContext(view, ctx, (text) => { warning.textContent = text ? `⚠ ${text}` : ""; }),
  );
}

/** The input blocks of a view with their values; empty ones are left out. */
function collect(view) {
  const form = formOf(view.id);
  const values = {};
  for (const block of view.blocks ?? []) {
    const elements = block.element ? [block.element] : block.type === "actions" ? block.elements : [block.accessory].filter(Boolean);
    for (const element of elements) {
      const value = form.get(block.block_id, element.action_id) ?? initialValue(element);
      if (value === undefined || value === null || value === "" || value.length === 0) continue;
      (values[block.block_id] ??= {})[element.action_id] = value;
    }
  }
  return values;
}

const REQUIRED = "Please complete this required field.";

/** What Slack's own client complains about, by block id, before it sends. */
function missing(view, values) {
  const errors = {};
  for (const block of view.blocks ?? []) {
    if (block.type !== "input" || block.optional) continue;
    const value = values[block.block_id]?.[block.element.action_id];
    if (value === undefined || (typeof value === "string" && value.trim() === "")) errors[block.block_id] = REQUIRED;
    else if (value.length < block.element.min_length) errors[block.block_id] = `Enter at least ${block.element.min_length} characters.`;
  }
  return errors;
}

/** The stack of modals: only the top one shows. Returns paint(views, ctx). */
export function createModals() {
  let shown = null; // {id, dialog, submit…}
  const closed = new Set();

  function showErrors(dialog, errors) {
    for (const slot of dialog.querySelectorAll(".input__error")) {
      const text = errors[slot.getAttribute("data-error-for")] ?? "";
      slot.textContent = text;
      const control = slot.parentElement.querySelector("[data-action-id]");
      control?.toggleAttribute("aria-invalid", Boolean(text));
      if (text) control?.setAttribute("aria-invalid", "true");
    }
    dialog.querySelector("[aria-invalid=true]")?.focus();
  }

  function hide() {
    const dialog = shown?.dialog;
    shown = null;
    dialog?.close();
    dialog?.remove();
  }

  async function cancel() {
    const { view, ctx } = shown;
    closed.add(view.id);
    hide();
    await post("/local/view/close", { as: ctx.me, view_id: view.id });
  }

  async function submit() {
    const { view, ctx, dialog, button, warning } = shown;
    if (button.getAttribute("aria-busy")) return;
    const values = collect(view);
    const gaps = missing(view, values);
    showErrors(dialog, gaps);
    if (Object.keys(gaps).length) return;
    warning.textContent = "";
    button.setAttribute("aria-busy", "true");
    const answer = await post("/local/view/submit", { as: ctx.me, view_id: view.id, values });
    button.removeAttribute("aria-busy");
    if (answer.errors && Object.keys(answer.errors).length) showErrors(dialog, answer.errors);
    else if (!answer.ok) warning.textContent = `⚠ We had some trouble connecting. ${answer.error ?? "Try again?"}`;
  }

  function open(view, ctx) {
    const title = h("h2", { id: "modal-title" });
    const body = div("dialog__body modal__blocks");
    const warning = h("div", { class: "view__warning", role: "alert", "data-testid": "modal-warning" });
    const button = h(
      "button",
      { type: "button", class: "btn btn--primary", "data-testid": "modal-submit", on: { click: submit } },
    );
    const close = h("button", { type: "button", class: "btn", "data-testid": "modal-cancel", on: { click: cancel } });
    const dialog = h("dialog", { class: "dialog modal", "aria-labelledby": "modal-title", "data-testid": "modal", on: {
      cancel: (event) => { event.preventDefault(); cancel(); },
    } },
    div(
      "dialog__head",
      title,
      h("button", { type: "button", class: "iconbutton", "aria-label": "Close", on: { click: cancel } }, icon("close")),
    ),
    warning, body, div("dialog__foot", close, button));
    document.body.append(dialog);
    shown = { view, ctx, dialog, button, warning, title, body, close };
  }

  return function paint(views, ctx) {
    const view = views.filter((each) => !closed.has(each.id)).at(-1);
    if (shown && shown.view.id !== view?.id) hide();
    if (!view) return;
    const fresh = !shown;
    if (fresh) open(view, ctx);
    Object.assign(shown, { view, ctx });
    const { dialog, title, body, button, close, warning } = shown;
    dialog.setAttribute("data-view-id", view.id);
    dialog.setAttribute("data-callback-id", view.callback_id ?? "");
    title.replaceChildren(...textObject(view.title, ctx));
    close.replaceChildren(...textObject(view.close ?? { type: "plain_text", text: "Cancel" }, ctx));
    button.hidden = !view.submit;
    button.replaceChildren(
      span("btn__label", textObject(view.submit, ctx)),
      h("span", { class: "btn__busy", "aria-hidden": "true" }),
    );
    paintBlocks(
      body,
      view.blocks ?? [],
      viewContext(view, ctx, (text) => { warning.textContent = text ? `⚠ ${text}` : ""; }, formOf(view.id)),
    );
    if (fresh) {
      dialog.showModal();
      (body.querySelector("[autofocus]") ?? body.querySelector("input, textarea, button, .select") ?? button).focus();
    }
  };
}
