// Puts the page together.

import { useKey, whenKeyNeeded } from "./api.js";
import { showModels, startChat } from "./chat.js";
import { byId } from "./dom.js";
import { showEvents } from "./events.js";
import { keepRate, showHeader, showLost } from "./header.js";
import { Live } from "./live.js";
import { showPlan } from "./plan.js";
import { drawRack } from "./rack.js";
import { showStages } from "./stages.js";
import { startTheme } from "./theme.js";

let view = null;

function show(now) {
  view = now;
  keepRate(view);
  // A page that nobody sees draws nothing.
  if (document.hidden) return;
  showHeader(view);
  drawRack(view);
  showStages(view);
  showEvents(view);
  showPlan(view);
  showModels(view);
}

function told(state, why) {
  const notice = byId("notice");
  notice.hidden = state !== "lost";
  byId("key-form").hidden = state !== "key";
  if (state === "key") byId("key").focus();
  if (state !== "lost") return;
  showLost();
  notice.textContent = `The server does not answer (${why}). What is shown is old; it is asked again and again.`;
}

const live = new Live(show, told);

whenKeyNeeded((wasWrong) => {
  byId("key-form").hidden = false;
  byId("key-form").querySelector("label").textContent = wasWrong ? "The server does not know this API key. Another one:" : "This server asks for an API key.";
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  byId("key").value = "";
  live.open();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && view) show(view);
});
new ResizeObserver(() => view && drawRack(view)).observe(byId("rack-section"));
startTheme();
startChat();
live.open();
