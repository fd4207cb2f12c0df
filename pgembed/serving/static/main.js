// Which view is shown; the status that all of them look at; keys; what is said while the database is away.

import { ask, onTrouble } from "./api.js";
import { compareView } from "./compare.js";
import { fill, h } from "./dom.js";
import { indexView } from "./overview.js";
import { current } from "./route.js";
import { chunkView, moveThroughHits, searchView } from "./search.js";
import { showWork, trainingView } from "./training.js";
import { tripletsView } from "./triplets.js";

const VIEWS = { search: searchView, chunk: chunkView, compare: compareView, triplets: tripletsView, training: trainingView, index: indexView };
const POLL_MS = 3000;

const main = document.getElementById("main");
const trouble = document.getElementById("trouble");
const answering = document.getElementById("answering");
let status = null;

let rendering = 0;

/** Show the view that the address names; `data-shown` says which address it was when all of it is there. */
async function render() {
  const { view, parts, given } = current();
  const [turn, shown] = [++rendering, location.hash];
  main.ariaBusy = "true";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = view === "search" && given.q ? `${given.q} · pgembed` : `${view} · pgembed`;
  try {
    await (VIEWS[view] ?? searchView)(main, given, status, parts);
  } finally {
    if (turn === rendering) {
      main.ariaBusy = null;
      main.dataset.shown = shown;
    }
  }
}

function showStatus() {
  const warm = status.model === "warm";
  answering.className = !status.answering ? "" : warm ? "warm" : ["loading", "cold"].includes(status.model) ? "" : "trouble";
  answering.title = warm ? "" : status.model;
  fill(answering, status.answering ? `generation ${status.answering.id}, ${status.answering.encoder}${warm ? "" : status.model === "loading" ? " (loading)" : status.model === "cold" ? "" : " (no model)"}` : "no generation is active");
  fill(document.getElementById("version"), `pgembed ${status.version}`);
  showWork(status);
}

async function poll() {
  if (!document.hidden) {
    try {
      status = await ask("/api/status");
      showStatus();
    } catch {
      answering.className = "trouble";
    }
  }
  setTimeout(poll, POLL_MS);
}

let wasAway = false;
onTrouble((error) => {
  trouble.hidden = error === null;
  fill(trouble, error && [error.message, error.remedy ? `\n${error.remedy}` : "", "\nThis page goes on by itself when it is back."]);
  if (error === null && wasAway) render();
  wasAway = error !== null;
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const typing = document.activeElement?.matches("input, select, textarea");
  if (event.key === "/" && !typing) {
    const query = document.getElementById("query");
    if (query) {
      event.preventDefault();
      query.focus();
      query.select();
    } else if (!query) location.hash = "#/search";
  } else if (event.key === "Escape" && !typing) {
    if (current().view === "chunk") history.back();
    else document.getElementById("query")?.focus();
  } else if (moveThroughHits(event)) event.preventDefault();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", render);
try {
  status = await ask("/api/status");
  showStatus();
} catch (error) {
  fill(main, h("p", { class: "note" }, "…"));
}
await render();
setTimeout(poll, POLL_MS);
