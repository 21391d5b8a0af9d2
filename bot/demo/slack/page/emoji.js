// Emoji: Slack's shortcodes, and drawings for the ones the bot uses where the machine has no colour emoji font.

import { h } from "./dom.js";

const CODES = {
  white_check_mark: "✅", heavy_check_mark: "✔️", ballot_box_with_check: "☑️", x: "❌", grey_question: "❔", question: "❓",
  exclamation: "❗", warning: "⚠️", no_entry: "⛔", no_entry_sign: "🚫", octagonal_sign: "🛑", red_circle: "🔴",
  large_orange_circle: "🟠", orange_circle: "🟠", large_yellow_circle: "🟡", yellow_circle: "🟡", large_green_circle: "🟢",
  green_circle: "🟢", large_blue_circle: "🔵", large_purple_circle: "🟣", white_circle: "⚪", black_circle: "⚫",
  rotating_light: "🚨", fire: "🔥", mag: "🔍", mag_right: "🔎", chart_with_upwards_trend: "📈",
  chart_with_downwards_trend: "📉", bar_chart: "📊", robot_face: "🤖", thumbsup: "👍", "+1": "👍", thumbsdown: "👎", "-1": "👎",
  hourglass: "⌛", hourglass_flowing_sand: "⏳", stopwatch: "⏱️", alarm_clock: "⏰", clock1: "🕐", wrench: "🔧",
  hammer_and_wrench: "🛠️", gear: "⚙️", page_facing_up: "📄", memo: "📝", pencil: "📝", bulb: "💡", lock: "🔒",
  unlock: "🔓", information_source: "ℹ️", arrows_counterclockwise: "🔄", repeat: "🔁", rewind: "⏪",
  leftwards_arrow_with_hook: "↩️", tada: "🎉", eyes: "👀", brain: "🧠", paperclip: "📎", link: "🔗", bell: "🔔", no_bell: "🔕",
  mega: "📣", rocket: "🚀", books: "📚", book: "📖", test_tube: "🧪", shield: "🛡️", wave: "👋", pray: "🙏", heart: "❤️",
  smile: "😄", slightly_smiling_face: "🙂", thinking_face: "🤔", sweat_smile: "😅", raised_hands: "🙌", ok_hand: "👌",
  point_right: "👉", arrow_right: "➡️", arrow_up: "⬆️", arrow_down: "⬇️", arrow_forward: "▶️", double_vertical_bar: "⏸️",
  package: "📦", truck: "🚚", bug: "🐛", floppy_disk: "💾", satellite: "📡", pushpin: "📌", clipboard: "📋", bust_in_silhouette: "👤",
  busts_in_silhouette: "👥", hospital: "🏥", seedling: "🌱", recycle: "♻️", zap: "⚡", star: "⭐", speech_balloon: "💬",
};

const disc = (colour) => `<circle cx='10' cy='10' r='8' fill='${colour}'/>`;
const line = (d, colour, width = 2.4) =>
  `<path d='${d}' fill='none' stroke='${colour}' stroke-width='${width}' stroke-linecap='round' stroke-linejoin='round'/>`;
const fill = (d, colour) => `<path d='${d}' fill='${colour}'/>`;
const tile = (colour, inner) => `<rect x='1.5' y='1.5' width='17' height='17' rx='3.5' fill='${colour}'/>${inner}`;
const chart = (d, colour) =>
  `<rect x='1.5' y='1.5' width='17' height='17' rx='2' fill='#f4f6f8' stroke='#c3ccd5'/>${line(d, colour, 2)}`;
const glass = (x1) =>
  `<circle cx='${x1}' cy='8' r='5' fill='#cfe8fb' stroke='#5b6770' stroke-width='2'/>${line(x1 < 10 ? "M12 12l5 5" : "M8 12l-5 5", "#5b6770", 3)}`;
const sheet = (inner) => `${fill("M4 1.5h8.5L16 5v13.5H4z", "#e9eef3")}${fill("M12.5 1.5V5H16z", "#b6c2cd")}${line("M6.5 8h7M6.5 11h7M6.5 14h5", "#7d8b98", 1.3)}${inner}`;
const sand = `${fill("M5 2h10v1.8l-4 6.2 4 6.2V18H5v-1.8L9 10 5 3.8z", "#cfe8fb")}${fill("M7 5h6l-3 4.6zM10 12l3 4H7z", "#e9a23b")}${line("M4.5 2h11M4.5 18h11", "#8a5a2b", 1.8)}`;
const clock = `<circle cx='10' cy='10.5' r='7' fill='#fff' stroke='#4a5560' stroke-width='2'/>${line("M10 6.5v4l2.6 1.8", "#d0342c", 1.6)}${line("M10 1.5v2", "#4a5560", 2.4)}`;
const person = (x, colour) => `<circle cx='${x}' cy='6.5' r='3.3' fill='${colour}'/>${fill(`M${x - 5.5} 18c0-9 11-9 11 0z`, colour)}`;
const thumb = fill("M3 9h3v8H3zM7 9l3-6.5c1.8 0 2.3 1.4 2 2.8L11.6 8H16c1.2 0 1.8 1 1.5 2l-1.5 6c-.2.8-.8 1.2-1.5 1.2H7z", "#f2b63c");
const bell = `${fill("M10 2c3.5 0 5 2.5 5 6v4l2 2.5H3L5 12V8c0-3.5 1.5-6 5-6z", "#f0b429")}<circle cx='10' cy='16.5' r='1.8' fill='#b7791f'/>`;
const cycle = tile("#3b88c3", line("M5.5 10a4.5 4.5 0 0 1 8-2.8M14.5 10a4.5 4.5 0 0 1-8 2.8M13.8 4.5v3h-3M6.2 15.5v-3h3", "#fff", 1.7));
const lockBody = "<rect x='4' y='8.5' width='12' height='9.5' rx='1.5' fill='#f0b429'/>";

const ART = {
  "🔴": disc("#dd2e44"), "🟠": disc("#f4900c"), "🟡": disc("#fdcb58"), "🟢": disc("#5aa83a"), "🔵": disc("#3b88c3"),
  "🟣": disc("#9266cc"), "⚪": disc("#dfe3e7"), "⚫": disc("#31373d"),
  "✅": tile("#2e9e5b", line("M5.5 10.5l3 3.2 6-7.2", "#fff", 2.6)), "☑": tile("#3b88c3", line("M5.5 10.5l3 3.2 6-7.2", "#fff", 2.6)),
  "✔": line("M3.5 11l4.2 4.5 9-11", "#31373d", 3.2), "❌": line("M4 4l12 12M16 4 4 16", "#dd2e44", 3.6),
  "❔": line("M6.5 6.5c0-4.5 7-4.5 7 0 0 2.8-3.5 2.8-3.5 5.5M10 16.5v.1", "#8b98a5", 2.8),
  "❓": line("M6.5 6.5c0-4.5 7-4.5 7 0 0 2.8-3.5 2.8-3.5 5.5M10 16.5v.1", "#dd2e44", 2.8),
  "❗": line("M10 3v9M10 16.5v.1", "#dd2e44", 3.2),
  "⚠": `${fill("M10 1.8 19 17.5H1z", "#fdc02f")}${line("M10 7.5v4.5M10 14.8v.1", "#31373d", 2)}`,
  "⛔": disc("#dd2e44") + line("M6 10h8", "#fff", 3), "🚫": `<circle cx='10' cy='10' r='7' fill='none' stroke='#dd2e44' stroke-width='2.4'/>${line("M5.2 5.2l9.6 9.6", "#dd2e44")}`,
  "🛑": fill("M6.5 1.5h7l5 5v7l-5 5h-7l-5-5v-7z", "#dd2e44"), "ℹ": tile("#3b88c3", line("M10 9.5v5M10 5.8v.1", "#fff")),
  "🚨": `${fill("M5 14V9.5a5 5 0 0 1 10 0V14z", "#dd2e44")}${fill("M3 14h14v3.5H3z", "#66757f")}${line("M10 1v1.5M2.5 4l1.2 1.2M17.5 4l-1.2 1.2", "#dd2e44", 1.6)}`,
  "🔥": fill("M10.5 1.5c.5 3.5 5.5 5.5 5.5 10.5a6 6 0 0 1-12 0c0-2.5 1.2-4 2.2-5 .2 1.5.8 2.2 1.6 2.5C7.5 6 8.5 3 10.5 1.5z", "#f4900c") + fill("M10 10c2 2 2.5 3 2.5 4.5a2.5 2.5 0 0 1-5 0C7.5 13 9 12 10 10z", "#ffcc4d"),
  "🔍": glass(8), "🔎": glass(12), "📈": chart("M4 14.5l4-4 3 2.5L16 5.5", "#dd2e44"), "📉": chart("M4 5.5l4 4 3-2.5 5 7.5", "#3b88c3"),
  "📊": chart("M5.5 15V9M10 15V5M14.5 15v-4", "#2e9e5b"), "👍": thumb, "👎": `<g transform='rotate(180 10 10)'>${thumb}</g>`,
  "🤖": `${tile("#9aaab4", "")}<circle cx='7' cy='8' r='1.8' fill='#fff'/><circle cx='13' cy='8' r='1.8' fill='#fff'/>${line("M6 13.5h8", "#31373d", 2)}`,
  "⌛": sand, "⏳": sand, "⏱": clock, "⏰": clock, "🕐": clock, "📄": sheet(""), "📋": sheet(""), "📝": sheet(line("M9 16l8-8", "#f4900c", 2.2)),
  "🔧": line("M4 16l7-7", "#8b98a5", 3.2) + line("M16.5 4.5 14 7l-2-1-.5-2L14 2a4.5 4.5 0 1 0 2.5 2.5z", "#8b98a5", 1.6),
  "🛠": line("M4 16 14 6", "#8b98a5", 3) + line("M16 16 6 6", "#b7793f", 2.6) + line("M3.5 7.5l4-4", "#66757f", 3.2),
  "⚙": `<circle cx='10' cy='10' r='5' fill='none' stroke='#66757f' stroke-width='3'/>${line("M10 1.8v2.4M10 15.8v2.4M1.8 10h2.4M15.8 10h2.4M4.2 4.2l1.7 1.7M14.1 14.1l1.7 1.7M15.8 4.2l-1.7 1.7M5.9 14.1l-1.7 1.7", "#66757f", 2)}`,
  "💡": `<circle cx='10' cy='8' r='6' fill='#fdcb58'/>${line("M8 15.5h4M8.5 18h3", "#66757f", 1.8)}`,
  "🔒": line("M6.5 9V6.5a3.5 3.5 0 0 1 7 0V9", "#8b98a5", 2) + lockBody, "🔓": line("M6.5 9V5.5a3.5 3.5 0 0 1 7-.5", "#8b98a5", 2) + lockBody,
  "🔄": cycle, "🔁": cycle, "↩": tile("#3b88c3", line("M8 5 5 8l3 3M5.5 8H12a3 3 0 0 1 0 6H9", "#fff", 1.8)), "🔔": bell, "🔕": bell + line("M3 3l14 14", "#dd2e44"),
  "👤": person(10, "#5b7083"), "👥": person(13, "#8299ab") + person(7.5, "#5b7083"), "⚡": fill("M12 1 4 11.5h5L7.5 19 16 8h-5z", "#f4b400"),
  "👀": "<circle cx='6' cy='10' r='4.5' fill='#fff' stroke='#66757f'/><circle cx='14' cy='10' r='4.5' fill='#fff' stroke='#66757f'/><circle cx='4.5' cy='10.5' r='1.8'/><circle cx='12.5' cy='10.5' r='1.8'/>",
  "🧪": fill("M8 2h4v8l4 6.5a1.3 1.3 0 0 1-1 2H5a1.3 1.3 0 0 1-1-2L8 10z", "#cfe8fb") + fill("M6.8 12h6.4l2.8 4.5a1.3 1.3 0 0 1-1 2H5a1.3 1.3 0 0 1-1-2z", "#2e9e5b"),
  "🛡": fill("M10 1.5l7 2.5v5c0 5-3 8-7 9.5-4-1.5-7-4.5-7-9.5V4z", "#3b88c3"),
  "📌": fill("M7 2h6l-.8 6 2.8 3H5l2.8-3z", "#dd2e44") + line("M10 11v7", "#8b98a5", 1.8), "📣": fill("M3 8l12-5v13L3 12z", "#dd2e44") + line("M6 12.5l1.5 5", "#8b98a5", 2.4),
  "➡": tile("#3b88c3", line("M5 10h9M10.5 6l4 4-4 4", "#fff", 2)), "▶": tile("#3b88c3", fill("M7 5l8 5-8 5z", "#fff")), "⏸": tile("#3b88c3", line("M7.5 6v8M12.5 6v8", "#fff")),
};

const VARIATION = "\ufe0f";
const EMOJI = /\p{Extended_Pictographic}\ufe0f?/gu;

let coloured;
/** Whether the machine draws emoji in colour: a glyph painted in black that leaves coloured pixels does. */
function hasColourEmoji() {
  if (coloured !== undefined) return coloured;
  const brush = Object.assign(document.createElement("canvas"), { width: 24, height: 24 }).getContext("2d", { willReadFrequently: true });
  brush.font = "18px sans-serif";
  brush.textBaseline = "top";
  brush.fillText("🔴", 0, 2);
  const { data } = brush.getImageData(0, 0, 24, 24);
  coloured = data.some((value, at) => at % 4 === 0 && value > 90 && data[at + 1] < value / 2);
  return coloured;
}

function glyph(text) {
  const art = hasColourEmoji() ? undefined : ART[text.replace(VARIATION, "")];
  const node = h("span", { class: art ? "emoji emoji--drawn" : "emoji" }, text);
  if (art) {
    const svg = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 20 20'>${art}</svg>`;
    node.style.backgroundImage = `url("data:image/svg+xml,${encodeURIComponent(svg)}")`;
  }
  return node;
}

/** Text as nodes: emoji become pictures, their characters stay in the page for copying and screen readers. */
export function withEmoji(text) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(EMOJI)) {
    if (/^[©®™]/.test(match[0])) continue;
    if (match.index > at) nodes.push(text.slice(at, match.index));
    nodes.push(glyph(match[0]));
    at = match.index + match[0].length;
  }
  if (at < text.length) nodes.push(text.slice(at));
  return nodes;
}

/** The character of a Slack shortcode, or null. */
export function emojiOf(code) {
  return Object.hasOwn(CODES, code) ? CODES[code] : null;
}

/** Replace :shortcodes: by characters, as plain_text with emoji does. */
export function expandCodes(text) {
  return text.replace(/:([a-z0-9_+-]+):/g, (whole, code) => emojiOf(code) ?? whole);
}
