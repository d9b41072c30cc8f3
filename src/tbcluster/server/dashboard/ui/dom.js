// Elements without markup: whatever others named goes in as text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a string becomes text, null is left out. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for a drawing. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put these in the place of all that is there. */
export function replace(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child !== null));
}

/** Set text only where it changes: selections and screen readers stay where they are. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const byId = (id) => document.getElementById(id);

/** A bar of parts, each [class, share of the whole]. */
export function bar(parts, label) {
  const track = el("div", { class: "bar", role: "img", "aria-label": label });
  for (const [kind, share] of parts) {
    const part = el("span", { class: kind });
    part.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
    track.append(part);
  }
  return track;
}
