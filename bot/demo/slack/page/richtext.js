// rich_text and markdown blocks to DOM nodes.

import { div, h, span } from "./dom.js";
import { emojiOf, expandCodes, withEmoji } from "./emoji.js";
import { formatDate, link, mention } from "./mrkdwn.js";

function styled(node, style) {
  let result = node;
  if (style?.code) result = h("code", null, result);
  if (style?.strike) result = h("s", null, result);
  if (style?.italic) result = h("em", null, result);
  if (style?.bold) result = h("strong", null, result);
  return result;
}

function lines(text) {
  return text.split("\n").flatMap((line, at) => (at === 0 ? withEmoji(line) : [h("br"), ...withEmoji(line)]));
}

function leaf(element, ctx) {
  switch (element.type) {
    case "text":
      return styled(h("span", null, lines(element.text ?? "")), element.style);
    case "link":
      return styled(link(element.url, element.text ?? element.url), element.style);
    case "emoji":
      return h("span", null, withEmoji(emojiOf(element.name) ?? `:${element.name}:`));
    case "user":
      return mention(element.user_id, ctx);
    case "channel":
      return h(
        "a",
        { class: "mention", href: `#${element.channel_id}` },
        `#${ctx.channel(element.channel_id)?.name ?? element.channel_id}`,
      );
    case "usergroup":
      return span("mention", `@${element.usergroup_id}`);
    case "broadcast":
      return span("mention mention--me", `@${element.range}`);
    case "date":
      return h(
        "time",
        null,
        formatDate(Number(element.timestamp), element.format ?? element.fallback ?? "{date_short_pretty}"),
      );
    case "color":
      return h("code", null, element.value);
    default:
      return span("unsupported", `[${element.type}]`);
  }
}

function part(element, ctx) {
  const paint = (child) => (child.type.startsWith("rich_text_") ? part(child, ctx) : leaf(child, ctx));
  const inside = (element.elements ?? []).map(paint);
  switch (element.type) {
    case "rich_text_list": {
      const list = h("ul", { class: "items" });
      list.style.setProperty("--indent", String(element.indent ?? 0));
      let number = (element.offset ?? 0) + 1;
      for (const child of inside) list.append(h(
        "li",
        { "data-bullet": element.style === "ordered" ? `${number++}.` : "•" },
        child,
      ));
      return list;
    }
    case "rich_text_preformatted":
      return h("pre", null, inside);
    case "rich_text_quote":
      return h("blockquote", null, inside);
    default:
      return div("para", inside);
  }
}

export function richText(block, ctx) {
  return (block.elements ?? []).map((element) => part(element, ctx));
}

// code, bold (two ways), strike, italic (two ways), [label](url), <angle>; in the order in which they are tried
const SPAN = new RegExp([
  "`([^`]+)`", String.raw`\*\*(.+?)\*\*`, "__(.+?)__", "~~(.+?)~~", String.raw`\*([^*\s][^*]*)\*`,
  String.raw`(?<![\p{L}\p{N}])_([^_\s][^_]*)_(?![\p{L}\p{N}])`, String.raw`\[([^\]]+)\]\(([^)\s]+)\)`, "<([@!#][^>]+|https?:[^>]+)>",
].join("|"), "u");

/** Markdown inside one line. */
function inline(text, ctx) {
  const match = SPAN.exec(text);
  if (!match) return withEmoji(expandCodes(text));
  const [whole, code, bold, bold2, strike, italic, italic2, label, url, angle] = match;
  let node;
  if (code !== undefined) node = h("code", null, code);
  else if (label !== undefined) node = link(url, h("span", null, inline(label, ctx)));
  else if (angle?.startsWith("@")) node = mention(angle.slice(1), ctx);
  else if (angle !== undefined) node = link(angle, angle);
  else node = h(
    strike !== undefined ? "s" : (bold ?? bold2) !== undefined ? "strong" : "em",
    null,
    inline(bold ?? bold2 ?? strike ?? italic ?? italic2, ctx),
  );
  return [
    ...withEmoji(expandCodes(text.slice(0, match.index))),
    node,
    ...inline(text.slice(match.index + whole.length), ctx),
  ];
}

function cells(row) {
  return row.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

function table(rows, ctx) {
  const [head, , ...body] = rows;
  const fill = (tag, row) => h("tr", null, cells(row).map((cell) => h(tag, null, inline(cell, ctx))));
  return div(
    "table",
    h("table", null, h("thead", null, fill("th", head)), h("tbody", null, body.map((row) => fill("td", row)))),
  );
}

const LIST = /^(\s*)(?:[-*+]|(\d+)[.)])\s+(\[[ xX]\]\s+)?(.*)$/;
const STARTS = [/^```/, /^#{1,6}\s/, /^\s*([-*_])(\s*\1){2,}\s*$/, /^>/, LIST];

/** Standard markdown (the "markdown" block): headings, lists, quotes, fences, tables, paragraphs. */
export function markdown(text, ctx) {
  const rows = String(text).split("\n");
  const nodes = [];
  const takeWhile = (from, test) => {
    let to = from;
    while (to < rows.length && test(rows[to])) to += 1;
    return rows.slice(from, to);
  };
  for (let at = 0; at < rows.length; ) {
    const row = rows[at];
    if (row.trim() === "") {
      at += 1;
    } else if (row.startsWith("```")) {
      const body = takeWhile(at + 1, (line) => !line.startsWith("```"));
      nodes.push(h("pre", null, body.join("\n")));
      at += body.length + 2;
    } else if (STARTS[1].test(row)) {
      const [hashes] = row.split(" ", 1);
      nodes.push(h(
        "div",
        {
          class: "md-heading",
          role: "heading",
          "aria-level": Math.min(6, hashes.length + 2),
          "data-level": hashes.length,
        },
        inline(row.slice(hashes.length + 1), ctx),
      ));
      at += 1;
    } else if (STARTS[2].test(row)) {
      nodes.push(h("hr"));
      at += 1;
    } else if (row.startsWith(">")) {
      const quoted = takeWhile(at, (line) => line.startsWith(">"));
      nodes.push(h("blockquote", null, quoted.map((line) => h("div", null, inline(line.replace(/^>\s?/, ""), ctx)))));
      at += quoted.length;
    } else if (LIST.test(row)) {
      const items = takeWhile(at, (line) => LIST.test(line));
      nodes.push(h("ul", { class: "items" }, items.map((line) => {
        const [, indent, number, box, body] = LIST.exec(line);
        const bullet = box ? (box[1] === " " ? "☐" : "☑") : number ? `${number}.` : "•";
        return h("li", { "data-bullet": bullet, class: indent.length > 1 ? "items__deep" : null }, inline(body, ctx));
      })));
      at += items.length;
    } else if (row.includes("|") && /^\s*\|?[\s:|-]+$/.test(rows[at + 1] ?? "") && rows[at + 1].includes("-")) {
      const body = takeWhile(at, (line) => line.includes("|"));
      nodes.push(table(body, ctx));
      at += body.length;
    } else {
      const body = [
        row,
        ...takeWhile(at + 1, (line) => line.trim() !== "" && !STARTS.some((start) => start.test(line))),
      ];
      nodes.push(div(
        "para",
        body.flatMap((line, index) => (index ? [h("br"), ...inline(line, ctx)] : inline(line, ctx))),
      ));
      at += body.length;
    }
  }
  return nodes;
}
