// Light, dark, or as the system has it; remembered.

import { byId } from "./dom.js";

const NAME = "tbcluster-theme";
const ORDER = ["auto", "light", "dark"];

function apply(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
}

/** Apply what was chosen, and let it be chosen. */
export function startTheme() {
  let theme = localStorage.getItem(NAME);
  if (!ORDER.includes(theme)) theme = "auto";
  apply(theme);
  byId("theme").addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    localStorage.setItem(NAME, theme);
    apply(theme);
  });
}
