// The index: what there is and what waits, who is at work, the generations with their recall, and every measurement.

import { ask } from "./api.js";
import { count, figure, fill, h, problem, table, when } from "./dom.js";

const pieces = ({ items }) => `${count(items)} piece${items === 1 ? " of code waits" : "s of code wait"}`;
const WAITS = {
  pairs: (row) => `${pieces(row)} to be compared`,
  triplets: (_row, { triplets }) => `the triplets are older than ${triplets.stale.join(", ")}`,
  words: (row) => `${pieces(row)} to be found by their words`,
  vectors: (row) => `${pieces(row)} for a vector${row.generation_id === null ? "" : ` in generation ${row.generation_id}`}`,
  activation: (row) => `${pieces(row)} to be searched by meaning: generation ${row.generation_id} is ready, and none is active`,
};
const METRICS = ["ndcg@10", "mrr@10", "recall@10"];

export async function indexView(main, _given, status) {
  const figures = h("div", {});
  const rest = h("div", {}, h("p", { class: "note" }, "…"));
  fill(main, h("h1", {}, "Index"), h("p", { class: "lead" }, "What is in the database, the generations of vectors, and how well each finds what it should."), figures, rest);
  if (status) fill(figures, figuresOf(status), waiting(status), leases(status));
  try {
    const [{ generations, active }, { evaluations }] = await Promise.all([ask("/api/generations"), ask("/api/evaluations")]);
    fill(rest, h("h2", {}, "Generations"), generations.length ? generationTable(generations, active) : h("p", { class: "notice" }, "None yet: ", h("code", {}, "pgembed reindex"), "."),
      h("h2", {}, "Evaluations"), evaluations.length ? bySet(evaluations) : h("p", { class: "notice" }, "Nothing was measured yet: ", h("code", {}, "pgembed eval"), "."));
    if (status?.rejected.length) {
      rest.append(h("h2", {}, "Left out"), table("Input that could not be used", [["stage", (row) => row.stage], ["outcome", (row) => row.outcome], ["reason", (row) => row.reason], ["items", (row) => count(row.items), "right"], ["such as", (row) => row.example ?? "", "wrap"]], status.rejected));
    }
  } catch (error) {
    fill(rest, problem(error));
  }
}

function figuresOf({ counts }) {
  const names = [["chunks", "pieces of code"], ["docstrings", "with a docstring"], ["files", "files"], ["sources", "sources"], ["pairs", "look-alike pairs"]];
  return h("div", { class: "figures" }, names.map(([name, text]) => h("div", {}, h("b", {}, count(counts[name])), h("span", {}, text))), h("div", {}, h("b", {}, counts.disk), h("span", {}, "on disk")));
}

function waiting(status) {
  return status.lag.length > 0 && [h("h2", {}, "What waits"), h("ul", { "aria-label": "What waits" }, status.lag.map((row) =>
    h("li", {}, WAITS[row.waiting_for](row, status), ": ", row.at_work ? "at work" : h("code", {}, row.command))))];
}

function leases({ leases: held }) {
  const what = (row) => ({
    range: () => `generation ${row.generation_id}, chunks ${count(row.first_chunk)} to ${count(row.last_chunk)}`,
    choosing: () => `which generation of ${row.encoder} to fill`, encoder: () => `generations of ${row.encoder}`,
    training: () => `training run ${row.run_id}`, source: () => `source ${row.source}`, chunks: () => "chunks, to write what was ingested",
  }[row.what]?.() ?? row.what) + (row.waiting ? " (waits for it)" : "");
  return held.length > 0 && [h("h2", {}, "At work"), table("At work", [["what", what], ["held by", (row) => row.application_name ?? ""],
    ["role", (row) => row.role ?? ""], ["process of the server", (row) => row.pid, "right"], ["since", (row) => when(row.connected_at)]], held)];
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
