"use strict";

// A heading sorts its table: numbers first from the top, texts from A; what has no value stays last.
for (const button of document.querySelectorAll(".sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const place = head.cellIndex;
    const textual = head.classList.contains("text");
    const before = head.getAttribute("aria-sort");
    const down = before === null ? !textual : before === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.cells[place];
      if (textual) return cell.textContent.trim();
      return "sort" in cell.dataset ? Number(cell.dataset.sort) : Number.NaN;
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (textual) return (down ? -1 : 1) * x.localeCompare(y);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return down ? y - x : x - y;
    };
    body.append(...[...body.rows].sort(compare));
  });
}

const filter = document.getElementById("filter");
if (filter) {
  const origin = document.getElementById("origin");
  const protocol = document.getElementById("protocol");
  const baselines = document.getElementById("baselines");
  const count = document.getElementById("count");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    let rows = 0;
    for (const place of document.querySelectorAll("[data-mixer]")) {
      const baseline = place.classList.contains("baseline");
      const mixer = place.dataset.mixer.toLowerCase();
      const named = baseline || words.length === 0 || words.some((word) => mixer.includes(word));
      const from = baseline || !origin.value || !place.dataset.origin || place.dataset.origin === origin.value;
      place.hidden = !(named && from) || (baseline && !baselines.checked);
      rows += !place.hidden && !baseline && place.matches(".board > .scroll tr") ? 1 : 0;
    }
    for (const section of document.querySelectorAll("section[data-protocol]")) {
      section.hidden = protocol.value !== "" && section.dataset.protocol !== protocol.value;
    }
    for (const drawn of document.querySelectorAll(".board figure [data-name]")) {
      if (drawn.closest(".run")) continue; // its curves are training and validation of one mixer
      const name = drawn.dataset.name.toLowerCase();
      drawn.classList.toggle("faded", words.length > 0 && !words.some((word) => name.includes(word)));
    }
    count.textContent = words.length ? `${rows} rows` : "";
  };
  for (const control of [filter, origin, protocol, baselines]) control.addEventListener("input", apply);
  filter.form.addEventListener("submit", (event) => event.preventDefault());

  // A mixer of the key stands out alone in the charts of its section, with others that are picked too.
  for (const button of document.querySelectorAll(".pick")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
      const section = button.closest("section");
      const picked = [...section.querySelectorAll('.pick[aria-pressed="true"]')].map((b) => b.dataset.name);
      for (const drawn of section.querySelectorAll("figure [data-name]")) {
        const shown = picked.some((name) => drawn.dataset.name === name || drawn.dataset.name.startsWith(`${name},`));
        drawn.classList.toggle("faded", picked.length > 0 && !shown);
      }
    });
  }

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });
}

// A link to a run opens it.
const open = () => {
  const place = /^#run-\d+$/.test(location.hash) ? document.getElementById(location.hash.slice(1)) : null;
  if (place) {
    place.hidden = false;
    place.open = true;
    place.scrollIntoView();
  }
};
addEventListener("hashchange", open);
open();
