// The API as /openapi.json describes it, without a library of another host.

import { fill, h, table } from "./dom.js";

const schema = await (await fetch("/openapi.json")).json();
const name = (part) => (part?.$ref ? part.$ref.split("/").at(-1) : null);

function type(part) {
  if (!part) return "";
  if (part.$ref) return name(part);
  if (part.anyOf) return part.anyOf.map(type).join(" or ");
  if (part.enum) return part.enum.join(" | ");
  if (part.type === "array") return `list of ${type(part.items) || "anything"}`;
  return part.type ?? "anything";
}

function fields(title, part, seen = new Set()) {
  const found = schema.components.schemas[title];
  if (!found?.properties || seen.has(title)) return null;
  return h("details", {}, h("summary", {}, `${part}: ${title}`),
    table(title, [["field", ([key]) => h("code", {}, key)], ["type", ([, value]) => type(value)]], Object.entries(found.properties)));
}

function route(path, method, operation) {
  const answer = name(operation.responses["200"]?.content?.["application/json"]?.schema);
  return h("section", { class: "route", "aria-label": `${method} ${path}` }, h("h3", {}, `${method.toUpperCase()} ${path}`), h("p", {}, operation.summary ?? ""),
    operation.parameters?.length ? table(`Parameters of ${path}`, [["parameter", (row) => h("code", {}, row.name)], ["type", (row) => type(row.schema), "wrap"],
      ["default", (row) => (row.required ? "required" : String(row.schema.default ?? ""))], ["", (row) => row.description ?? "", "wrap"]], operation.parameters) : null,
    answer && fields(answer, "Answer"));
}

fill(document.getElementById("routes"), Object.entries(schema.paths).map(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => route(path, method, operation))));
