// The line on top: how the server is, and the figures of now.

import { byId, el, replace, setText, svg } from "./dom.js";
import { number, watts } from "./format.js";

const GOOD = new Set(["ok"]);
const WARNING = new Set(["starting", "recovering", "loading", "draining", "unloaded"]);
const KEPT = 300;
const rates = [];

/** Show the state and the totals of a view. */
export function showHeader(view) {
  const state = byId("state");
  setText(state, view.doing && view.state !== "ok" ? `${view.state}: ${view.doing}` : view.state);
  state.className = `pill ${GOOD.has(view.state) ? "good" : WARNING.has(view.state) ? "warning" : "bad"}`;
  setText(byId("cluster"), view.cluster_name ?? "");
  setText(byId("version"), `tbcluster ${view.version}`);
  document.title = `${number(view.tokens_per_s)} tok/s · tbcluster`;
  replace(byId("totals"), total("tokens/s", number(view.tokens_per_s)), total("prompt tokens/s", number(view.prompt_tokens_per_s)), total("running", `${view.num_running}`), total("waiting", `${view.num_waiting}`), total(view.is_estimate ? "watts, in part estimated" : "watts", watts(view.watts, view.is_estimate)), total("joules a token", number(view.joules_per_token)));
  drawRates(view.tokens_per_s);
}

/** The server is out of reach. */
export function showLost() {
  const state = byId("state");
  setText(state, "no connection");
  state.className = "pill bad";
}

function total(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", { class: "num" }, value));
}

function drawRates(rate) {
  rates.push(rate);
  if (rates.length > KEPT) rates.shift();
  const most = Math.max(1, ...rates);
  const points = rates.map((value, index) => `${KEPT - rates.length + index},${(34 - (value / most) * 32).toFixed(1)}`);
  const base = svg("line", { x1: 0, x2: KEPT, y1: 35, y2: 35, class: "base", "vector-effect": "non-scaling-stroke" });
  replace(byId("spark"), base, svg("polyline", { points: points.join(" "), class: "rate", "vector-effect": "non-scaling-stroke" }));
  setText(byId("spark-caption"), `tokens/s, last 5 minutes, up to ${number(Math.max(...rates))}`);
}
