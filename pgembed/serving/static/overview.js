// The index: what there is, the generations with their recall, and every measurement.

import { ask } from "./api.js";
import { count, figure, fill, h, problem, table, when } from "./dom.js";

const METRICS = ["ndcg@10", "mrr@10", "recall@10"];

export async function indexView(main, _given, status) {
  const figures = h("div", {});
  const rest = h("div", {}, h("p", { class: "note" }, "…"));
  fill(main, h("h1", {}, "Index"), h("p", { class: "lead" }, "What is in the database, the generations of vectors, and how well each finds what it should."), figures, rest);
  if (status) showFigures(figures, status);
  try {
    const [{ generations, active }, { evaluations }] = await Promise.all([ask("/api/generations"), ask("/api/evaluations")]);
    fill(rest, h("h2", {}, "Generations"), generations.length ? generationTable(generations, active) : h("p", { class: "notice" }, "None yet: ", h("code", {}, "pgembed reindex"), "."),
      h("h2", {}, "Evaluations"), evaluations.length ? bySet(evaluations) : h("p", { class: "notice" }, "Nothing was measured yet: ", h("code", {}, "pgembed eval"), "."));
    if (status?.rejected.length) {
      rest.append(h("h2", {}, "Left out"), table("Input that could not be used", [["stage", (row) => row.stage], ["reason", (row) => row.reason], ["items", (row) => count(row.items), "right"], ["such as", (row) => row.example ?? "", "wrap"]], status.rejected));
    }
  } catch (error) {
    fill(rest, problem(error));
  }
}

function showFigures(box, { counts }) {
  const names = [["chunks", "pieces of code"], ["docstrings", "with a docstring"], ["files", "files"], ["sources", "sources"], ["pairs", "look-alike pairs"]];
  fill(box, h("div", { class: "figures" }, names.map(([name, text]) => h("div", {}, h("b", {}, count(counts[name])), h("span", {}, text))), h("div", {}, h("b", {}, counts.disk), h("span", {}, "on disk"))));
}

function generationTable(generations, active) {
  const effort = (row) => (row.probes === null ? "" : ` ${row.probes}${row.index_method === "ivfflat" && row.lists ? ` of ${row.lists} lists` : ""}`);
  return table("Generations", [
    ["id", (row) => row.id, "right"], ["encoder", (row) => row.encoder], ["precision", (row) => row.precision ?? ""],
    ["state", (row) => h("span", { class: `tag ${row.id === active ? "good" : row.state === "failed" ? "bad" : ""}` }, row.id === active ? "active" : row.state)],
    ["vectors", (row) => count(row.row_count), "right"], ["index", (row) => `${row.index_method}${effort(row)}`],
    ["recall@10 of the index", (row) => figure(row.index_recall), "right"], ["size", (row) => (row.size_bytes ? `${count(Math.round(row.size_bytes / 2 ** 20))} MB` : ""), "right"],
    ["made", (row) => when(row.created_at)], ["", (row) => (row.is_previous ? "rollback goes here" : row.error ?? ""), "wrap"]], generations);
}

function bySet(evaluations) {
  const sets = new Map();
  for (const row of evaluations) {
    const key = `${row.dataset}, ${count(row.queries)} queries, ${count(row.documents)} documents`;
    sets.set(key, [...(sets.get(key) ?? []), row]);
  }
  const value = (metric) => (row) => {
    const found = row.metrics[metric];
    return found ? [figure(found.mean), " ", h("span", { class: "interval" }, `[${figure(found.low)}, ${figure(found.high)}]`)] : "";
  };
  return [...sets].map(([name, rows]) => [h("h3", {}, name), table(name, [["encoder", (row) => row.encoder], ["search by", (row) => row.settings.mode ?? "vector"],
    ...METRICS.map((metric) => [metric, value(metric)]), ["measured", (row) => when(row.created_at)]], rows), h("p", { class: "note" }, "In brackets: 95% bootstrap intervals over the queries.")]);
}
