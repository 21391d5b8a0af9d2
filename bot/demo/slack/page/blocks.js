// Block Kit to DOM nodes: https://api.slack.com/reference/block-kit/blocks

import { div, h, icon, patch, safeUrl, span } from "./dom.js";
import { renderElement } from "./elements.js";
import { lightbox } from "./layer.js";
import { textObject } from "./mrkdwn.js";
import { markdown, richText } from "./richtext.js";
import { dataTable, plan, taskCard } from "./tasks.js";

function imageUrl(block) {
  return safeUrl(block.image_url ?? block.slack_file?.url ?? block.url ?? block.slack_file?.url_private);
}

function picture(block, className) {
  return h("img", { class: className, src: imageUrl(block), alt: block.alt_text ?? "", loading: "lazy" });
}

/** An image with its title, folded away by the little triangle and enlarged by a click. */
export function figure(src, alt, title) {
  const said = alt || title || "image";
  const broken = () => enlarge.replaceChildren(span("figure__broken", `Image not available: ${said}`));
  const enlarge = h("button", {
    type: "button", class: "figure__open", "aria-label": `Enlarge: ${said}`, "data-testid": "enlarge",
    on: { click: () => lightbox(src, alt, title) },
  }, h("img", { src, alt, on: { error: broken } }));
  if (!title) return div("figure", enlarge);
  const fold = h("button", { type: "button", class: "figure__title", "aria-expanded": "true", on: { click: () => {
    const open = fold.getAttribute("aria-expanded") !== "true";
    fold.setAttribute("aria-expanded", String(open));
    enlarge.hidden = !open;
  } } }, title, icon("chevron"));
  return div("figure", fold, enlarge);
}

function accessory(block, ctx) {
  const element = block.accessory;
  if (!element) return null;
  return div(
    "section__accessory",
    element.type === "image" ? picture(element, "section__thumb") : renderElement(element, block, ctx),
  );
}

function input(block, ctx) {
  const label = h("label", { class: "input__label" }, textObject(block.label, ctx),
    block.optional ? span("input__optional", " (optional)") : null);
  const control = renderElement(block.element, block, ctx);
  if (control.matches("input, textarea")) {
    control.id = `field-${block.block_id}`;
    label.htmlFor = control.id;
  } else {
    control.setAttribute("aria-label", block.label?.text ?? "");
  }
  return div("block input", label, control,
    block.hint ? div("input__hint", textObject(block.hint, ctx)) : null,
    h("div", { class: "input__error", role: "alert", "data-testid": "input-error", "data-error-for": block.block_id }));
}

/** One block as a node. */
function renderBlock(block, ctx) {
  switch (block.type) {
    case "header":
      return h("div", { class: "block header", role: "heading", "aria-level": "3" }, textObject(block.text, ctx));
    case "section":
      return h("div", { class: "block section" },
        h("div", { class: "section__main text" },
          block.text ? h("div", null, textObject(block.text, ctx)) : null,
          block.fields ? div("section__fields", block.fields.map((each) => div("section__field", textObject(each, ctx)))) : null),
        accessory(block, ctx));
    case "context":
      return div("block context", (block.elements ?? []).map((each) =>
        each.type === "image" ? picture(each, "context__image") : span("context__text text", textObject(each, ctx))));
    case "actions":
    case "context_actions":
      return div("block actions", (block.elements ?? []).map((each) => renderElement(each, block, ctx)));
    case "divider":
      return h("hr", { class: "block divider" });
    case "image":
      return div("block", figure(imageUrl(block), block.alt_text ?? "", block.title?.text));
    case "input":
      return input(block, ctx);
    case "rich_text":
      return div("block text", richText(block, ctx));
    case "markdown":
      return div("block text", markdown(block.text ?? "", ctx));
    case "table":
      return div("block text", dataTable(block, ctx));
    case "task_card":
      return div("block", taskCard(block, ctx));
    case "plan":
      return div("block", plan(block, ctx));
    default:
      return div("block unsupported", `This page cannot show the block “${block.type}”.`);
  }
}

const live = new WeakMap();

/**
 * Paint blocks into container, keeping the nodes of blocks that did not change (images do not flicker, a click is not lost).
 * A bot gives each update new block ids; outside input blocks that alone is no change, and the kept node takes the new id.
 */
export function paintBlocks(container, blocks, ctx) {
  patch(container, blocks, {
    key: (block, index) => `${index}:${block.type}`,
    signature: ({ block_id: id, ...said }) => JSON.stringify(said.type === "input" ? [id, said] : said),
    build: (block) => {
      const own = { ...block };
      const node = renderBlock(own, ctx);
      live.set(node, own);
      return node;
    },
  });
  for (const [index, block] of blocks.entries()) {
    const node = container.children[index];
    if (!block.block_id) continue;
    live.get(node).block_id = block.block_id;
    for (const each of [
      node,
      ...node.querySelectorAll("[data-action-id]"),
    ]) each.setAttribute("data-block-id", block.block_id);
  }
}

function fileCard(file, url) {
  const size = file.size ? ` · ${Math.max(1, Math.round(file.size / 1024))} kB` : "";
  return h("a", { class: "file", href: url, target: "_blank", rel: "noopener noreferrer", "data-testid": "file" },
    span("file__icon", icon("file")),
    span("file__text", h("strong", null, file.title || file.name || "File"), h("span", null, `${file.pretty_type || "File"}${size}`)));
}

const PICTURE_NAME = /\.(png|jpe?g|gif|webp|svg)$/i; // the type is empty while Slack still looks at an upload

/** Files shared with a message: pictures shown as such, the rest as cards. */
export function renderFile(file) {
  const url = safeUrl(file.url ?? `/files/${encodeURIComponent(file.id)}/${encodeURIComponent(file.name ?? "file")}`);
  const title = file.title || file.name || "";
  const isPicture = (file.mimetype ?? "").startsWith("image/") || PICTURE_NAME.test(file.name ?? "");
  return isPicture ? figure(url, file.alt_txt || title, title) : fileCard(file, url);
}

/** What a message or attachment says: its blocks, or its text when there are none. */
export function contentOf(message) {
  if (message.blocks?.length) return message.blocks;
  return message.text ? [{ type: "section", text: { type: "mrkdwn", text: message.text } }] : [];
}

