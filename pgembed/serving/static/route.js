// Which view is shown, and what it was told: #/view/part?name=value. Going back and forth, and links, work as anywhere.

/** Return the view, its parts and its parameters. */
export function current() {
  const [path, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...parts] = path.split("/").filter(Boolean);
  return { view: view ?? "search", parts, given: Object.fromEntries(new URLSearchParams(parameters)) };
}

/** Go to a view; what is empty is left out. What is shown until then takes no more keys. */
export function go(view, given = {}) {
  document.getElementById("main").ariaBusy = "true";
  const kept = Object.entries(given).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const hash = `#/${view}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
  if (location.hash === hash) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}
