// Where nodes stand in the drawing. Pure.

export const BOX = { width: 276, height: 146 };
const GAP = 96;
const ROW_GAP = 70;
// Room for a link's label between two boxes.
const LABEL = 130;
const NARROW = 2 * BOX.width + LABEL;

/** All names: those that are known already as they were, then new ones in the order that steps pass
    through them; those that run nothing come last. */
export function order(view, known = []) {
  const path = view.models.flatMap((model) => model.stages.map((stage) => stage.node));
  const names = view.nodes.map((node) => node.name);
  return [...new Set([...known, ...path, ...names])].filter((name) => names.includes(name));
}

/** The top left corner of each of `count` boxes, and the height of it all, in a drawing so wide.
    Two stand side by side, three and more in a ring, in rows where a ring has no room for them; in a
    narrow drawing one below another. */
export function places(count, width) {
  if (count === 0) return { spots: [], height: 0, width: BOX.width };
  if (width < NARROW) return column(count, width);
  if (count === 1) return { spots: [{ x: (width - BOX.width) / 2, y: 8 }], height: BOX.height + 16, width: BOX.width };
  if (count === 2) return row(width);
  const round = ring(count, width);
  return hasRoom(round.spots) ? round : rows(count, width);
}

function hasRoom(spots) {
  return spots.every((one, index) => spots.slice(index + 1).every((other) => Math.abs(one.x - other.x) >= BOX.width || Math.abs(one.y - other.y) >= BOX.height));
}

/** Every other row runs back, so that the next one is always beside or below. */
function rows(count, width) {
  const perRow = Math.floor((width + LABEL) / (BOX.width + LABEL));
  const step = { x: (width - BOX.width) / (perRow - 1), y: BOX.height + ROW_GAP };
  const spots = Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / perRow);
    const place = index % perRow;
    return { x: (row % 2 ? perRow - 1 - place : place) * step.x, y: 8 + row * step.y };
  });
  return { spots, height: spots.at(-1).y + BOX.height + 8, width: BOX.width };
}

/** Whether a point is behind a box. */
export function isBehind(point, spots, boxWidth) {
  return spots.some((spot) => point.x > spot.x && point.x < spot.x + boxWidth && point.y > spot.y && point.y < spot.y + BOX.height);
}

function column(count, width) {
  const boxWidth = Math.min(340, width - 44);
  const gap = 58;
  const spots = Array.from({ length: count }, (_, index) => ({ x: 0, y: index * (BOX.height + gap) }));
  return { spots, height: count * (BOX.height + gap) - gap, width: boxWidth };
}

function row(width) {
  const x = Math.max(0, (width - 2 * BOX.width - 220) / 2);
  return { spots: [{ x, y: 8 }, { x: width - BOX.width - x, y: 8 }], height: BOX.height + 16, width: BOX.width };
}

function ring(count, width) {
  const radiusY = Math.max(GAP + BOX.height / 2, (BOX.height + 44) / 2 / Math.sin(Math.PI / count) / 1.25);
  // A square stands on its side, anything else on its foot.
  const turn = count === 4 ? -Math.PI * 0.75 : -Math.PI / 2;
  const angles = Array.from({ length: count }, (_, index) => turn + (2 * Math.PI * index) / count);
  // The outermost boxes reach the edges, so that links between them have room.
  const reach = Math.max(...angles.map((angle) => Math.abs(Math.cos(angle))));
  const radiusX = Math.min((width - BOX.width) / 2 / reach, 120 + count * 70);
  const centres = angles.map((angle) => ({ x: width / 2 + radiusX * Math.cos(angle), y: radiusY * Math.sin(angle) }));
  const top = Math.min(...centres.map((centre) => centre.y));
  const spots = centres.map((centre) => ({ x: centre.x - BOX.width / 2, y: centre.y - top + 8 }));
  const height = Math.max(...spots.map((spot) => spot.y)) + BOX.height + 8;
  return { spots, height, width: BOX.width };
}

/** A line between two boxes, from edge to edge, and where its label stands. In a column neighbours
    are joined straight, others around the side. */
export function line(from, to, boxWidth, isColumn) {
  const a = { x: from.x + boxWidth / 2, y: from.y + BOX.height / 2 };
  const b = { x: to.x + boxWidth / 2, y: to.y + BOX.height / 2 };
  const isFar = isColumn && Math.abs(from.y - to.y) > BOX.height * 1.9;
  if (isFar) {
    const x = boxWidth;
    const out = x + 36;
    return { path: `M ${x} ${a.y} C ${out} ${a.y} ${out} ${b.y} ${x} ${b.y}`, label: { x: x + 20, y: (a.y + b.y) / 2 }, isFar };
  }
  const start = edge(a, b, boxWidth);
  const end = edge(b, a, boxWidth);
  return { path: `M ${start.x} ${start.y} L ${end.x} ${end.y}`, label: { x: (start.x + end.x) / 2, y: (start.y + end.y) / 2 }, isFar };
}

function edge(from, to, boxWidth) {
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const scale = Math.min(boxWidth / 2 / Math.max(1e-6, Math.abs(dx)), BOX.height / 2 / Math.max(1e-6, Math.abs(dy)));
  return { x: from.x + dx * scale, y: from.y + dy * scale };
}

/** The hops of the pipelines: pairs "a|b" in the direction in which hidden states travel. */
export function hops(view) {
  const found = new Set();
  for (const model of view.models) {
    for (let index = 1; index < model.stages.length; index += 1) {
      const [from, to] = [model.stages[index - 1], model.stages[index]];
      if (from.replica === to.replica && from.node !== to.node) found.add(`${from.node}|${to.node}`);
    }
  }
  return found;
}
