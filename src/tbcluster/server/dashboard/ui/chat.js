// A chat that streams. The conversation lives in this page and nowhere else.

import { ask, events, KeyNeeded, refusal } from "./api.js";
import { byId, el, replace } from "./dom.js";
import { NOTHING, number } from "./format.js";

let conversation = [];
let abort = null;

/** Make the box work. */
export function startChat() {
  const message = byId("message");
  byId("chat-form").addEventListener("submit", (event) => {
    event.preventDefault();
    send(message);
  });
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send(message);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") stop();
  });
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", () => {
    stop();
    conversation = [];
    byId("log").replaceChildren();
    message.focus();
  });
}

/** Offer the models of a view. */
export function showModels(view) {
  const select = byId("model");
  const loaded = new Set(view.models.map((model) => model.name));
  const names = [...new Set([...view.models.map((model) => model.name), ...view.loadable])];
  const now = JSON.stringify([names, [...loaded]]);
  if (select.dataset.names === now) return;
  const chosen = select.value || view.default_model;
  replace(select, names.map((name) => el("option", { value: name, selected: name === chosen }, loaded.has(name) ? name : `${name} (not loaded)`)));
  select.dataset.names = now;
  byId("send").disabled = !names.length;
}

function stop() {
  abort?.abort();
}

function send(message) {
  const text = message.value.trim();
  // Before the first view, or where there is no model, nobody can be asked: what was typed stays.
  if (!text || abort || !byId("model").value) return;
  message.value = "";
  conversation.push({ role: "user", content: text });
  byId("log").append(entry("user", "You", text));
  answer(conversation);
}

/** Of the conversation it was asked in, which may have been left for a new one when it ends. */
async function answer(asked) {
  abort = new AbortController();
  show(true);
  const said = new Said();
  byId("log").append(said.element);
  scroll(true);
  try {
    await stream(said, asked, abort.signal);
    said.end("");
  } catch (error) {
    if (error instanceof KeyNeeded) said.end("an API key is needed: enter it above", true);
    else if (error.name === "AbortError") said.end("stopped");
    else said.end(error.message, true);
  }
  // What was asked in vain is not asked again with the next message.
  if (said.text) asked.push({ role: "assistant", content: said.text });
  else asked.pop();
  abort = null;
  show(false);
  byId("message").focus();
}

async function stream(said, asked, signal) {
  const body = { model: byId("model").value || undefined, messages: asked, stream: true, stream_options: { include_usage: true } };
  const got = await ask("v1/chat/completions", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  said.requestId = got.headers.get("x-request-id");
  if (!got.ok) throw new Error(await refusal(got));
  for await (const data of events(got)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    said.take(chunk);
  }
}

/** An answer as it grows. */
class Said {
  constructor() {
    this.text = "";
    this.requestId = null;
    this.usage = null;
    this.finish = null;
    this.askedAt = performance.now();
    this.firstAt = null;
    this.body = el("div", { class: "text" });
    this.reasoning = el("div", { class: "text muted" });
    this.thought = el("details", { hidden: true }, el("summary", {}, "Reasoning"), this.reasoning);
    this.speed = el("p", { class: "small muted num speed" }, "waiting for the first token");
    this.element = el("article", { class: "entry assistant", "aria-busy": "true" }, el("h3", {}, byId("model").value || "Answer"), this.thought, this.body, this.speed);
  }

  take(chunk) {
    const wasAtEnd = isAtEnd();
    if (chunk.usage) this.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    const reasoning = choice?.delta?.reasoning_content ?? choice?.delta?.reasoning;
    if (choice?.finish_reason) this.finish = choice.finish_reason;
    if (this.firstAt === null && (choice?.delta?.content || reasoning)) {
      this.firstAt = performance.now();
      this.speed.textContent = `first token after ${number((this.firstAt - this.askedAt) / 1000)} s`;
    }
    if (reasoning) {
      this.thought.hidden = false;
      this.reasoning.append(reasoning);
    }
    if (choice?.delta?.content) {
      this.text += choice.delta.content;
      this.body.append(choice.delta.content);
    }
    scroll(wasAtEnd);
  }

  end(why, isError = false) {
    const wasAtEnd = isAtEnd();
    this.element.removeAttribute("aria-busy");
    replace(this.body, blocks(this.text));
    if (why) this.element.append(el("p", { class: isError ? "bad" : "muted" }, why));
    this.speed.textContent = this.words();
    scroll(wasAtEnd);
  }

  words() {
    const seconds = this.firstAt === null ? null : (performance.now() - this.firstAt) / 1000;
    const tokens = this.usage?.completion_tokens ?? null;
    const energy = this.usage?.energy;
    const parts = [
      tokens > 1 && seconds > 0 ? `${number((tokens - 1) / seconds)} tokens/s` : null,
      this.firstAt === null ? null : `first token ${number((this.firstAt - this.askedAt) / 1000)} s`,
      tokens === null ? null : `${tokens} tokens`,
      energy ? `${energy.source === "estimate" ? "~" : ""}${number(energy.joules)} J, ${number(energy.joules_per_token)} a token` : null,
      this.finish === "length" ? "cut at its limit" : null,
      this.requestId ? `request ${this.requestId}` : null,
    ];
    return parts.filter(Boolean).join(" · ") || NOTHING;
  }
}

function entry(kind, name, text) {
  return el("article", { class: `entry ${kind}` }, el("h3", {}, name), el("div", { class: "text" }, blocks(text)));
}

/** Text with its fenced blocks of code set as such. */
function blocks(text) {
  // A fence is a line of its own: with another backtick on it, it is code within a line.
  return text.split(/^```[^`\n]*$\n?/m).map((part, index) => (index % 2 ? el("pre", { tabindex: "0" }, el("code", {}, part)) : part));
}

function show(isRunning) {
  byId("send").hidden = isRunning;
  byId("stop").hidden = !isRunning;
}

function isAtEnd() {
  const log = byId("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
}

function scroll(wanted) {
  const log = byId("log");
  if (wanted) log.scrollTop = log.scrollHeight;
}
