// Two generations side by side on one query.

import { ask } from "./api.js";
import { fill, h, problem, select } from "./dom.js";
import { hitItem } from "./hit.js";
import { go } from "./route.js";
import { filterFields, values } from "./search.js";

const SEARCHABLE = ["ready", "active", "retired"];

export async function compareView(main, given, status) {
  fill(main, h("h1", {}, "Compare"), h("p", { class: "lead" }, "What two generations find for the same query: how far each hit moved, and what only one of them finds."));
  let generations;
  try {
    generations = (await ask("/api/generations")).generations.filter((row) => SEARCHABLE.includes(row.state));
  } catch (error) {
    main.append(problem(error));
    return;
  }
  if (generations.length < 2) {
    main.append(h("div", { class: "notice" }, h("p", {}, `There ${generations.length ? "is one generation" : "is no generation"} that can be searched; a comparison needs two. `,
      h("code", {}, "pgembed reindex"), " makes one of another model.")));
    return;
  }
  const names = generations.map((row) => [row.id, `${row.id}: ${row.encoder}${row.state === "active" ? " (active)" : ""}`]);
  const active = status?.answering?.id ?? generations.at(-1).id;
  const other = generations.filter((row) => row.id !== active).at(-1).id;
  const form = h("form", { role: "search", "aria-label": "Comparison", on: { submit: (event) => { event.preventDefault(); go("compare", values(form)); } } },
    h("div", { class: "query" }, h("input", { id: "query", name: "q", type: "search", value: given.q ?? "", "aria-label": "Query for both generations", placeholder: "What should the code do?", autocomplete: "off", spellcheck: "false" }),
      h("button", { class: "primary", type: "submit" }, "Compare")),
    h("div", { class: "filters" }, select("a", "Left", names, given.a ?? other), select("b", "Right", names, given.b ?? active),
      select("mode", "Search by", [["vector", "meaning"], ["hybrid", "meaning and words"]], given.mode), ...filterFields(status, given)));
  const results = h("section", { "aria-label": "Both results", "aria-live": "polite" });
  main.append(form, results);
  if (!given.q) {
    form.querySelector("#query").focus();
    return;
  }
  fill(results, h("p", { class: "note" }, "Searching …"));
  try {
    const asked = { k: 10, a: other, b: active, ...given };
    const found = await ask("/api/compare", { ...asked, view: "page" });
    fill(results, h("p", { class: "summary" }, `${found.shared} of ${Math.max(found.a.found.hits.length, found.b.found.hits.length)} hits are on both sides`),
      h("div", { class: "columns" }, side(found.a, asked), side(found.b, asked)));
  } catch (error) {
    fill(results, problem(error));
  }
}

function side({ found, ranks_there: there }, asked) {
  return h("section", {}, h("h3", {}, `Generation ${found.generation.id}: ${found.generation.encoder}`),
    h("ol", { class: "hits" }, found.hits.map((hit, n) =>
      hitItem(hit, { ...found.excerpts[n], lines: found.excerpts[n].lines.slice(0, 5), more_lines: 0 }, { ...asked, generation: found.generation.id }, { extra: move(hit.rank, there[n]), compact: true }))));
}

function move(here, there) {
  if (there === null) return h("span", { class: "move only", title: "only on this side" }, "only here");
  if (there === here) return h("span", { class: "move", title: "the same rank on both sides" }, "=");
  return h("span", { class: here < there ? "move up" : "move", title: `rank ${there} on the other side` }, here < there ? `▲ ${there - here}` : `▼ ${here - there}`);
}
