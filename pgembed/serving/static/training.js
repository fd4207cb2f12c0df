// What is at work now, and the curves of every run.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { count, figure, fill, h, problem, table, when } from "./dom.js";
import { go } from "./route.js";

const FRESH_MS = 3000;

export async function trainingView(main, given, status) {
  const work = h("section", { "aria-label": "At work now", id: "work" });
  const runs = h("section", { "aria-label": "Runs" });
  const curves = h("section", { "aria-label": "Curves" });
  fill(main, h("h1", {}, "Training"), h("p", { class: "lead" }, "Fine-tuning and reindexing as they happen, and what each run measured."), work, runs, curves);
  if (status) showWork(status);
  try {
    const found = await ask("/api/training");
    if (!found.runs.length) {
      fill(runs, h("p", { class: "notice" }, "No run yet: ", h("code", {}, "pgembed train"), "."));
      return;
    }
    const chosen = Number(given.run ?? found.runs[0].id);
    const show = (row) => h("button", { class: "quiet", type: "button", "aria-pressed": String(row.id === chosen), on: { click: () => go("training", { run: row.id }) } }, `Run ${row.id}`);
    fill(runs, h("h2", {}, "Runs"), table("Training runs", [
      ["run", show], ["state", (row) => h("span", { class: `tag ${row.state === "failed" ? "bad" : row.state === "finished" ? "good" : ""}` }, row.state)],
      ["base", (row) => row.base], ["steps", (row) => `${count(row.last_step ?? 0)} of ${count(row.steps ?? "?")}`, "right"], ["last loss", (row) => figure(row.last_loss, 4), "right"],
      ["better than its base", (row) => (row.better === null ? "not measured" : row.better ? "yes" : row.worse ? "no: WORSE" : "not beyond chance")],
      ["started", (row) => when(row.started_at)], ["", (row) => row.error ?? "", "wrap"]], found.runs, (row) => ({ "aria-selected": String(row.id === chosen) })));
    await showCurves(curves, chosen, found.runs.find((row) => row.id === chosen)?.state === "running");
  } catch (error) {
    fill(runs, problem(error));
  }
}

async function showCurves(box, run, running) {
  const { steps, evaluations } = await ask(`/api/training/${run}/curve`);
  fill(box, h("h2", {}, `Run ${run}`), h("div", { class: "charts" },
    chart("Loss", steps.step, steps.loss, { smooth: true, digits: 4 }),
    evaluations.step.length ? chart("nDCG@10 on validation triplets (step 0: the base)", evaluations.step, evaluations.ndcg, { dots: true }) : null,
    chart("Gradient norm, before clipping", steps.step, steps.gradient_norm, { smooth: true }),
    chart("Learning rate", steps.step, steps.learning_rate),
    chart("Triplets a second", steps.step, steps.triplets_per_second, { smooth: true, digits: 1 })));
  if (running) setTimeout(() => { if (box.isConnected) showCurves(box, run, true).catch(() => {}); }, FRESH_MS);
}

/** Show what is at work; called again whenever the status is fresh. */
export function showWork(status) {
  const box = document.getElementById("work");
  if (!box) return;
  const bars = status.filling.map((row) => bar(`Generation ${row.id} (${row.encoder}) is ${row.state}`, row.vectors ?? 0, row.chunks, "vectors"));
  const running = status.training_runs.filter((row) => row.state === "running").map((row) => h("p", {}, `Training run ${row.id}: step ${count(row.last_step ?? 0)}, loss ${figure(row.last_loss, 4)}`));
  const processes = Map.groupBy(status.sessions, (row) => row.application_name);
  const sessions = [...processes].map(([name, rows]) => h("li", {}, `${name}: ${rows.length} connection${rows.length > 1 ? "s" : ""}, ${rows.some((row) => row.state === "active") ? "asking the database" : "computing"}`));
  fill(box, h("h2", {}, "At work now"), bars, running, sessions.length ? h("ul", { class: "soft" }, sessions) : null,
    !bars.length && !running.length && !sessions.length && h("p", { class: "note" }, "Nothing."));
}

function bar(text, done, all, unit) {
  return h("div", { class: "progress" }, h("p", {}, `${text}: ${count(done)} of ${count(all)} ${unit}`), h("progress", { max: Math.max(1, all), value: Math.min(done, all), "aria-label": text }));
}
