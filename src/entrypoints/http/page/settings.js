// What is set: sampling, theme and language for this browser, the token for this tab, and the system prompt
// and tools of the conversation that is open.

import { parseTools } from "./chat.js";
import { otherLanguage, preferredLanguage, say, setLanguage } from "./words.js";

const KEY = "glm3.settings";
const TOKEN_KEY = "glm3.token";
const THEMES = { auto: ["◐", "themeAuto"], light: ["☀", "themeLight"], dark: ["☾", "themeDark"] };
const EXAMPLE = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather of a city now",
    parameters: {
      type: "object",
      properties: { city: { type: "string", description: "The city's name" } },
      required: ["city"],
    },
  },
}];

const byId = (id) => document.getElementById(id);

export class Settings {
  #kept = { theme: "auto", language: preferredLanguage(), sampling: {} };

  /** `changed(what)` is told "language", "token" or "conversation". */
  constructor(changed) {
    this.changed = changed;
    this.dialog = byId("settings");
    this.inputs = [...byId("sampling").querySelectorAll("input")];
    this.#read();
    this.#showTheme();
    for (const input of this.inputs) {
      input.value = this.#kept.sampling[input.name] ?? "";
      input.addEventListener("input", () => this.#takeSampling());
    }
    byId("token").value = this.token;
    byId("token").addEventListener("change", (event) => {
      sessionStorage.setItem(TOKEN_KEY, event.target.value.trim());
      this.changed("token");
    });
    byId("theme").addEventListener("click", () => this.#nextTheme());
    byId("language").addEventListener("click", () => this.#nextLanguage());
    byId("open-settings").addEventListener("click", () => this.open());
    for (const name of ["system", "tools"]) {
      byId(name).addEventListener("input", (event) => this.#takeText(name, event.target.value));
    }
    byId("tools-example").addEventListener("click", () => {
      byId("tools").value = JSON.stringify(EXAMPLE, null, 2);
      this.#takeText("tools", byId("tools").value);
    });
  }

  get token() {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  }

  /** The fields of a request that are set. */
  get sampling() {
    return Object.fromEntries(Object.entries(this.#kept.sampling).map(([name, text]) => [name, Number(text)]));
  }

  /** Show the system prompt and tools of a conversation. */
  showConversation(conversation) {
    this.conversation = conversation;
    byId("system").value = conversation.system;
    byId("tools").value = conversation.tools;
    this.#showToolsFault();
  }

  /** Whether everything can be sent; where it cannot, the field that is wrong is shown. */
  check() {
    const wrong = this.#showToolsFault() ? byId("tools") : this.inputs.find((input) => !input.checkValidity());
    if (!wrong) return true;
    this.open(wrong.id || null);
    wrong.focus();
    if (wrong.name) wrong.reportValidity();
    return false;
  }

  open(id = null) {
    if (!this.dialog.open) this.dialog.showModal();
    if (id) byId(id).focus();
  }

  showLanguage() {
    setLanguage(this.#kept.language);
    this.#showTheme();
    byId("language").textContent = say("language");
    byId("language").lang = otherLanguage() === "zh" ? "zh-CN" : "en";
    this.#showToolsFault();
  }

  #showToolsFault() {
    const fault = toolsFault(this.conversation?.tools ?? "");
    byId("tools-fault").hidden = !fault;
    byId("tools-fault").textContent = fault ? say("errorTools", { reason: fault }) : "";
    byId("tools").setAttribute("aria-invalid", String(Boolean(fault)));
    return fault;
  }

  #takeText(name, text) {
    this.conversation[name] = text;
    this.#showToolsFault();
    this.changed("conversation");
  }

  #takeSampling() {
    const filled = this.inputs.filter((input) => input.value !== "" && input.checkValidity());
    this.#kept.sampling = Object.fromEntries(filled.map((input) => [input.name, input.value]));
    for (const input of this.inputs) input.setAttribute("aria-invalid", String(!input.checkValidity()));
    this.#keep();
  }

  #nextTheme() {
    const names = Object.keys(THEMES);
    this.#kept.theme = names[(names.indexOf(this.#kept.theme) + 1) % names.length];
    this.#showTheme();
    this.#keep();
  }

  #showTheme() {
    const [sign, words] = THEMES[this.#kept.theme];
    document.documentElement.dataset.theme = this.#kept.theme;
    byId("theme").textContent = sign;
    byId("theme").title = say(words);
    byId("theme").setAttribute("aria-label", say(words));
  }

  #nextLanguage() {
    this.#kept.language = otherLanguage();
    this.#keep();
    this.showLanguage();
    this.changed("language");
  }

  #read() {
    try {
      const kept = JSON.parse(localStorage.getItem(KEY)) ?? {};
      if (Object.hasOwn(THEMES, kept.theme)) this.#kept.theme = kept.theme;
      if (["en", "zh"].includes(kept.language)) this.#kept.language = kept.language;
      for (const { name } of this.inputs) {
        if (typeof kept.sampling?.[name] === "string") this.#kept.sampling[name] = kept.sampling[name];
      }
    } catch {
      // What is not readable is as if nothing had been set.
    }
  }

  #keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify(this.#kept));
    } catch {
      // Settings then last as long as the page.
    }
  }
}

function toolsFault(text) {
  try {
    parseTools(text);
    return null;
  } catch (error) {
    return error.message;
  }
}
