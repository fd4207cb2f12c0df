// Triplets: what training reads, why each is there, and marks on bad ones.

import { ask } from "./api.js";
import { code } from "./code.js";
import { count, figure, fill, h, problem, select, table } from "./dom.js";
import { go } from "./route.js";
import { values } from "./search.js";

const any = (list) => [["", "any"], ...list];

export async function tripletsView(main, given, status) {
  const page = Number(given.page ?? 1);
  const form = h("form", { "aria-label": "Which triplets", on: { submit: (event) => event.preventDefault(), change: () => go("triplets", values(form)) } },
    h("div", { class: "filters" },
      select("kind", "Kind", any(["docstring", "code"]), given.kind), select("split", "Split", any(["train", "validation", "test"]), given.split),
      select("language", "Language", any(status?.filters.languages ?? []), given.language),
      select("marked", "Show", [["", "what training reads"], ["true", "what is marked as bad"]], given.marked)));
  const list = h("section", { "aria-label": "Triplets", "aria-live": "polite" }, h("p", { class: "note" }, "…"));
  const numbers = h("details", { class: "notice" }, h("summary", {}, "How many, by rule"));
  numbers.addEventListener("toggle", () => { if (numbers.open && numbers.childNodes.length === 1) showCounts(numbers); });
  fill(main, h("h1", {}, "Triplets"), h("p", { class: "lead" }, "An anchor, what should be found for it, and what should not. Training pulls the first two together. Each says why it is here; a mark leaves it out at once."),
    form, numbers, list);
  try {
    const found = await ask("/api/triplets", { ...given, page, size: 10, view: "page" });
    if (!form.isConnected) return;
    if (!found.triplets.length) {
      fill(list, h("p", { class: "notice" }, page > 1 ? "There is no such page." : given.marked ? "Nothing is marked as bad."
        : "There are none. They come with `pgembed ingest PATH` and `pgembed pairs`; other filters may show some."));
      return;
    }
    fill(list, h("ol", { class: "hits" }, found.triplets.map(card)), pages(found, given));
  } catch (error) {
    fill(list, problem(error));
  }
}

function pages(found, given) {
  const to = (page, text, enabled) => h("button", { type: "button", disabled: !enabled, on: { click: () => { go("triplets", { ...given, page }); scrollTo(0, 0); } } }, text);
  return h("nav", { class: "pages", "aria-label": "Pages" }, to(found.page - 1, "← Before", found.page > 1), `page ${count(found.page)}`, to(found.page + 1, "Next →", found.has_next));
}

async function showCounts(box) {
  try {
    const found = await ask("/api/triplets/counts");
    box.append(found.stale.length ? h("p", { class: "note" }, `Out of date: ${found.stale.join(", ")} changed since. pgembed triplets --refresh`) : "",
      table("Triplets by rule", [["kind", (row) => row.kind], ["split", (row) => row.split], ["language", (row) => row.language], ["rule", (row) => row.rule],
        ["triplets", (row) => count(row.triplets), "right"], ["anchors", (row) => count(row.anchors), "right"], ["mean Jaccard to the negative", (row) => figure(row.negative_jaccard, 2), "right"]], found.counts));
  } catch (error) {
    box.append(problem(error));
  }
}

function card(row) {
  const [anchor, positive, negative] = row.shown;
  const docstring = row.kind === "docstring";
  const mark = h("div", {});
  const item = h("li", { class: "hit", tabindex: "0", "aria-label": `Triplet ${row.ordinal}: ${row.rule}` },
    h("div", { class: "head" }, h("span", { class: "rank" }, row.ordinal), h("span", { class: "symbol" }, row.rule),
      h("span", { class: "about" }, [row.kind, row.language, row.split].join(" · "))),
    h("div", { class: "triplet" },
      part("Anchor", anchor, docstring), part(docstring ? "Positive: its body" : `Positive: Jaccard ${figure(row.positive_jaccard, 2)}`, positive),
      part(`Negative: Jaccard ${figure(row.negative_jaccard, 2)}${docstring ? " to the positive" : ""}`, negative)),
    h("details", { class: "panel" }, h("summary", {}, "Why it is here"),
      h("dl", { class: "reason" }, row.reason.map(([aspect, detail]) => [h("dt", {}, aspect), h("dd", {}, detail)]))),
    mark);
  const state = (reason) => {
    item.querySelector(".triplet").classList.toggle("marked", reason !== null);
    fill(mark, reason === null ? offer() : marked(reason));
  };
  const failed = (error) => mark.append(problem(error));

  function offer() {
    const form = h("form", { class: "inline", hidden: true, on: { submit: async (event) => {
      event.preventDefault();
      const { reason } = values(form);
      if (reason) await ask(`/api/triplets/${row.ordinal}/block`, {}, { method: "POST", body: { reason } }).then((done) => { state(done.blocked); mark.querySelector("button").focus(); }, failed);
    } } },
      h("div", {}, h("label", { for: `why-${row.ordinal}` }, "Why is it bad?"), h("input", { id: `why-${row.ordinal}`, name: "reason", type: "text", required: true, maxlength: "1000", placeholder: "both are right" })),
      h("button", { class: "primary", type: "submit" }, "Leave it out"));
    const show = h("button", { class: "quiet", type: "button", on: { click: () => { form.hidden = false; actions.hidden = true; form.querySelector("input").focus(); } } }, "Mark as bad");
    const actions = h("div", { class: "actions" }, show);
    return [actions, form];
  }
  function marked(reason) {
    return h("div", { class: "actions" }, h("span", { class: "note" }, `Left out: ${reason}`), h("button", { class: "quiet", type: "button", on: { click: async () => {
      await ask(`/api/triplets/${row.ordinal}/block`, {}, { method: "DELETE" }).then(() => { state(null); mark.querySelector("button").focus(); }, failed);
    } } }, "Undo"));
  }
  state(row.blocked);
  return item;
}

function part(title, shown, plain = false) {
  return h("div", {}, h("h3", {}, title), code(shown, { plain, label: title }));
}
