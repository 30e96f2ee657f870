
// Any number of configurations side by side, with the settings in which they differ.
(() => {
  const section = document.getElementById("beside");
  const place = section.querySelector(".chosen");
  const table = document.getElementById("runs-table");
  const rows = [...table.tBodies[0].rows]; // as they were stored, however they are sorted later
  const boxes = rows.map(() => page.element("input", { type: "checkbox", className: "beside" }));
  let reading;

  const stored = () =>
    (reading ??= page.unpack(document.getElementById("configurations").textContent).then(JSON.parse));

  const names = (lists) => [...new Set(lists.flat())];

  // Rows of a name and a text for each: facts that any has, then settings that differ.
  const compare = (chosen) => {
    const facts = chosen.map((each) => Object.fromEntries(each.facts));
    const of = (values, name) => values.map((each) => each[name] ?? "–");
    const told = names(facts.map(Object.keys)).map((name) => [name, ...of(facts, name)]);
    const settings = chosen.map((each) => each.settings);
    const differing = names(settings.map(Object.keys))
      .map((name) => [name, ...of(settings, name)])
      .filter(([, ...values]) => new Set(values).size > 1);
    return [["Runs", ...chosen.map((each) => each.runs.join(" "))], ...told, ...differing];
  };

  const heading = (text, scope) => {
    const cell = page.element("th", { scope }, text);
    return cell;
  };

  const without = (index) => {
    const label = `Take ${boxes[index].title} away`;
    const button = page.element("button", { type: "button", textContent: "×", title: label });
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => {
      boxes[index].checked = false;
      update().then(() => (place.querySelector("button") || boxes[index]).focus());
    });
    return button;
  };

  const head = (chosen) => {
    const cells = chosen.map(({ label, index }) => {
      const cell = heading(`${label} `, "col");
      cell.append(without(index));
      return cell;
    });
    return page.element("thead", {}, page.element("tr", {}, heading("", "col"), ...cells));
  };

  const body = (told) => {
    const lines = told.map(([name, ...values]) => {
      const cells = values.map((value) => page.element("td", { textContent: value }));
      return page.element("tr", {}, heading(name, "row"), ...cells);
    });
    return page.element("tbody", {}, ...lines);
  };

  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  const csv = (chosen, told) => {
    const lines = [["", ...chosen.map((each) => each.label)], ...told];
    return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };

  const saving = (chosen, told) => {
    const button = page.element("button", { type: "button", textContent: "Save as CSV" });
    button.addEventListener("click", () => {
      page.save(new Blob([csv(chosen, told)], { type: "text/csv" }), "side-by-side.csv");
    });
    return button;
  };

  const clearing = () => {
    const button = page.element("button", { type: "button", textContent: "Take all away" });
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = false;
      update();
    });
    return button;
  };

  // The command that compares them on shared seeds, each by its first run.
  const command = (chosen) => {
    const runs = chosen.map((each) => each.runs[0]).join(" ");
    const code = page.element("code", { className: "command" }, `hpo-bench compare ${runs}`);
    return page.element("p", { className: "note" }, "On shared seeds, in pairs: ", code);
  };

  const draw = (chosen) => {
    const told = compare(chosen);
    const caption = page.element("caption", {}, `${chosen.length} side by side`);
    const drawn = page.element("table", {}, caption, head(chosen), body(told));
    const scroll = page.element("div", { className: "scroll", tabIndex: 0 }, drawn);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-labelledby", "beside-heading");
    const parts = [page.element("p", { className: "files" }, saving(chosen, told), clearing()), scroll];
    if (chosen.length > 1) parts.push(command(chosen));
    place.replaceChildren(...parts);
  };

  const update = async () => {
    const all = await stored();
    const chosen = all.map((each, index) => ({ ...each, index })).filter(({ index }) => boxes[index].checked);
    if (chosen.length) draw(chosen);
    else place.replaceChildren();
    page.announce(`${chosen.length} side by side`);
  };

  if (!page.unpacks) {
    section.hidden = true;
    return;
  }
  rows.forEach((row, index) => {
    const [dataset, method] = [...row.cells].map((cell) => cell.textContent.trim());
    boxes[index].title = `${method} on ${dataset}`;
    boxes[index].setAttribute("aria-label", `${method} on ${dataset} side by side`);
    boxes[index].addEventListener("change", update);
    row.cells[0].prepend(boxes[index], " ");
  });
  if (boxes.some((box) => box.checked)) update();
})();
