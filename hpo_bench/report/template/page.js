"use strict";
(() => {
  const announcement = document.getElementById("announcement");
  const text = new Intl.Collator("en", { numeric: true });

  // Numbers by size, the rest as words; cells without a value come last in either direction.
  const compare = (a, b, sign) => {
    const missing = (a === "") - (b === "");
    if (missing || a === "") return missing;
    if (typeof a !== "number" || typeof b !== "number") return sign * text.compare(a, b);
    return a === b ? 0 : a < b ? -sign : sign;
  };

  const value = (row, column) => {
    const { key } = row.cells[column].dataset;
    return key === undefined ? row.cells[column].textContent.trim() : key === "" ? "" : Number(key);
  };

  const sort = (table, heading) => {
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const order = descending ? "descending" : "ascending";
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: value(row, heading.cellIndex) }));
    rows.sort((a, b) => compare(a.key, b.key, descending ? -1 : 1));
    body.append(...rows.map(({ row }) => row));
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const column = heading.querySelector("button").textContent;
    announcement.textContent = `${table.caption.textContent}: sorted by ${column}, ${order}`;
  };

  for (const table of document.querySelectorAll("table")) {
    for (const heading of table.tHead.rows[0].cells) {
      const label = heading.querySelector(".heading");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label.textContent;
      button.addEventListener("click", () => sort(table, heading));
      label.replaceChildren(button);
    }
  }

  // A link into a folded part opens it.
  const open = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
