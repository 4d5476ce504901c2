// Conversations, kept in the browser's local storage: one entry for each, so that two tabs do not
// overwrite each other's. Messages have the form in which the API takes them, plus notes of the page.

const PREFIX = "glm3.conversation.";
const FORMAT = "glm3-conversations";
const VERSION = 1;
const TITLE_LENGTH = 60;
const MOST_FAULTS = 5;

export class Conversations {
  #kept = new Map();

  constructor() {
    this.reload();
  }

  /** Read what is kept; entries that are not right, and conversations in use here, are left alone. */
  reload(inUse = () => false) {
    const kept = new Map();
    for (let index = 0; index < localStorage.length; index += 1) {
      const key = localStorage.key(index);
      if (!key.startsWith(PREFIX)) continue;
      const id = key.slice(PREFIX.length);
      const value = parseOrNull(localStorage.getItem(key));
      const here = this.#kept.get(id);
      if (here && inUse(here)) kept.set(id, here);
      else if (faultsOf(value, "").length === 0) kept.set(id, { ...value, id });
    }
    this.#kept = kept;
  }

  /** Conversations, the latest first. */
  all() {
    return [...this.#kept.values()].sort((a, b) => b.updated - a.updated || (a.id < b.id ? -1 : 1));
  }

  get(id) {
    return this.#kept.get(id);
  }

  /** Return a conversation that is kept once it is saved. */
  create(from = {}) {
    return {
      title: "", system: "", tools: "", messages: [], ...structuredClone(from),
      id: newId(), updated: Date.now(),
    };
  }

  /** Keep a conversation as it is now; throws the browser's error where there is no room. */
  save(conversation) {
    const { id, ...rest } = conversation;
    this.#kept.set(id, conversation);
    localStorage.setItem(PREFIX + id, JSON.stringify(rest));
  }

  touch(conversation) {
    conversation.updated = Date.now();
    this.save(conversation);
  }

  remove(id) {
    this.#kept.delete(id);
    localStorage.removeItem(PREFIX + id);
  }

  /** The text of a file that `importText` reads. */
  exportText(conversations) {
    const entries = conversations.map(({ id, ...rest }) => rest); // an id means something here only
    return JSON.stringify({ format: FORMAT, version: VERSION, conversations: entries }, null, 1);
  }

  /** Keep the conversations of a file beside those that are there; throws an error that says what is wrong. */
  importText(text) {
    const file = parseOrNull(text);
    if (file?.format !== FORMAT || file.version !== VERSION || !Array.isArray(file.conversations)) {
      throw new Error(`this is no file of format ${FORMAT}, version ${VERSION}`);
    }
    const faults = file.conversations.flatMap((entry, index) => faultsOf(entry, `conversations[${index}]`));
    if (faults.length > MOST_FAULTS) faults.splice(MOST_FAULTS, Infinity, "…");
    if (faults.length) throw new Error(faults.join("; "));
    const added = file.conversations.map((entry) => ({ ...picked(entry), id: newId() }));
    try {
      added.forEach((conversation) => this.save(conversation));
    } catch (error) {
      added.forEach((conversation) => this.remove(conversation.id));
      throw error;
    }
    return added;
  }
}

/** Its own title, or how it begins. */
export function titleOf(conversation, untitled) {
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const text = (conversation.title || first).replace(/\s+/g, " ").trim();
  return text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH - 1)}…` : text || untitled;
}

/** Calls of the last answer that have no result yet. */
export function openCalls(messages) {
  const at = messages.findLastIndex((message) => message.role === "assistant");
  const calls = messages[at]?.tool_calls ?? [];
  if (messages[at]?.skipped || messages.slice(at + 1).some((message) => message.role !== "tool")) return [];
  const answered = messages.slice(at + 1).map((message) => message.tool_call_id);
  return calls.filter((call) => !answered.includes(call.id));
}

// Fields and the test of their values; nothing else is taken over from a file.
const isText = (value) => typeof value === "string";
const isNumber = (value) => Number.isFinite(value);
const isCall = (call) =>
  isText(call?.id) && call.type === "function" && isText(call.function?.name) && isText(call.function.arguments);
const CONVERSATION = { title: isText, system: isText, tools: isText, updated: isNumber, messages: Array.isArray };
const MESSAGES = {
  user: { content: isText },
  assistant: {
    content: isText, "tool_calls?": (calls) => Array.isArray(calls) && calls.every(isCall),
    "skipped?": (value) => value === true, "end?": (value) => ["length", "stopped", "failed"].includes(value),
    "usage?": (usage) => usage !== null && typeof usage === "object" && Object.values(usage).every(isNumber),
  },
  tool: { content: isText, tool_call_id: isText },
};

function faultsOf(conversation, place) {
  const faults = wrongFields(conversation, CONVERSATION, place);
  if (!Array.isArray(conversation?.messages)) return faults;
  return faults.concat(conversation.messages.flatMap((message, index) => {
    const where = `${place}.messages[${index}]`;
    const fields = Object.hasOwn(MESSAGES, message?.role) ? MESSAGES[message.role] : null;
    return fields ? wrongFields(message, fields, where) : [`${where}.role: unknown`];
  }));
}

function wrongFields(object, fields, place) {
  if (object === null || typeof object !== "object") return [`${place}: not an object`];
  return Object.entries(fields)
    .filter(([key, isRight]) => {
      const name = key.replace("?", "");
      return !(isRight(object[name]) || (key.endsWith("?") && object[name] === undefined));
    })
    .map(([key]) => `${place}.${key.replace("?", "")}: missing or not right`);
}

function picked(conversation) {
  const pick = (object, fields) => {
    const names = Object.keys(fields).map((key) => key.replace("?", ""));
    return Object.fromEntries(names.filter((name) => object[name] !== undefined).map((name) => [name, object[name]]));
  };
  const messages = conversation.messages.map((message) => ({
    role: message.role, ...pick(message, MESSAGES[message.role]),
  }));
  return { ...pick(conversation, CONVERSATION), messages };
}

function parseOrNull(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(8)); // randomUUID is missing on plain http addresses
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
