// Elements from data. Text is only ever set as text, and what an eye would not see in it is shown.

const HIDDEN = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}]/gu;

/** Return nodes for `text`: control, bidirectional and zero-width characters become badges that name them. */
export function visible(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (found.index > from) nodes.push(document.createTextNode(text.slice(from, found.index)));
    const badge = document.createElement("span");
    badge.className = "hidden-char";
    badge.textContent = `U+${found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    nodes.push(badge);
    from = found.index + found[0].length;
  }
  if (from < text.length) nodes.push(document.createTextNode(text.slice(from)));
  return nodes;
}

/** Return an element. Properties: class, on (events), data, others are attributes; children are nodes or text. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false)
    .flatMap((child) => (child instanceof Node ? [child] : visible(String(child))));
}

/** Replace what is in `element`. */
export function fill(element, ...children) {
  element.replaceChildren(...nodes(children));
  return element;
}

export const count = (value) => (value === null || value === undefined ? "" : Number(value).toLocaleString("en"));
export const figure = (value, digits = 3) =>
  value === null || value === undefined ? "" : Number(value).toFixed(digits);
/** A time as the reader's clock has it: 2026-01-31 17:05. */
export const when = (iso) => (iso ? new Date(iso).toLocaleString("sv-SE").slice(0, 16) : "");

/** Return a table: columns are [heading, cell of a row, class]. */
export function table(caption, columns, rows, rowProperties = () => ({})) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {},
      h("thead", {}, h("tr", {}, columns.map(([name, , kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", {}, rows.map((row) =>
        h("tr", rowProperties(row), columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row))))))));
}

/** Return a labelled select. Options are values, or [value, text]. */
export function select(name, label, options, value) {
  const choices = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const box = h("select", { name, id: `f-${name}` }, choices.map(([v, text]) => h("option", { value: v }, text)));
  if (choices.some(([v]) => String(v) === String(value ?? ""))) box.value = value ?? "";
  return h("div", {}, h("label", { for: `f-${name}` }, label), box);
}

/** Return a notice for what went wrong: the message, and the remedy. */
export function problem(error) {
  return h("div", { class: "notice bad", role: "alert" },
    h("p", {}, error.message), error.remedy && h("p", { class: "soft" }, error.remedy));
}
