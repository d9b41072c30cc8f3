// What each stage did in the last second, and how far one is that loads.

import { bar, byId, el, replace } from "./dom.js";
import { bytes, layers, ms, number, percent } from "./format.js";

const COLUMNS = ["Stage", "Node", "Layers", "State", "Compute", "Wire", "Wait", "A step", "Busy", "KV"];

/** Show the stages of all models. A table stays what it is as long as its model is there: whoever
    has scrolled it or stands in it by keyboard stays there. */
export function showStages(view) {
  const place = byId("stages");
  const names = JSON.stringify(view.models.map((model) => model.name));
  if (place.dataset.models !== names) {
    place.dataset.models = names;
    replace(place, view.models.length ? view.models.map(modelSection) : el("p", { class: "muted" }, "No model is loaded."));
  }
  view.models.forEach((model, index) => fillSection(place.children[index], model));
}

function modelSection(model) {
  const table = el("table", {}, el("thead", {}, el("tr", {}, COLUMNS.map((name) => el("th", { scope: "col" }, name)))), el("tbody"));
  return el("div", { class: "model" }, el("div", { class: "about" }), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Stages of ${model.name}` }, table));
}

function fillSection(section, model) {
  const title = el("h3", {}, model.name, " ", el("span", { class: `pill ${tone(model.state)}` }, model.state));
  const facts = [`${number(model.tokens_per_s)} tokens/s`, `${model.num_running} running`, `${model.num_waiting} waiting`, model.step_ms === null ? null : `a step takes ${ms(model.step_ms)}, ${ms(model.wire_ms)} of it on the way`, model.num_recoveries ? `recovered ${model.num_recoveries} times, last in ${number(model.last_recovery_s)} s` : null];
  const longest = Math.max(1e-9, ...model.stages.map((stage) => (stage.compute_ms ?? 0) + (stage.wire_ms ?? 0) + (stage.wait_ms ?? 0)));
  const replicas = new Set(model.stages.map((stage) => stage.replica)).size;
  replace(section.querySelector(".about"), title, el("p", { class: "muted num" }, facts.filter(Boolean).join(" · ")), progress(model), model.error ? el("p", { class: "bad" }, model.error) : null);
  replace(section.querySelector("tbody"), model.stages.map((stage) => stageRow(stage, longest, replicas)));
}

const tone = (state) => ({ ready: "good", starting: "warning", recovering: "warning" })[state] ?? "bad";

function progress(model) {
  const total = model.stages.reduce((sum, stage) => sum + stage.total_bytes, 0);
  const done = model.stages.reduce((sum, stage) => sum + stage.loaded_bytes, 0);
  if (model.state === "ready" || (!model.doing && !total)) return null;
  const words = [model.doing, total ? `${bytes(done)} of ${bytes(total)}` : null].filter(Boolean).join(": ");
  return el("div", { class: "progress" }, total ? bar([["weights", done / total]], words) : null, el("p", { class: "small" }, words));
}

function stageRow(stage, longest, replicas) {
  const name = replicas > 1 ? `${stage.index} (replica ${stage.replica + 1})` : `${stage.index}`;
  const parts = [["compute", (stage.compute_ms ?? 0) / longest], ["wire", (stage.wire_ms ?? 0) / longest], ["wait", (stage.wait_ms ?? 0) / longest]];
  const state = stage.state === "ready" || !stage.total_bytes ? stage.state : `${stage.state} ${percent(stage.loaded_bytes / stage.total_bytes)}`;
  const told = `compute ${ms(stage.compute_ms)}, wire ${ms(stage.wire_ms)}, wait ${ms(stage.wait_ms)}`;
  const kind = stage.state === "ready" ? "" : stage.state === "dead" ? "bad" : "warning";
  return el(
    "tr",
    { "data-stage": stage.index, "data-state": stage.state },
    el("th", { scope: "row" }, name),
    el("td", {}, stage.node),
    el("td", {}, layers(stage).replace(/^layers? /, "")),
    el("td", { class: kind }, state, stage.num_restarts ? el("span", { class: "muted" }, ` (restarted ${stage.num_restarts}×)`) : null),
    el("td", { class: "num" }, ms(stage.compute_ms)),
    el("td", { class: "num" }, ms(stage.wire_ms)),
    el("td", { class: "num" }, ms(stage.wait_ms)),
    el("td", { class: "wide" }, bar(parts, told)),
    el("td", { class: "num" }, percent(stage.load)),
    el("td", { class: "num" }, `${bytes(stage.kv_used_bytes)} of ${bytes(stage.kv_budget_bytes)}`),
  );
}
