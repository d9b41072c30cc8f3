// What goes where, and why.

import { bar, byId, el, replace } from "./dom.js";
import { bytes, layers, ms, number } from "./format.js";

let shown = "";

/** Show the plans of all models; they change seldom. */
export function showPlan(view) {
  const plans = view.models.map((model) => [model.name, model.plan]);
  const now = JSON.stringify(plans);
  if (now === shown) return;
  shown = now;
  const known = plans.filter(([, plan]) => plan);
  const none = el("p", { class: "muted" }, "There is no plan: on one machine every stage runs here.");
  replace(byId("plan"), known.length ? known.map(([name, plan]) => planOf(name, plan)) : none);
}

function planOf(name, plan) {
  const facts = `${number(plan.tokens_per_s)} tokens/s with ${plan.streams} ${plan.streams === 1 ? "stream" : "streams"}, ${number(plan.stream_tokens_per_s)} for one alone, prompts at ${number(plan.prefill_tokens_per_s)} tokens/s, ${plan.context.toLocaleString("en-US")} tokens of context each`;
  return el(
    "div",
    { class: "model" },
    el("h3", {}, name),
    el("p", { class: "num" }, `Predicted: ${facts}`),
    el("ul", { class: "planned" }, plan.stages.map(planned)),
    plan.reasons.length ? el("details", { open: true }, el("summary", {}, "Why"), el("ul", { class: "reasons" }, plan.reasons.map((reason) => el("li", {}, reason)))) : null,
    plan.left_out.length ? el("details", { open: true }, el("summary", {}, "Left out"), el("ul", { class: "reasons" }, plan.left_out.map(([node, why]) => el("li", {}, el("strong", {}, node), `: ${why}`)))) : null,
  );
}

function planned(stage) {
  const all = stage.memory_bytes || stage.weight_bytes + stage.kv_bytes + stage.activation_bytes + stage.reserve_bytes;
  const parts = [["weights", stage.weight_bytes / all], ["kv", stage.kv_bytes / all], ["activations", stage.activation_bytes / all], ["other", stage.reserve_bytes / all]];
  const text = `${bytes(stage.weight_bytes)} weights · ${bytes(stage.kv_bytes)} KV · ${bytes(stage.activation_bytes)} activations · ${bytes(stage.reserve_bytes)} for the system, of ${bytes(all)}`;
  const times = `${ms(stage.decode_ms)} a step${stage.hop_ms ? `, ${ms(stage.hop_ms)} on the way on` : ""}`;
  return el("li", {}, el("div", { class: "planned-head" }, el("strong", {}, stage.node), el("span", {}, layers(stage)), el("span", { class: "muted num" }, times)), bar(parts, text), el("div", { class: "small num" }, text));
}
