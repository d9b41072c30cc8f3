// The line on top: how the server is, and the figures of now.

import { byId, el, replace, setText, svg } from "./dom.js";
import { number, watts } from "./format.js";

const GOOD = new Set(["ok"]);
const WARNING = new Set(["starting", "recovering", "loading", "draining", "unloaded"]);
const KEPT_S = 300;
// A view comes each second: after a longer silence nothing is known of the time between.
const GAP_S = 5;
// Times and rates of all views, in pairs.
let rates = [];

/** Keep the rate of a view, drawn or not: a page in the background goes on counting. */
export function keepRate(view) {
  const isNewer = (at) => at < view.at && at > view.at - KEPT_S;
  rates = [...rates.filter(([at]) => isNewer(at)), [view.at, view.tokens_per_s]];
}

/** Show the state and the totals of a view. */
export function showHeader(view) {
  const state = byId("state");
  setText(state, view.doing && view.state !== "ok" ? `${view.state}: ${view.doing}` : view.state);
  state.className = `pill ${GOOD.has(view.state) ? "good" : WARNING.has(view.state) ? "warning" : "bad"}`;
  setText(byId("cluster"), view.cluster_name ?? "");
  setText(byId("version"), `tbcluster ${view.version}`);
  document.title = `${number(view.tokens_per_s)} tok/s · tbcluster`;
  replace(byId("totals"), total("tokens/s", number(view.tokens_per_s)), total("prompt tokens/s", number(view.prompt_tokens_per_s)), total("running", `${view.num_running}`), total("waiting", `${view.num_waiting}`), total(view.is_estimate ? "watts, in part estimated" : "watts", watts(view.watts, view.is_estimate)), total("joules a token", number(view.joules_per_token)));
  drawRates(view.at);
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

function drawRates(now) {
  const most = Math.max(1, ...rates.map(([, rate]) => rate));
  const points = rates.map(([at, rate], index) => {
    const isNext = index > 0 && at - rates[index - 1][0] <= GAP_S;
    return `${isNext ? "L" : "M"} ${(KEPT_S - (now - at)).toFixed(1)} ${(34 - (rate / most) * 32).toFixed(1)}`;
  });
  const base = svg("line", { x1: 0, x2: KEPT_S, y1: 35, y2: 35, class: "base", "vector-effect": "non-scaling-stroke" });
  replace(byId("spark"), base, svg("path", { d: points.join(" "), class: "rate", "vector-effect": "non-scaling-stroke" }));
  setText(byId("spark-caption"), `tokens/s, last 5 minutes, up to ${number(Math.max(...rates.map(([, rate]) => rate)))}`);
}
