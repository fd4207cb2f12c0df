// The search, and a chunk by itself.

import { ask } from "./api.js";
import { about, code, name, place } from "./code.js";
import { count, figure, fill, h, problem, select } from "./dom.js";
import { hitItem, neighbours } from "./hit.js";
import { go } from "./route.js";

const PAGE = 25;
const LINE_OF_A_FILE = /^\S+\.\w+:\d+$/; // src/shop/cart.py:42
export const MODES = [["hybrid", "meaning and words"], ["vector", "meaning"], ["lexical", "words"]];

/** Return the fields that narrow a search. */
export function filterFields(status, given) {
  const any = (values) => [["", "any"], ...values.map((value) => [value, value])];
  const filters = status?.filters ?? { languages: [], kinds: [], sources: [] };
  return [
    select("language", "Language", any(filters.languages), given.language),
    select("kind", "Kind", any(filters.kinds), given.kind),
    select("source", "Source", any(filters.sources), given.source),
    h("div", { class: "wide" }, h("label", { for: "f-path" }, "Path"),
      h("input", { id: "f-path", name: "path", type: "text", value: given.path ?? "", placeholder: "src/auth or */tests/*", spellcheck: "false", autocomplete: "off" })),
  ];
}

/** Return what a form holds. */
export function values(form) {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
}

export async function searchView(main, given, status) {
  const mode = given.mode ?? (status && !status.answering ? "lexical" : "hybrid");
  const form = h("form", { role: "search", "aria-label": "Code", on: { submit: (event) => { event.preventDefault(); go("search", values(form)); } } },
    h("div", { class: "query" },
      h("input", { id: "query", name: "q", type: "search", value: given.q ?? "", "aria-label": "What you look for, in words or as code, or a line of a file to find what is like it",
        placeholder: "What should the code do? Or file.py:42, for what is like it", autocomplete: "off", spellcheck: "false", maxlength: "8000" }),
      h("button", { class: "primary", type: "submit" }, "Search")),
    h("div", { class: "filters" },
      select("mode", "Search by", MODES, mode), ...filterFields(status, given),
      h("div", {}, h("label", { for: "f-k" }, "Hits"),
        h("input", { id: "f-k", name: "k", type: "number", min: "1", value: given.k ?? "10" }))));
  for (const field of form.querySelectorAll("select")) {
    field.addEventListener("change", () => { if (values(form).q) form.requestSubmit(); });
  }
  const results = h("section", { "aria-label": "Hits", "aria-live": "polite" });
  fill(main, h("h1", { class: "skip" }, "Search"), form, results);
  if (!given.q) {
    form.querySelector("#query").focus();
    if (status) fill(results, beginning(status));
    return;
  }
  const asked = { ...given, mode, k: given.k || 10 };
  fill(results, h("p", { class: "note" }, "Searching …"));
  try {
    const byExample = mode !== "lexical" && LINE_OF_A_FILE.test(given.q);
    const { q, mode: _, ...limits } = asked;
    const found = byExample ? await ask("/api/like", { ...limits, place: q, view: "page" }) : await ask("/api/search", { ...asked, view: "page" });
    if (!form.isConnected) return;
    showHits(results, found, byExample ? limits : asked);
  } catch (error) {
    fill(results, problem(error));
  }
}

function showHits(results, found, asked) {
  const took = Object.entries(found.milliseconds ?? {}).map(([part, value]) => `${part} ${figure(value, 0)} ms`).join(", ");
  const from = found.generation ? `generation ${found.generation.id} (${found.generation.encoder})` : "by words alone";
  const list = h("ol", { class: "hits" });
  const more = h("div", { class: "pages" });
  let shown = 0;
  function next() {
    const until = Math.min(shown + PAGE, found.hits.length);
    for (; shown < until; shown += 1) list.append(hitItem(found.hits[shown], found.excerpts[shown], asked));
    fill(more, shown < found.hits.length && h("button", { type: "button", on: { click: next } }, `Show ${Math.min(PAGE, found.hits.length - shown)} more of ${count(found.hits.length)}`));
  }
  next();
  fill(results,
    h("div", { class: "summary" }, h("span", {}, `${count(found.hits.length)} hit${found.hits.length === 1 ? "" : "s"}, ${from}`,
      found.example && [", like ", h("a", { href: `#/chunk/${found.example.chunk_id}` }, name(found.example), " ", place(found.example))]), h("span", {}, took)),
    found.notes.map((note) => h("p", { class: "notice" }, note)), list, more,
    !found.hits.length && h("p", { class: "notice" }, found.generation ? "No chunk passes these filters." : "No chunk has these words."));
}

function beginning(status) {
  if (!status.counts.chunks) {
    return h("div", { class: "notice" }, h("h2", {}, "There is no code in this database yet"),
      h("p", {}, "Put some in: ", h("code", {}, "pgembed ingest ~/src/shop"), ", or see all of it at work: ", h("code", {}, "pgembed quickstart"), "."));
  }
  const words = `${count(status.counts.chunks)} pieces of code in ${count(status.counts.files)} files of ${count(status.counts.sources)} source${status.counts.sources === 1 ? "" : "s"}.`;
  return h("div", {}, h("p", { class: "note" }, words),
    !status.answering && h("div", { class: "notice" }, h("p", {}, "No generation of vectors is active, so code is found by its words alone. Embed it: ", h("code", {}, "pgembed reindex --activate"), ".")));
}

export async function chunkView(main, given, _status, [id]) {
  fill(main, h("p", { class: "note" }, "…"));
  try {
    const [chunk, near] = await Promise.all([ask(`/api/chunks/${id}`), ask(`/api/hits/${id}/neighbours`, { k: 12 })]);
    const first = chunk.places[0] ?? {};
    const at = { ...chunk, ...first };
    fill(main,
      h("p", { class: "note" }, h("button", { class: "quiet", type: "button", on: { click: () => history.back() } }, "← Back")),
      h("h1", {}, name(at)), h("p", { class: "lead" }, h("span", { class: "mono" }, place(at)), " · ", about({ ...at, locations: chunk.locations }),
        ` · ${count(chunk.line_count)} lines, ${count(chunk.token_count)} distinct tokens`),
      h("div", { class: "hit" }, code(chunk.shown)),
      h("div", { class: "panel alone" }, neighbours(near)),
      chunk.places.length > 1 && [h("h2", {}, "Where it stands"),
        h("ul", { class: "near" }, chunk.places.map((spot) => h("li", {}, h("span", { class: "soft" }, spot.source), h("span", { class: "mono" }, place(spot))))),
        chunk.locations > chunk.places.length && h("p", { class: "note" }, `and ${count(chunk.locations - chunk.places.length)} more`)]);
    main.focus();
  } catch (error) {
    fill(main, problem(error));
  }
}

/** Move through the hits by key. Returns whether the key was one of ours. */
export function moveThroughHits(event) {
  if (document.getElementById("main").ariaBusy) return false; // these hits are about to go
  const items = [...document.querySelectorAll("main .hits > .hit")];
  const at = items.indexOf(document.activeElement);
  const typing = document.activeElement?.matches("input, select, textarea");
  const query = document.getElementById("query");
  const down = event.key === "ArrowDown" || (event.key === "j" && !typing);
  const up = event.key === "ArrowUp" || (event.key === "k" && !typing);
  if (typing && !(document.activeElement === query && event.key === "ArrowDown")) return false;
  if (!(down || up) || !items.length || (at < 0 && document.activeElement?.closest(".code"))) return false;
  if (up && at === 0 && query) query.focus();
  else (items[Math.min(items.length - 1, Math.max(0, at + (down ? 1 : -1)))] ?? items[0]).focus();
  return true;
}

