// A hit: its place, its code, and what opens below it: the reason for its score, and its neighbours.

import { ask } from "./api.js";
import { about, code, name, place } from "./code.js";
import { figure, fill, h, problem } from "./dom.js";

let serial = 0;

/** Return the list item of a hit. `asked` are the parameters of its search; without `q` nothing is explained. */
export function hitItem(hit, shown, asked, { extra = null, compact = false } = {}) {
  const id = `hit-${(serial += 1)}`;
  const body = h("div", {}, code(shown, { label: `Code of ${name(hit)}` }));
  const panel = h("div", { class: "panel", id: `${id}-panel`, hidden: true });
  const open = h("button", { class: "quiet", type: "button", "aria-expanded": "false", "aria-controls": `${id}-panel`,
    on: { click: () => toggle() } }, asked.q ? "Why, and what is near" : "What is near");
  const whole = shown.more_lines > 0 || shown.first_line !== (hit.start_line ?? 1)
    ? h("button", { class: "quiet", type: "button", on: { click: showWhole } }, "All of it") : null;

  async function toggle() {
    const opened = panel.hidden;
    panel.hidden = !opened;
    open.setAttribute("aria-expanded", String(opened));
    if (opened && !panel.childNodes.length) await load();
  }
  async function load() {
    fill(panel, h("p", { class: "note" }, "…"));
    const of = { generation: asked.generation };
    const [why, near] = await Promise.all([
      asked.q ? ask("/api/explain", { ...asked, chunk: hit.chunk_id, view: "" }).then(reason, problem) : null,
      ask(`/api/hits/${hit.chunk_id}/neighbours`, { ...of, k: 8 }).then(neighbours, problem),
    ]);
    fill(panel, why, near);
  }
  async function showWhole() {
    try {
      const found = await ask(`/api/chunks/${hit.chunk_id}`);
      fill(body, code({ ...found.shown, first_line: hit.start_line ?? 1 }));
      whole.remove();
    } catch (error) {
      fill(panel, problem(error));
      panel.hidden = false;
    }
  }

  const item = h("li", { class: "hit", tabindex: "0", "aria-label": `${hit.rank}: ${name(hit)}`, data: { chunk: hit.chunk_id } },
    h("div", { class: "head" },
      h("span", { class: "rank" }, hit.rank),
      h("span", { class: "symbol" }, name(hit)),
      h("span", { class: "score", title: "score" }, extra, extra && " ", figure(hit.score)),
      h("span", { class: "about" }, h("a", { class: "place", href: `#/chunk/${hit.chunk_id}` }, place(hit)), " ", about(hit))),
    body, compact ? null : h("div", { class: "actions" }, open, whole), panel);
  item.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === item) {
      event.preventDefault();
      if (compact) location.hash = `#/chunk/${hit.chunk_id}`;
      else toggle();
    } else if (event.key === "Escape" && !panel.hidden) {
      event.stopPropagation();
      toggle();
      item.focus();
    }
  });
  return item;
}

function reason(found) {
  const why = found.reasons[0];
  if (!why) return h("section", {}, h("h3", {}, "Why this score"), h("p", { class: "note" }, "It is no hit of this search any more."));
  const idf = Object.fromEntries(found.explanation.terms.map((term) => [term.token, term.idf]));
  const rows = why.contributions.map((part) => [
    h("dt", {}, part.part),
    h("dd", {}, `${figure(part.gives, 4)} = ${part.formula}`, part.score !== null && part.part === "vectors" ? `; cosine ${figure(part.score)}` : "",
      part.part === "words" ? `; BM25 ${figure(part.score, 2)}` : ""),
  ]);
  const words = why.words.length > 0 && [h("dt", {}, "words in it"), h("dd", {}, why.words.map((word) => `${word} (idf ${figure(idf[word], 1)})`).join(", "))];
  const unknown = found.explanation.unknown.length > 0 && [h("dt", {}, "in no chunk"), h("dd", {}, found.explanation.unknown.join(", "))];
  const times = Object.entries(found.explanation.milliseconds).map(([part, took]) => `${part} ${figure(took, 1)}`).join(", ");
  return h("section", {}, h("h3", {}, `Why ${figure(why.score, 4)}`),
    h("dl", { class: "reason" }, rows, words, unknown, h("dt", {}, "milliseconds"), h("dd", {}, times)));
}

/** Return the lists of what is near a chunk. */
export function neighbours(found) {
  const lists = [];
  const line = (hit, score) => h("li", {}, h("span", { class: "number soft" }, figure(score)),
    h("a", { href: `#/chunk/${hit.chunk_id}` }, h("b", {}, name(hit)), " ", hit.symbol && h("span", { class: "place soft mono" }, place(hit))));
  lists.push(h("section", {}, h("h3", {}, "Near in meaning"), found.notes.map((note) => h("p", { class: "note" }, note)),
    h("ul", { class: "near" }, found.hits.map((hit) => line(hit, hit.score))),
    !found.hits.length && !found.notes.length && h("p", { class: "note" }, "Nothing else is embedded.")));
  if (found.look_alikes.length) {
    lists.push(h("section", {}, h("h3", {}, "Alike in words (Jaccard)"),
      h("ul", { class: "near" }, found.look_alikes.map((pair) => line(pair, pair.jaccard)))));
  }
  return lists;
}
