"use strict";

// A heading sorts the rows of each group of its table: numbers first from the top, texts from A; no value is last.
function sort(head) {
  const textual = head.classList.contains("text");
  const before = head.getAttribute("aria-sort");
  const down = before === null ? !textual : before === "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => {
    const cell = row.cells[head.cellIndex];
    if (textual) return cell.textContent.trim();
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : Number.NaN;
  };
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (textual) return (down ? -1 : 1) * x.localeCompare(y);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return down ? y - x : x - y;
  };
  for (const body of head.closest("table").tBodies) {
    for (const opened of body.querySelectorAll(".opened")) opened.remove();
    body.append(...[...body.querySelectorAll("tr[data-mixer]")].sort(compare));
  }
}

// The mixer whose name is selected stands out in all charts; selecting it again ends that.
function pick(button) {
  const name = button.getAttribute("aria-pressed") === "true" ? null : button.dataset.name;
  for (const other of document.querySelectorAll(".pick")) {
    other.setAttribute("aria-pressed", String(other.dataset.name === name));
  }
  for (const drawn of document.querySelectorAll(".board svg [data-name]")) {
    drawn.classList.toggle("picked", drawn.dataset.name === name);
    if (drawn.dataset.name === name) drawn.parentElement.append(drawn); // in front of the others
  }
}

// A link to a run shows it below its row, and hides it when it is followed again.
function show(link) {
  const row = link.closest("tr");
  const opened = row.nextElementSibling?.matches(".opened") ? row.nextElementSibling : null;
  opened?.remove();
  if (opened?.dataset.run === link.hash) return;
  const place = document.createElement("tr");
  const cell = place.insertCell();
  cell.colSpan = row.cells.length;
  place.className = "opened";
  place.dataset.run = link.hash;
  cell.append(document.getElementById(link.hash.slice(1)).cloneNode(true));
  cell.firstChild.removeAttribute("id");
  row.after(place);
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("button, td a, th a");
  if (target?.matches(".sort")) sort(target.closest("th"));
  if (target?.matches(".pick")) pick(target);
  if (target?.matches("a")) {
    event.preventDefault();
    show(target);
  }
  if (target?.id === "theme") {
    const root = document.documentElement;
    const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  }
});

const form = document.querySelector(".filters");
form?.addEventListener("submit", (event) => event.preventDefault());
form?.addEventListener("input", () => {
  const { mixer, origin, protocol, baselines } = form.elements;
  const words = mixer.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  for (const opened of document.querySelectorAll(".opened")) opened.remove();
  for (const place of document.querySelectorAll("[data-mixer]")) {
    if (place.closest(".baseline, .published")) continue;
    const name = place.dataset.mixer.toLowerCase();
    const named = words.length === 0 || words.some((word) => name.includes(word));
    const from = !origin?.value || !place.dataset.origin || place.dataset.origin === origin.value;
    place.hidden = !(named && from);
  }
  for (const group of document.querySelectorAll("tbody.baseline")) group.hidden = !baselines.checked;
  for (const section of document.querySelectorAll("section[data-protocol]")) {
    section.hidden = Boolean(protocol?.value) && section.dataset.protocol !== protocol.value;
    if (protocol?.value && !section.hidden) section.closest("details")?.setAttribute("open", "");
  }
});
