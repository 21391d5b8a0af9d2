// What the composer offers while one types: slash commands with their usage, and people to mention.

/** Split a usage hint such as "status [INC] | kill [service|all] <reason>" at the bars outside brackets. */
function splitUsage(hint) {
  const parts = [];
  let depth = 0;
  let part = "";
  for (const char of hint ?? "") {
    if ("[<(".includes(char)) depth += 1;
    if ("]>)".includes(char)) depth -= 1;
    if (char === "|" && depth === 0) {
      parts.push(part.trim());
      part = "";
    } else {
      part += char;
    }
  }
  parts.push(part.trim());
  return parts.filter(Boolean);
}

function commandHints(text, commands) {
  const [name, ...rest] = text.split(/\s+/);
  if (rest.length === 0) {
    return commands.filter((each) => each.command.startsWith(name)).map((each) => ({
      insert: `${each.command} `, title: each.command, usage: each.usage_hint, description: each.description,
      eager: each.command !== name,
    }));
  }
  const command = commands.find((each) => each.command === name);
  if (!command) return [];
  const usages = splitUsage(command.usage_hint);
  if (usages.length < 2) return usages.map((usage) => ({
    insert: null,
    title: command.command,
    usage,
    description: command.description,
  }));
  const typed = rest.join(" ");
  return usages.filter((usage) => {
    const word = usage.split(" ")[0];
    return word.startsWith(typed) || typed === word || typed.startsWith(`${word} `);
  }).map((usage) => {
    const [word, ...parameters] = usage.split(" ");
    return {
      insert: typed.startsWith(word) ? null : `${name} ${word}${parameters.length ? " " : ""}`,
      title: `${name} ${word}`,
      usage: parameters.join(" "),
      description: "",
    };
  });
}

function mentionHints(text, caret, people) {
  const token = /(?:^|\s)@([\p{L}\p{N}._-]*)$/u.exec(text.slice(0, caret));
  if (!token) return [];
  const typed = token[1].toLowerCase();
  const found = people.filter((user) => [user.name, user.real_name].some((name) => name.toLowerCase().startsWith(typed)));
  if (found.some((user) => user.name.toLowerCase() === typed)) return [];
  return found.map((user) => ({
    insert: `${text.slice(0, caret - token[1].length)}${user.name} `,
    after: text.slice(caret),
    title: user.real_name,
    usage: `@${user.name}`,
    description: "",
    user,
    eager: true,
  }));
}

/**
 * Suggestions for the text before the caret: {insert, after?, title, usage, description, eager?, user?}.
 * eager: Enter takes it; the others must be picked with the arrows, so that Enter still sends a whole command.
 */
export function hintsFor(text, caret, { commands, people, allowCommands }) {
  if (text.startsWith("/") && !text.includes("\n")) return allowCommands ? commandHints(text, commands) : [];
  return mentionHints(text, caret, people);
}
