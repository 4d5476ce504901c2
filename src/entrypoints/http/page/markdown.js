// Markdown as DOM nodes, block by block. What grows at its end is drawn anew only there.

import { appendInline, appendVisible, element } from "./inline.js";

const MOST_DEPTH = 8; // of quotes and lists inside each other
const FENCE = /^( {0,3})(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s(.*))?$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])(?:\s+|$)/;

const shownSources = new WeakMap(); // element -> the sources of the blocks it shows

/** Make an element show a text; blocks whose source has not changed stay as they are. */
export function showMarkdown(parent, text, words) {
  const before = shownSources.get(parent) ?? [];
  const blocks = cutBlocks(text.split(/\r\n?|\n/), 0);
  const sources = blocks.map((block) => block.source);
  let same = 0;
  while (same < before.length && same < sources.length && before[same] === sources[same]) same += 1;
  while (parent.childNodes.length > same) parent.lastChild.remove();
  for (const block of blocks.slice(same)) parent.append(drawBlock(block, words));
  shownSources.set(parent, sources);
}

/** Cut lines into blocks {kind, source, ...}. */
function cutBlocks(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const block = blockAt(lines, at, depth);
    block.source = `${block.kind}\n${lines.slice(at, block.end).join("\n")}`;
    block.depth = depth;
    blocks.push(block);
    at = block.end;
  }
  return blocks;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: (heading[2] ?? "").trim().replace(/\s#+$/, ""), end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (depth < MOST_DEPTH && QUOTE.test(line)) return quote(lines, at);
  if (depth < MOST_DEPTH && ITEM.test(line)) return list(lines, at);
  if (isTable(lines, at)) return table(lines, at);
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines, end, depth)) end += 1;
  return { kind: "paragraph", text: lines.slice(at, end).map((text) => text.trim()).join("\n"), end };
}

function startsBlock(lines, at, depth) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line)
    || (depth < MOST_DEPTH && (QUOTE.test(line) || ITEM.test(line))) || isTable(lines, at);
}

function fenced(lines, at, [, indent, fence, info]) {
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const margin = new RegExp(`^ {0,${indent.length}}`);
  const text = lines.slice(at + 1, end).map((line) => line.replace(margin, "")).join("\n");
  return { kind: "code", text, language: info.trim().split(/\s/)[0], end: Math.min(end + 1, lines.length) };
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  return { kind: "quote", lines: lines.slice(at, end).map((line) => line.replace(QUOTE, "")), end };
}

function list(lines, at) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let end = at;
  let blank = false;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const item = ITEM.exec(line);
    const margin = /^\s*/.exec(line)[0].length;
    if (!line.trim()) {
      blank = true;
      items.at(-1).push("");
    } else if (item && margin <= indent.length + 1 && !RULE.test(line)) {
      if (/\d/.test(item[2]) !== ordered || margin < indent.length) break;
      items.push([line.slice(item[0].length)]);
      blank = false;
    } else if (margin > indent.length + 1) {
      items.at(-1).push(line.slice(Math.min(margin, indent.length + mark.length + 1)));
      blank = false;
    } else if (blank || startsBlock(lines, end, 0)) {
      break;
    } else {
      items.at(-1).push(line);
    }
  }
  return { kind: "list", ordered, first: ordered ? parseInt(mark, 10) : 1, items, end };
}

function isTable(lines, at) {
  const rule = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || !/^[\s|:-]+$/.test(rule)) return false;
  return cells(rule).every((cell) => /^:?-+:?$/.test(cell)) && cells(lines[at]).length === cells(rule).length;
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  const aligns = cells(lines[at + 1]).map((cell) => {
    const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
    return left && right ? "center" : right ? "end" : "start";
  });
  return { kind: "table", head: cells(lines[at]), rows: lines.slice(at + 2, end).map(cells), aligns, end };
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function drawBlock(block, words) {
  switch (block.kind) {
    case "code": return drawCode(block.text, block.language, words);
    case "heading": return withText(element(`h${Math.min(block.level + 2, 6)}`), block.text); // h1 and h2 are the page's
    case "rule": return element("hr");
    case "quote": return withBlocks(element("blockquote"), block.lines, block.depth, words);
    case "list": return drawList(block, words);
    case "table": return drawTable(block);
    default: return withText(element("p"), block.text);
  }
}

function withText(node, text) {
  appendInline(node, text);
  node.dir = "auto"; // after the children, as in appendOwnDirection
  return node;
}

function withBlocks(node, lines, depth, words) {
  for (const block of cutBlocks(lines, depth + 1)) node.append(drawBlock(block, words));
  return node;
}

function drawList({ ordered, first, items, depth }, words) {
  const node = element(ordered ? "ol" : "ul");
  if (ordered && first !== 1) node.start = first;
  for (const lines of items) {
    const item = withBlocks(element("li"), lines, depth, words);
    if (item.children.length && item.firstChild.tagName === "P") item.firstChild.className = "tight";
    node.append(item);
  }
  return node;
}

function drawTable({ head, rows, aligns }) {
  const node = element("table");
  const row = (texts, name) => {
    const line = element("tr");
    head.forEach((_, index) => {
      const cell = withText(element(name), texts[index] ?? "");
      cell.className = `align-${aligns[index]}`;
      line.append(cell);
    });
    return line;
  };
  node.createTHead().append(row(head, "th"));
  node.createTBody().append(...rows.map((texts) => row(texts, "td")));
  const frame = element("div", "table");
  frame.tabIndex = 0; // wide tables are scrolled by keyboard, too
  frame.append(node);
  return frame;
}

/** A block of code with a button that copies it. */
export function drawCode(text, language, words) {
  const node = element("figure", "code");
  const bar = element("figcaption");
  appendVisible(bar.appendChild(element("span")), language);
  const copy = element("button", "copy", words.copy);
  copy.type = "button";
  copy.addEventListener("click", () => copyText(text, copy, words));
  bar.append(copy);
  const pre = element("pre");
  pre.dir = "ltr";
  pre.tabIndex = 0;
  appendVisible(pre.appendChild(element("code")), text);
  node.append(bar, pre);
  return node;
}

/** Copy a text, and say so on the button that asked for it. */
export async function copyText(text, button, words) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // pages of plain http addresses have no clipboard
    const area = document.body.appendChild(element("textarea", "hidden"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = words.copied;
  setTimeout(() => { button.textContent = words.copy; }, 1500);
}
