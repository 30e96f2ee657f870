
// Show only some datasets, methods and experiments: rows, tables and figures say what they are about.
page.filter = (() => {
  const form = document.getElementById("filter");
  const boxes = [...form.querySelectorAll("input")];
  const kinds = [...new Set(boxes.map((box) => box.name))];
  const listeners = [];
  let chosen = {};

  const read = () => {
    chosen = {};
    for (const kind of kinds) {
      const names = boxes.filter((box) => box.name === kind && box.checked).map((box) => box.value);
      if (names.length) chosen[kind] = new Set(names);
    }
  };

  // Whether something about these names of a kind is to be seen.
  const fits = (kind, names) => !chosen[kind] || names.some((name) => chosen[kind].has(name));

  const shown = (node) =>
    kinds.every((kind) => fits(kind, node.dataset[kind] ? node.dataset[kind].split("|") : []));

  const hide = (nodes) => {
    for (const node of nodes) node.hidden = !shown(node);
    return nodes.filter((node) => !node.hidden).length;
  };

  // A table goes when none of its rows is left, with what it is folded into.
  const hideEmpty = (grid) => {
    const rows = [...grid.querySelectorAll("tr[data-dataset]")];
    const outer = grid.parentElement.tagName === "DETAILS" ? grid.parentElement : grid;
    if (rows.length) outer.hidden = rows.every((row) => row.hidden);
  };

  const hideLink = (link) => {
    const target = document.getElementById(link.hash.slice(1));
    link.parentElement.hidden = Boolean(target && target.closest("[hidden]"));
  };

  // Beside the name of each kind, how many are chosen.
  const tell = (details) => {
    const checked = details.querySelectorAll("input:checked");
    const names = [...checked].map((box) => box.parentElement.textContent.trim());
    details.querySelector(".chosen").textContent =
      names.length > 2 ? `${names.length} chosen` : names.join(", ") || "all";
  };

  const apply = () => {
    read();
    const rows = [...document.querySelectorAll("tr[data-dataset]")];
    const figures = [...document.querySelectorAll("figure")];
    const counts = [hide(figures), hide(rows)];
    for (const grid of document.querySelectorAll(".grid")) hideEmpty(grid);
    for (const link of document.querySelectorAll("nav a")) hideLink(link);
    for (const details of form.querySelectorAll("details")) tell(details);
    form.querySelector("output").textContent = Object.keys(chosen).length
      ? `${counts[0]} of ${figures.length} figures, ${counts[1]} of ${rows.length} rows`
      : "";
    for (const listener of listeners) listener();
  };

  // One list is open at a time, and Escape closes it.
  const close = (but) => {
    for (const details of form.querySelectorAll("details[open]")) {
      if (details !== but) details.open = false;
    }
  };

  const escape = (event) => {
    const open = event.key === "Escape" && event.target.closest("details[open]");
    if (!open) return;
    open.open = false;
    open.querySelector("summary").focus();
  };

  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("keydown", escape);
  form.addEventListener("focusin", (event) => close(event.target.closest("details")));
  document.addEventListener("click", (event) => close(event.target.closest("#filter details")));
  if (boxes.some((box) => box.checked)) apply(); // the browser kept them from before

  return {
    active: (kind) => Boolean(chosen[kind]),
    fits,
    listen: (listener) => listeners.push(listener),
  };
})();
