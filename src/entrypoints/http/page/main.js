// The page: ties conversations, answers, and what is seen of them together.

import { modelNames, readiness } from "./api.js";
import { Chat } from "./chat.js";
import { Conversations } from "./conversations.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { button, submitOnEnter, Transcript } from "./transcript.js";
import { say } from "./words.js";

const ACTIVE_KEY = "glm3.active"; // of this tab: which conversation is open
const SAVE_EVERY = 1000; // milliseconds, while an answer grows
const ASK_EVERY = { ready: 30_000, other: 3_000 }; // milliseconds between two looks at the server's readiness
const LARGEST_IMPORT = 20 * 2 ** 20; // bytes; browsers keep about 5 MB
const STATES = { ready: "stateReady", loading: "stateLoading", draining: "stateDraining" };

const byId = (id) => document.getElementById(id);
const [prompt, composer, notice] = [byId("prompt"), byId("composer"), byId("notice")];

const store = new Conversations();
const settings = new Settings(settingChanged);
const chat = new Chat(
  () => ({ token: settings.token, ...(byId("model").value && { model: byId("model").value }), ...settings.sampling }),
  conversationChanged,
);
const transcript = new Transcript(byId("transcript"), byId("spoken"), {
  edit: (index, text) => act(() => chat.edit(active, index, text)),
  retry: () => act(() => chat.retry(active)),
  giveResult: (call, text) => act(() => chat.giveResult(active, call, text)),
  skip: () => act(() => chat.skip(active)),
  fork: (index) => open(store.create({ ...active, title: "", messages: active.messages.slice(0, index + 1) })),
  enterToken: () => settings.open("token"),
  redraw: () => draw(),
});
const sidebar = new Sidebar(store, {
  choose: (conversation) => open(conversation),
  rename: (conversation, title) => {
    conversation.title = title;
    keep(conversation);
    sidebar.show(active.id);
  },
  remove: (conversation) => {
    chat.stop(conversation);
    store.remove(conversation.id);
    open(store.all()[0] ?? store.create());
  },
});

let active = store.get(sessionStorage.getItem(ACTIVE_KEY)) ?? store.all()[0] ?? store.create();
let saved = 0;
let frame = 0;

/** Do something that asks the model, if what is set can be sent; then one can go on typing. */
function act(run) {
  if (chat.isRunning(active) || !settings.check()) return false;
  run();
  prompt.focus();
  return true;
}

function open(conversation) {
  active = conversation;
  sessionStorage.setItem(ACTIVE_KEY, conversation.id);
  settings.showConversation(conversation);
  setSidebar(false);
  draw();
  sidebar.show(active.id);
  transcript.showEnd();
  prompt.focus();
}

function draw() {
  const running = chat.isRunning(active);
  transcript.show(active, { running, failure: chat.failures.get(active.id) });
  byId("send").hidden = running;
  byId("stop").hidden = !running;
}

function conversationChanged(conversation, event) {
  const isActive = conversation.id === active.id;
  if (event === "grown") {
    if (performance.now() - saved > SAVE_EVERY && store.get(conversation.id)) keep(conversation);
    if (isActive) frame ||= requestAnimationFrame(drawGrown);
    return;
  }
  // One that was deleted while it was answered does not come back.
  if (store.get(conversation.id) || event === "started") keep(conversation, true);
  sidebar.show(active.id);
  if (!isActive) return;
  draw();
  if (event === "started") {
    transcript.startAnnouncing();
    transcript.showEnd();
  } else if (event !== "messages") {
    announceEnd(conversation, event);
  }
}

function drawGrown() {
  frame = 0;
  draw();
  if (chat.isRunning(active)) transcript.announceAnswer(active.messages.at(-1).content, false);
}

function announceEnd(conversation, event) {
  const last = conversation.messages.at(-1);
  if (last?.role === "assistant") transcript.announceAnswer(last.content, true);
  for (const call of last?.tool_calls ?? []) transcript.announce(say("call", { name: call.function.name }));
  if (event !== "failed") transcript.announce(say({ stopped: "stopped", length: "cut" }[event] ?? "answered"));
}

function keep(conversation, isNews = false) {
  saved = performance.now();
  try {
    if (isNews) store.touch(conversation);
    else store.save(conversation);
  } catch {
    showNotice(say("errorStorage"));
  }
}

function settingChanged(what) {
  if (what === "token") {
    byId("readiness").dataset.state = "unknown"; // what is served is asked for again
    askServer();
  } else if (what === "conversation") {
    keep(active);
    sidebar.show(active.id);
    draw();
  } else {
    transcript.forget();
    draw();
    sidebar.show(active.id);
    showState(byId("readiness").dataset.state);
  }
}

function showNotice(text) {
  notice.replaceChildren(text, button("dismiss", () => { notice.hidden = true; }));
  notice.hidden = false;
}

let asking = 0;

/** Look whether the server can be asked, and what it serves; again later, while the page is looked at. */
async function askServer() {
  clearTimeout(asking);
  let state = await readiness();
  if (state === "ready" && !(byId("model").options.length && byId("readiness").dataset.state === "ready")) {
    try {
      showModels(await modelNames(settings.token));
    } catch (error) {
      state = error.kind === "errorToken" ? "token" : "gone";
      showModels([]);
    }
  }
  showState(state);
  const wait = state === "ready" || state === "token" ? ASK_EVERY.ready : ASK_EVERY.other;
  clearTimeout(asking);
  asking = setTimeout(() => document.hidden || askServer(), wait);
}

function showModels(names) {
  const chosen = byId("model").value;
  byId("model").replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  byId("model").disabled = names.length < 2;
}

function showState(state) {
  const words = STATES[state] ?? { token: "stateToken", gone: "stateGone" }[state];
  byId("readiness").dataset.state = state;
  byId("readiness").textContent = words ? say(words) : "";
}

function setSidebar(isOpen) {
  document.body.classList.toggle("sidebar-open", isOpen);
  byId("toggle-sidebar").setAttribute("aria-expanded", String(isOpen));
}

function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

async function importFile(event) {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  try {
    if (file.size > LARGEST_IMPORT) throw new Error(`${file.size} > ${LARGEST_IMPORT} bytes`);
    const added = store.importText(await file.text());
    if (added.length) open(added[0]);
    showNotice(say("imported", { count: added.length }));
  } catch (error) {
    showNotice(say("errorImport", { reason: error.message }));
  }
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = prompt.value;
  if (!text.trim() || !act(() => chat.say(active, text))) return;
  prompt.value = "";
  fitPrompt();
});
submitOnEnter(prompt);
prompt.addEventListener("input", fitPrompt);
byId("stop").addEventListener("click", () => {
  chat.stop(active);
  prompt.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || settings.dialog.open) return;
  if (document.body.classList.contains("sidebar-open")) {
    setSidebar(false);
    byId("toggle-sidebar").focus();
  } else {
    chat.stop(active);
  }
});
byId("new").addEventListener("click", () => open(store.create()));
byId("export").addEventListener("click", () => sidebar.save(store.all(), "glm3-conversations"));
byId("import").addEventListener("click", () => byId("import-file").click());
byId("import-file").addEventListener("change", importFile);
byId("toggle-sidebar").addEventListener("click", () => {
  setSidebar(!document.body.classList.contains("sidebar-open"));
  if (document.body.classList.contains("sidebar-open")) byId("new").focus();
});
document.querySelector("main").addEventListener("click", () => setSidebar(false));
document.addEventListener("visibilitychange", () => document.hidden || askServer());
addEventListener("pagehide", () => {
  for (const conversation of store.all().filter((each) => chat.isRunning(each))) {
    conversation.messages.at(-1).end = "failed"; // there may be no time left for the answer's own end
    keep(conversation);
  }
});
addEventListener("storage", () => { // another tab has kept something
  store.reload((conversation) => chat.isRunning(conversation));
  const kept = store.get(active.id);
  if (kept && kept !== active) {
    active = kept;
    settings.showConversation(active);
    draw();
  }
  sidebar.show(active.id);
});

settings.showLanguage();
open(active);
askServer();
