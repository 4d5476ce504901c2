// The list of conversations: choose, rename, delete, export, import.

import { titleOf } from "./conversations.js";
import { appendVisible, element } from "./inline.js";
import { button } from "./transcript.js";
import { say } from "./words.js";

export class Sidebar {
  #renaming = null;

  /** `actions` are choose, rename, remove and save (a text, under a file's name). */
  constructor(store, actions) {
    this.store = store;
    this.actions = actions;
    this.list = document.getElementById("conversations");
  }

  show(activeId) {
    this.activeId = activeId;
    if (this.#renaming) return; // what is being typed is not taken away
    this.list.replaceChildren(...this.store.all().map((conversation) => this.#item(conversation)));
  }

  #item(conversation) {
    const item = element("li");
    const choose = element("button", "choose");
    choose.type = "button";
    choose.dir = "auto";
    appendVisible(choose, titleOf(conversation, say("untitled")));
    choose.setAttribute("aria-current", String(conversation.id === this.activeId));
    choose.addEventListener("click", () => this.actions.choose(conversation));
    item.append(choose);
    if (conversation.id === this.activeId) {
      const row = element("div", "row");
      row.append(
        button("rename", () => this.#rename(conversation, choose)),
        button("export", () => this.save([conversation], titleOf(conversation, say("untitled")))),
        button("delete", () => this.#remove(conversation)),
      );
      item.append(row);
    }
    return item;
  }

  /** Offer conversations as a file. */
  save(conversations, name) {
    const blob = new Blob([this.store.exportText(conversations)], { type: "application/json" });
    const anchor = element("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = `${name.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 60) || "conversation"}.json`;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  }

  #remove(conversation) {
    const title = titleOf(conversation, say("untitled"));
    if (confirm(say("reallyDelete", { title }))) this.actions.remove(conversation);
  }

  #rename(conversation, choose) {
    const input = element("input");
    input.value = titleOf(conversation, "");
    input.maxLength = 200;
    input.setAttribute("aria-label", say("rename"));
    this.#renaming = input;
    const end = (title) => {
      if (this.#renaming !== input) return; // leaving follows Enter
      this.#renaming = null;
      this.actions.rename(conversation, title);
      this.list.querySelector("[aria-current=true]")?.focus();
    };
    input.addEventListener("blur", () => end(input.value.trim()));
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.stopPropagation();
      end(event.key === "Enter" ? input.value.trim() : conversation.title);
    });
    choose.replaceWith(input);
    input.select();
  }
}
