// Code as the server has cut and classed it, and what stands around it.

import { h, visible } from "./dom.js";

/** Return the lines of a `Shown`; `plain` is for prose. */
export function code(shown, { plain = false, label = "Code" } = {}) {
  const rows = shown.lines.map((line, n) =>
    h("div", { class: "row", data: { line: shown.first_line + n } },
      h("span", { class: "text" }, line.map(([kind, text]) => {
        if (kind === "cut") return h("span", { class: "cut" }, `… ${text}`);
        return kind ? h("span", { class: `tk-${kind}` }, text) : visible(text);
      }))));
  const more = shown.more_lines > 0 && h("div", { class: "more" }, `… ${shown.more_lines.toLocaleString("en")} more lines`);
  return h("div", { class: plain ? "code plain" : "code", tabindex: "0", role: "region", "aria-label": label }, rows, more);
}

/** Return where a chunk stands, in words. */
export function place(hit) {
  return hit.path ? `${hit.path}:${hit.start_line}-${hit.end_line}` : `chunk ${hit.chunk_id}`;
}

/** Return what a chunk is called: a window of a file has no name but its place. */
export function name(hit) {
  return hit.symbol || place(hit);
}

/** Return what there is to say of a hit beside its name and place. */
export function about(hit) {
  const parts = [hit.kind, hit.language, hit.source];
  if (hit.locations > 1) parts.push(`at ${hit.locations.toLocaleString("en")} places`);
  if (hit.copies > 0) parts.push(`${hit.copies} near-duplicate${hit.copies > 1 ? "s" : ""} folded in`);
  return parts.filter(Boolean).join(" · ");
}
