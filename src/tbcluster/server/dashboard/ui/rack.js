// The rack as it is cabled: a box for each node, a line for each link, the pipeline's way on them.

import { bar, byId, el, replace, svg } from "./dom.js";
import { bytes, layers, linkKind, linkSpeed, NOTHING, percent, roundTrip, watts } from "./format.js";
import { BOX, hops, isBehind, line, order, places } from "./layout.js";

// Nodes stay where they were drawn once a model was placed, whatever later plans do: people remember
// places.
let known = [];
let wasPlaced = false;

const STATES = { online: "online", offline: "lost", refused: "refused", revoked: "revoked" };

/** Draw a view. */
export function drawRack(view) {
  const rack = byId("rack");
  const names = order(view, wasPlaced ? known : []);
  known = names;
  wasPlaced ||= view.models.some((model) => model.stages.length);
  const { spots, height, width } = places(names.length, rack.clientWidth);
  const isColumn = spots.length > 1 && spots.every((spot) => spot.x === spots[0].x);
  const at = new Map(names.map((name, index) => [name, spots[index]]));
  const nodes = new Map(view.nodes.map((node) => [node.name, node]));
  const drawing = svg("svg", { width: rack.clientWidth, height, "aria-hidden": "true" }, marker());
  const labels = [];
  const path = hops(view);
  const isMoving = view.tokens_per_s > 0 || view.prompt_tokens_per_s > 0;
  for (const link of view.links) {
    if (!at.has(link.source) || !at.has(link.target)) continue;
    const [from, to] = path.has(`${link.target}|${link.source}`) ? [link.target, link.source] : [link.source, link.target];
    const drawn = line(at.get(from), at.get(to), width, isColumn);
    const kind = ["link", link.is_up ? "up" : "down", link.is_used && link.is_up ? "used" : "", link.is_used && link.is_up && isMoving ? "moving" : ""];
    const isDirected = path.has(`${from}|${to}`) && link.is_used;
    drawing.append(svg("path", { d: drawn.path, class: kind.join(" "), "marker-end": isDirected ? "url(#arrow)" : null, "data-link": `${link.source}|${link.target}` }));
    if (!isBehind(drawn.label, spots, width)) labels.push(linkLabel(link, drawn));
  }
  const boxes = el("ul", { class: "nodes", "aria-label": "Nodes" }, names.map((name) => placed(nodeBox(nodes.get(name), view), at.get(name), width)));
  rack.style.height = `${height}px`;
  replace(rack, drawing, boxes, labels);
  listLinks(view);
}

function marker() {
  const arrow = svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse", markerUnits: "userSpaceOnUse" });
  arrow.append(svg("path", { d: "M 0 0 L 8 4 L 0 8 z", class: "arrow" }));
  return svg("defs", {}, arrow);
}

function placed(box, spot, width) {
  box.style.left = `${spot.x}px`;
  box.style.top = `${spot.y}px`;
  box.style.width = `${width}px`;
  box.style.height = `${BOX.height}px`;
  return box;
}

function linkLabel(link, drawn) {
  const text = link.is_up ? [linkKind(link), `${linkSpeed(link)} · ${roundTrip(link)}`] : [linkKind(link), "cut"];
  const label = el("div", { class: `link-label ${link.is_up ? "" : "bad"} ${drawn.isFar ? "far" : ""}`, "aria-hidden": "true" }, el("span", {}, text[0]), el("span", {}, text[1]));
  label.style.left = `${drawn.label.x}px`;
  label.style.top = `${drawn.label.y}px`;
  return label;
}

function nodeBox(node, view) {
  const stages = view.models.flatMap((model) => model.stages.filter((stage) => stage.node === node.name));
  const isOnline = node.state === "online";
  const state = node.is_drained ? "drained" : STATES[node.state] ?? node.state;
  const head = el("div", { class: "node-head" }, el("strong", {}, node.name), node.is_head ? el("span", { class: "tag" }, "head") : null, el("span", { class: `pill ${isOnline ? (node.is_drained ? "warning" : "good") : "bad"}` }, state));
  const chip = el("div", { class: "muted small line" }, [node.chip ?? node.system ?? "unknown machine", node.memory_bytes ? bytes(node.memory_bytes) : null].filter(Boolean).join(" · "));
  const box = el("li", { class: `node ${isOnline ? "" : "lost"}`, "data-node": node.name, "data-state": node.state }, head, chip);
  if (isOnline) box.append(memory(node), facts(node));
  else box.append(el("div", { class: "muted small" }, node.seconds_since_heard === null ? "not heard of" : `silent for ${Math.round(node.seconds_since_heard)} s`));
  box.append(el("div", { class: "stages-here" }, stages.map(stageTag)));
  return box;
}

function memory(node) {
  const all = node.memory_bytes;
  if (!all) return el("div", { class: "small muted" }, "memory unknown");
  const ours = node.weight_bytes + node.kv_used_bytes;
  const free = node.available_bytes ?? all - ours;
  const others = Math.max(0, all - ours - free);
  const text = `${bytes(node.weight_bytes)} weights · ${bytes(node.kv_used_bytes)} KV · ${bytes(free)} free`;
  return el("div", { class: "memory" }, bar([["weights", node.weight_bytes / all], ["kv", node.kv_used_bytes / all], ["other", others / all]], `Memory: ${text}`), el("div", { class: "small num line" }, text));
}

function facts(node) {
  const heat = node.temperature_c === null ? null : `${Math.round(node.temperature_c)} °C`;
  const power = node.watts === null ? null : watts(node.watts, node.power_source === "estimate");
  const parts = [`busy ${percent(node.load)}`, node.cpu_load === null ? null : `CPU ${percent(node.cpu_load)}`, power, heat];
  return el("div", { class: "small num line" }, parts.filter(Boolean).join(" · "));
}

function stageTag(stage) {
  const kind = stage.state === "ready" ? "" : stage.state === "dead" ? "bad" : "warning";
  const text = stage.state === "ready" ? layers(stage) : `${layers(stage)} ${stage.state}`;
  return el("span", { class: `tag ${kind}` }, `${stage.index}: ${text}`);
}

function listLinks(view) {
  const rows = view.links.map((link) =>
    el("tr", {}, el("th", { scope: "row" }, `${link.source} – ${link.target}`), el("td", {}, linkKind(link)), el("td", {}, link.is_up ? linkSpeed(link) : NOTHING), el("td", {}, link.is_up ? roundTrip(link) : NOTHING), el("td", {}, !link.is_up ? "cut" : link.is_used ? "up, in use" : "up")),
  );
  replace(byId("links").tBodies[0], rows);
}
