// Markdown inside a line, as DOM nodes. Text only ever becomes text: no markup is parsed by the browser,
// nothing is loaded, and a link shows where it leads.

const MOST_DEPTH = 12;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const ADDRESS = /https?:\/\/[^\s<>"'`]+/y;
const ANGLE_ADDRESS = /<(https?:\/\/[^\s<>]+)>/y;
// Each part is bounded or begins with a character of its own, so that no text takes long to refuse. One level
// of brackets inside the label, so that a picture may be a link's text.
const LINK = /(!?)\[((?:[^[\]\\]|\\.|\[[^[\]]*\]){0,1000})\]\(\s?([^\s()]*(?:\([^\s()]*\)[^\s()]*)*)(?:\s{1,3}"[^"]{0,300}")?\s?\)/sy;
const MARKS = [["***", ["strong", "em"]], ["**", ["strong"]], ["__", ["strong"]], ["~~", ["s"]], ["*", ["em"]], ["_", ["em"]]];
// Characters that change the order in which others are shown.
const BIDI = /[\u202a-\u202e\u2066-\u2069]/;

/** Append what a text says to an element. */
export function appendInline(parent, text, depth = 0) {
  const failed = new Set(); // marks that nothing closes from here on
  let plain = "";
  let at = 0;
  const add = (node) => {
    appendText(parent, plain);
    plain = "";
    parent.append(node);
  };
  while (at < text.length) {
    const found = matchAt(text, at, depth, failed);
    if (found?.node) add(found.node);
    else plain += found ? found.text : text[at];
    at += found ? found.length : 1;
  }
  appendText(parent, plain);
}

/** Append text as it is, with line breaks, and with the characters made visible that reorder others. */
function appendText(parent, text) {
  const lines = text.split("\n");
  lines.forEach((line, index) => {
    if (index) parent.append(document.createElement("br"));
    appendVisible(parent, line);
  });
}

/** Append text as it is, in the direction in which it is written. */
export function appendOwnDirection(parent, text) {
  appendText(parent, text);
  parent.dir = "auto"; // last: with it, each further child would make the browser look at all of them again
}

/** Append text in which reordering characters are marked and confined. */
export function appendVisible(parent, text) {
  for (const part of text.split(new RegExp(`(${BIDI.source})`))) {
    if (BIDI.test(part)) {
      const mark = element("span", "control", part);
      mark.dataset.code = `U+${part.codePointAt(0).toString(16).toUpperCase()}`;
      parent.append(mark);
    } else if (part) {
      parent.append(part);
    }
  }
}

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function matchAt(text, at, depth, failed) {
  const character = text[at];
  if (character === "\\" && ESCAPABLE.test(text[at + 1] ?? "")) return { text: text[at + 1], length: 2 };
  if (character === "`") return code(text, at, failed);
  if ((character === "[" || (character === "!" && text[at + 1] === "[")) && depth < MOST_DEPTH) {
    return link(text, at, depth);
  }
  if (depth < MOST_DEPTH && (character === "<" || (character === "h" && !isWord(text[at - 1])))) return address(text, at);
  if ("*_~".includes(character) && depth < MOST_DEPTH) return emphasis(text, at, depth, failed);
  return null;
}

function code(text, at, failed) {
  const fence = run(text, at);
  const key = `\`${fence.length}`;
  if (failed.has(key)) return { text: fence, length: fence.length };
  for (let end = text.indexOf(fence, at + fence.length); end >= 0;) {
    const closing = run(text, end);
    if (closing.length === fence.length) {
      const inside = text.slice(at + fence.length, end).replace(/\n/g, " ");
      const node = element("code");
      appendVisible(node, /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside);
      return { node, length: end + fence.length - at };
    }
    end = text.indexOf(fence, end + closing.length);
  }
  failed.add(key);
  return { text: fence, length: fence.length };
}

function run(text, at) {
  let end = at;
  while (text[end] === "`") end += 1;
  return text.slice(at, end);
}

function link(text, at, depth) {
  LINK.lastIndex = at;
  const match = LINK.exec(text);
  if (!match) return null;
  const [whole, picture, label, target] = match;
  const url = safeAddress(target);
  if (!url) return { text: whole, length: whole.length };
  const node = document.createDocumentFragment();
  const anchor = anchorTo(url);
  if (picture) appendVisible(anchor, label || url.href); // a picture is a link to it; nothing is loaded
  else appendInline(anchor, label || url.href, MOST_DEPTH); // no links inside a link
  node.append(anchor);
  if (anchor.textContent !== url.href && anchor.textContent !== target) {
    node.append(element("span", "host", ` (${url.host})`));
  }
  return { node, length: whole.length };
}

function address(text, at) {
  ANGLE_ADDRESS.lastIndex = at;
  ADDRESS.lastIndex = at;
  const angle = ANGLE_ADDRESS.exec(text);
  let shown = angle ? angle[1] : ADDRESS.exec(text)?.[0];
  if (!shown) return null;
  if (!angle) shown = withoutSentence(shown);
  const url = safeAddress(shown);
  if (!url) return null;
  const anchor = anchorTo(url);
  appendVisible(anchor, shown);
  return { node: anchor, length: angle ? angle[0].length : shown.length };
}

/** What follows an address in a sentence is mostly the sentence's: its marks, and Chinese without a space. */
function withoutSentence(shown) {
  const foreign = shown.search(/[^\x21-\x7e]/);
  const address = foreign < 0 ? shown : shown.slice(0, foreign);
  let end = address.length;
  while (end && (".,;:!?*_~]|".includes(address[end - 1]) || (address[end - 1] === ")" && !address.includes("(")))) end -= 1;
  return address.slice(0, end);
}

function safeAddress(target) {
  if (BIDI.test(target)) return null;
  const url = URL.canParse(target) ? new URL(target) : null;
  return url && (url.protocol === "https:" || url.protocol === "http:") && !url.username && !url.password ? url : null;
}

function anchorTo(url) {
  const anchor = element("a");
  anchor.href = url.href;
  anchor.rel = "noopener noreferrer nofollow";
  anchor.target = "_blank";
  anchor.title = url.href;
  anchor.dir = "auto";
  return anchor;
}

function isWord(character) {
  return /[A-Za-z0-9]/.test(character ?? ""); // Chinese has no spaces around what is emphasised
}

function emphasis(text, at, depth, failed) {
  for (const [mark, names] of MARKS) {
    if (!text.startsWith(mark, at) || failed.has(mark)) continue;
    const start = at + mark.length;
    if (/\s/.test(text[start] ?? " ") || text[start] === mark[0] || (mark[0] === "_" && isWord(text[at - 1]))) continue;
    for (let end = text.indexOf(mark, start + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
      const after = end + mark.length;
      const isClosing = !/[\s\\]/.test(text[end - 1]) && text[after] !== mark[0]
        && (mark.length > 1 || text[end - 1] !== mark) && !(mark[0] === "_" && isWord(text[after]));
      if (!isClosing) continue;
      const outer = element(names[0]);
      const inner = names[1] ? outer.appendChild(element(names[1])) : outer;
      appendInline(inner, text.slice(start, end), depth + 1);
      return { node: outer, length: after - at };
    }
    failed.add(mark);
  }
  return null;
}
