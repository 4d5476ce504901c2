// The messages of a conversation on the page. Nodes stay while their message does, so that neither the
// keyboard's focus nor a half-written result is lost when another message changes.

import { openCalls } from "./conversations.js";
import { appendOwnDirection, appendVisible, element } from "./inline.js";
import { copyText, drawCode, showMarkdown } from "./markdown.js";
import { say } from "./words.js";

const NEAR_END = 80; // pixels from the end within which the view follows a growing answer

export class Transcript {
  #drawn = new WeakMap(); // a message, a failure or a conversation -> its nodes
  #spoken = 0; // characters of the answer that are announced

  /** `actions` are edit (which says whether it was possible), retry, fork, giveResult, skip, enterToken and redraw. */
  constructor(root, announcements, actions) {
    this.root = root;
    this.announcements = announcements;
    this.actions = actions;
    this.editing = null;
  }

  /** Draw everything anew, for example in another language. */
  forget() {
    this.#drawn = new WeakMap();
  }

  show(conversation, { running, failure }) {
    const follows = this.root.scrollHeight - this.root.scrollTop - this.root.clientHeight < NEAR_END;
    const { messages } = conversation;
    const open = running ? [] : openCalls(messages);
    const nodes = messages.map((message, index) => {
      const state = {
        running: running && index === messages.length - 1, busy: running, index,
        last: index === messages.length - 1, explained: Boolean(failure), open: message.tool_calls ? open.map((call) => call.id) : [],
      };
      return this.#message(message, state);
    });
    const settings = this.#settingsNode(conversation);
    if (settings) nodes.unshift(settings);
    if (failure) nodes.push(this.#failureNode(failure));
    if (!messages.length && !failure) nodes.push(element("p", "welcome", say("welcome")));
    place(this.root, nodes);
    this.root.setAttribute("aria-busy", String(running));
    if (follows) this.showEnd();
  }

  showEnd() {
    this.root.scrollTop = this.root.scrollHeight;
  }

  /** Say to those who listen what has been added to an answer, a sentence at a time. */
  announceAnswer(text, isWhole) {
    const rest = text.slice(this.#spoken);
    const end = isWhole ? rest.length : Math.max(...[..."。！？.!?\n"].map((mark) => rest.lastIndexOf(mark))) + 1;
    if (end > 0) this.announce(rest.slice(0, end).replace(/[*_`#~|]/g, ""));
    this.#spoken += Math.max(end, 0);
  }

  announce(text) {
    this.announcements.append(element("p", "", text));
  }

  startAnnouncing() {
    this.#spoken = 0;
    this.announcements.replaceChildren();
    this.announce(say("answering"));
  }

  #message(message, state) {
    let parts = this.#drawn.get(message);
    if (!parts) {
      const node = element("article", `message ${message.role}`);
      const body = element("div", "body");
      const extras = element("div", "extras");
      node.append(element("h2", "who", say(message.role)), body, extras);
      parts = { node, body, extras, signature: "" };
      this.#drawn.set(message, parts);
    }
    const editing = this.editing === message;
    if (message.role === "assistant") {
      if (parts.shown !== message.content) {
        showMarkdown(parts.body, message.content, { copy: say("copy"), copied: say("copied") });
        parts.shown = message.content;
      }
      parts.node.classList.toggle("running", state.running);
    }
    const { content, ...notes } = message;
    const signature = JSON.stringify([message.role === "assistant" ? notes : message, state, editing]);
    if (signature === parts.signature) return parts.node;
    parts.signature = signature;
    if (message.role !== "assistant") {
      parts.body.dir = "";
      parts.body.replaceChildren();
      if (editing) parts.body.append(this.#editor(message, state.index));
      else appendOwnDirection(parts.body, content);
    }
    parts.extras.replaceChildren(...this.#extras(message, state, editing));
    return parts.node;
  }

  #extras(message, state, editing) {
    const nodes = (message.tool_calls ?? []).map((call) => this.#call(message, call, state));
    if (message.end === "stopped") nodes.push(element("p", "note", say("stopped")));
    if (message.end === "failed" && !state.explained) nodes.push(element("p", "note", say("errorBroken")));
    if (message.end === "length") nodes.push(element("p", "note", say("cut")));
    if (message.usage) nodes.push(element("p", "note usage", usageLine(message.usage)));
    if (!editing && !state.running) nodes.push(this.#buttons(message, state));
    return nodes;
  }

  #buttons(message, { busy, last, index }) {
    const row = element("div", "row actions");
    const words = { copy: say("copy"), copied: say("copied") };
    if (message.content) row.append(button("copy", (target) => copyText(message.content, target, words)));
    if (message.role === "user" && !busy) row.append(button("edit", () => this.#edit(message)));
    if (message.role === "assistant" && !busy) {
      if (last) row.append(button("retry", () => this.actions.retry()));
      row.append(button("fork", () => this.actions.fork(index)));
    }
    return row;
  }

  #edit(message) {
    this.editing = message;
    this.actions.redraw();
    this.#drawn.get(message).body.querySelector("textarea").focus();
  }

  #editor(message, index) {
    const end = () => {
      this.editing = null;
      this.actions.redraw();
    };
    const send = (text) => {
      if (this.actions.edit(index, text)) this.editing = null;
    };
    const form = answerForm(say("edit"), "save", send, { key: "cancel", run: end });
    const area = form.querySelector("textarea");
    area.value = message.content;
    area.rows = Math.min(12, message.content.split("\n").length + 1);
    area.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation();
      end();
    });
    return form;
  }

  #call(message, call, { open }) {
    const { name, arguments: given } = call.function;
    const node = element("section", "call");
    appendVisible(node.appendChild(element("h3")), say("call", { name }));
    node.append(drawCode(...shownArguments(name, given), { copy: say("copy"), copied: say("copied") }));
    if (message.skipped) node.append(element("p", "note", say("skipped")));
    if (open.includes(call.id)) {
      const give = (text) => this.actions.giveResult(call, text);
      node.append(answerForm(say("result", { name }), "giveResult", give, { key: "skipCall", run: () => this.actions.skip() }));
    }
    return node;
  }

  #settingsNode(conversation) {
    const { system, tools } = conversation;
    if (!system.trim() && !tools.trim()) return null;
    const signature = JSON.stringify([system, tools]);
    const drawn = this.#drawn.get(conversation);
    if (drawn?.signature === signature) return drawn.node;
    const node = element("details", "given");
    node.append(element("summary", "", say("systemShown")));
    if (system.trim()) {
      appendOwnDirection(node.appendChild(element("p")), system);
    }
    if (tools.trim()) node.append(drawCode(tools, "json", { copy: say("copy"), copied: say("copied") }));
    this.#drawn.set(conversation, { node, signature });
    return node;
  }

  #failureNode(failure) {
    const drawn = this.#drawn.get(failure);
    if (drawn) return drawn.node;
    const node = element("div", "failure");
    node.setAttribute("role", "alert");
    node.append(element("p", "", say(failure.kind)));
    for (const detail of failure.details) appendVisible(node.appendChild(element("p", "note")), detail);
    if (failure.retryAfter) node.append(element("p", "note", say("retryAfter", { seconds: failure.retryAfter })));
    const row = element("div", "row");
    if (failure.kind === "errorToken") row.append(button("enterToken", () => this.actions.enterToken()));
    row.append(button("retry", () => this.actions.retry()));
    node.append(row);
    this.#drawn.set(failure, { node });
    return node;
  }
}

/** Let Enter submit a text area's form and Shift+Enter start a line; Enter of an input method does neither. */
export function submitOnEnter(area) {
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    area.form.requestSubmit();
  });
}

export function button(key, run) {
  const node = element("button", "", say(key));
  node.type = "button";
  node.addEventListener("click", () => run(node));
  return node;
}

function answerForm(label, key, submit, other) {
  const form = element("form", "answer");
  const area = element("textarea");
  area.rows = 3;
  area.setAttribute("aria-label", label);
  area.placeholder = label;
  submitOnEnter(area);
  const send = element("button", "main", say(key));
  send.type = "submit";
  const row = element("div", "row");
  row.append(send, button(other.key, other.run));
  form.append(area, row);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (area.value.trim()) submit(area.value);
    else area.focus();
  });
  return form;
}

function shownArguments(name, given) {
  try {
    const value = JSON.parse(given);
    if (name === "interpreter" && typeof value.code === "string") return [value.code, "python"];
    return [JSON.stringify(value, null, 2), "json"];
  } catch {
    return [given, ""];
  }
}

function usageLine({ prompt, completion, cached, first, rate }) {
  const parts = [say("tokens", { completion })];
  if (rate) parts.push(say("perSecond", { rate: rate.toFixed(1) }));
  if (first) parts.push(say("first", { seconds: first.toFixed(2) }));
  parts.push(say("prompt", { count: prompt }) + (cached ? ` (${say("cached", { count: cached })})` : ""));
  return parts.join(" · ");
}

/** Give an element these children, and move none that is in its place. */
function place(root, nodes) {
  nodes.forEach((node, index) => {
    if (root.childNodes[index] !== node) root.insertBefore(node, root.childNodes[index] ?? null);
  });
  while (root.childNodes.length > nodes.length) root.lastChild.remove();
}
