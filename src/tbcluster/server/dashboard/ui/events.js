// What happened, newest first. Only new ones are put in, so that they are read out once.

import { byId, el } from "./dom.js";
import { clock } from "./format.js";

const MARKS = { good: "✓", info: "i", warning: "!", bad: "✕" };
const MOST = 100;
let last = 0;

/** Show the events of a view. */
export function showEvents(view) {
  const list = byId("events");
  if (view.events.length && view.events[view.events.length - 1].number < last) {
    // The server was started anew and counts from one.
    list.replaceChildren();
    last = 0;
  }
  for (const event of view.events) {
    if (event.number <= last) continue;
    last = event.number;
    list.prepend(row(event));
  }
  while (list.children.length > MOST) list.lastElementChild.remove();
}

function row(event) {
  const mark = el("span", { class: `mark ${event.level}`, "aria-hidden": "true" }, MARKS[event.level] ?? "·");
  return el("li", { "data-kind": event.kind }, el("time", { class: "num muted", datetime: new Date(event.at * 1000).toISOString() }, clock(event.at)), mark, el("span", {}, event.text));
}
