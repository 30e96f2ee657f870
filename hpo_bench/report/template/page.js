"use strict";

// What the parts of the page share.
const page = (() => {
  const announcement = document.getElementById("announcement");

  // Tell those who do not see it what has just happened.
  const announce = (words) => {
    announcement.textContent = words;
  };

  const element = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  const packed = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

  // The text that was packed by gzip and written in base64.
  const unpack = (base64) => {
    const stream = new Blob([packed(base64)]).stream();
    return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text();
  };

  const save = (blob, name) => {
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  for (const part of document.querySelectorAll(".scripted")) part.hidden = false;
  return { announce, element, unpack, save, unpacks: "DecompressionStream" in window };
})();

(() => {
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
    page.announce(`${table.caption.textContent}: sorted by ${column}, ${order}`);
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
    const name = decodeURIComponent(location.hash.slice(1));
    const target = name && document.getElementById(name);
    for (let node = target; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
    }
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();
})();
