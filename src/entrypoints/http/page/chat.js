// The course of a conversation: what is asked, how the answer grows, and how it ends. Knows no document.

import { ApiError, streamChat } from "./api.js";
import { openCalls } from "./conversations.js";

/** Run answers, at most one for each conversation; `changed(conversation, event)` is told what happens. */
export class Chat {
  #running = new Map(); // by the conversation's id: how to stop it

  /** `options()` gives the token, the model and the sampling fields of the next request. */
  constructor(options, changed) {
    this.options = options;
    this.changed = changed;
    this.failures = new Map(); // by the conversation's id: why its last answer failed
  }

  isRunning(conversation) {
    return this.#running.has(conversation.id);
  }

  stop(conversation) {
    this.#running.get(conversation.id)?.abort();
  }

  /** Say something; calls that wait for a result stay without one. */
  async say(conversation, content) {
    this.#skipOpenCalls(conversation);
    conversation.messages.push({ role: "user", content });
    await this.answer(conversation);
  }

  /** Say something else instead of a message, and forget what came after it. */
  async edit(conversation, index, content) {
    conversation.messages.splice(index);
    await this.say(conversation, content);
  }

  /** Ask for the last answer again. */
  async retry(conversation) {
    if (conversation.messages.at(-1)?.role === "assistant") conversation.messages.pop();
    await this.answer(conversation);
  }

  /** Give the result of a call; the model goes on once every call has one. */
  async giveResult(conversation, call, content) {
    conversation.messages.push({ role: "tool", tool_call_id: call.id, content });
    if (openCalls(conversation.messages).length === 0) await this.answer(conversation);
    else this.changed(conversation, "messages");
  }

  skip(conversation) {
    this.#skipOpenCalls(conversation);
    this.changed(conversation, "messages");
  }

  #skipOpenCalls(conversation) {
    const { messages } = conversation;
    if (openCalls(messages).length === 0) return;
    const at = messages.findLastIndex((message) => message.role === "assistant");
    messages.splice(at + 1); // results of some of the calls only cannot be sent
    messages[at].skipped = true;
  }

  /** Let the model answer what is there. */
  async answer(conversation) {
    if (this.isRunning(conversation)) return;
    const { token, ...fields } = this.options();
    const body = { ...fields, ...requestOf(conversation) };
    const message = { role: "assistant", content: "" };
    const clock = new Clock();
    const control = new AbortController();
    this.#running.set(conversation.id, control);
    this.failures.delete(conversation.id);
    conversation.messages.push(message);
    this.changed(conversation, "started");
    try {
      for await (const chunk of streamChat(body, token, control.signal)) {
        clock.see(chunk);
        take(message, chunk);
        this.changed(conversation, "grown");
      }
    } catch (error) {
      message.end = control.signal.aborted ? "stopped" : "failed";
      if (!control.signal.aborted) {
        this.failures.set(conversation.id, error instanceof ApiError ? error : new ApiError("errorBroken", [String(error)]));
      }
    } finally {
      this.#running.delete(conversation.id);
    }
    if (clock.usage) message.usage = clock.usage;
    if (message.end === "failed" && !message.content && !message.tool_calls) conversation.messages.pop();
    this.changed(conversation, message.end ?? "ended");
  }
}

/** The request's part that is the conversation's own. Throws where the tools are no JSON. */
export function requestOf(conversation) {
  const messages = conversation.messages.flatMap(wireMessage);
  if (conversation.system.trim()) messages.unshift({ role: "system", content: conversation.system });
  const tools = parseTools(conversation.tools);
  return tools.length ? { messages, tools } : { messages };
}

/** The list that a text of tool definitions holds; one alone needs no list. Throws an error in words. */
export function parseTools(text) {
  if (!text.trim()) return [];
  const value = JSON.parse(text);
  const tools = Array.isArray(value) ? value : [value];
  const wrong = tools.findIndex((tool) => typeof (tool?.function ?? tool)?.name !== "string");
  if (wrong >= 0) throw new Error(`[${wrong}].name: missing`);
  return tools;
}

function wireMessage(message) {
  const { role, content, tool_calls: calls, tool_call_id: id } = message;
  if (role === "tool") return [{ role, tool_call_id: id, content }];
  if (role === "assistant" && calls && !message.skipped) return [{ role, content, tool_calls: calls }];
  return role === "assistant" && !content ? [] : [{ role, content }];
}

function take(message, chunk) {
  const choice = chunk.choices?.[0];
  if (!choice) return;
  message.content += choice.delta.content ?? "";
  for (const part of choice.delta.tool_calls ?? []) {
    message.tool_calls ??= [];
    const call = (message.tool_calls[part.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    call.id ||= part.id ?? "";
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
  if (choice.finish_reason === "length") message.end = "length";
}

/** Counts and times of an answer; seconds. */
class Clock {
  #start = performance.now();
  #first = 0;
  #last = 0;
  usage = null;

  see(chunk) {
    const delta = chunk.choices?.[0]?.delta;
    if (delta?.content || delta?.tool_calls) {
      this.#last = performance.now();
      this.#first ||= this.#last;
    }
    if (!chunk.usage) return;
    const { prompt_tokens: prompt, completion_tokens: completion, prompt_tokens_details: details } = chunk.usage;
    this.usage = { prompt, completion, cached: details?.cached_tokens ?? 0 };
    if (!this.#first) return;
    this.usage.first = (this.#first - this.#start) / 1000;
    // From the question on: an answer that is held back at first, or arrives at once, would seem much faster.
    const seconds = (this.#last - this.#start) / 1000;
    if (seconds > 0) this.usage.rate = completion / seconds; // some browsers' clocks are coarse
  }
}
