// What a streamed answer is made of: plans with their tasks, and tables.

import { div, h, safeUrl } from "./dom.js";
import { withEmoji } from "./emoji.js";
import { richText } from "./richtext.js";

const STATES = {
  pending: ["○", "waiting"],
  in_progress: ["", "in progress"],
  complete: ["✓", "done"],
  error: ["✕", "failed"],
};

/** A task_card: its state, title, details, output and sources. */
export function taskCard(task, ctx) {
  const [sign, said] = STATES[task.status] ?? ["", task.status];
  const sources = (task.sources ?? []).map((source) => {
    const href = safeUrl(source.url);
    return href ? h(
      "a",
      { href, target: "_blank", rel: "noopener noreferrer" },
      source.text ?? source.url,
    ) : h("span", null, source.text);
  });
  return h("div", { class: "task", "data-status": task.status, "data-task-id": task.task_id },
    h("span", { class: "task__state", role: "img", "aria-label": said }, sign),
    div("task__text text", div("task__title", withEmoji(task.title ?? "")),
      task.details ? div("task__more", richText(task.details, ctx)) : null,
      task.output ? div("task__more", richText(task.output, ctx)) : null,
      sources.length ? div("task__sources", sources) : null));
}

/** A plan: a title and its tasks. */
export function plan(block, ctx) {
  const tasks = block.tasks ?? [];
  const done = tasks.filter((task) => task.status === "complete").length;
  return h("div", { class: "plan" },
    div(
      "plan__title",
      h("strong", null, withEmoji(block.title ?? "Plan")),
      tasks.length ? h("span", null, `${done} of ${tasks.length}`) : null,
    ),
    tasks.map((task) => taskCard(task, ctx)));
}

/** A table block; its first row is the heading, as Slack draws it. */
export function dataTable(block, ctx) {
  const cell = (tag) => (each) => h(
    tag,
    null,
    each.type === "rich_text" ? richText(each, ctx) : withEmoji(each.text ?? ""),
  );
  const [head = [], ...body] = block.rows ?? [];
  return div(
    "table",
    h(
      "table",
      null,
      h("thead", null, h("tr", null, head.map(cell("th")))),
      h("tbody", null, body.map((row) => h("tr", null, row.map(cell("td"))))),
    ),
  );
}
