
// Figures tell the point under the pointer, or under a cursor that the keyboard moves.
(() => {
  const UNITS = 10000; // the width of an image, and its height
  const NEAR = 30; // pixels from the pointer
  const SVG = "http://www.w3.org/2000/svg";
  const HELP =
    "left and right along a curve, up and down to another curve, " +
    "page up and page down to another panel, Escape to leave";

  // --- what is stored ---

  // Cells of a line of CSV; quotes are doubled in quoted ones.
  const cells = (line) =>
    [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)].map((found) =>
      found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'),
    );

  const readTable = (csv) => {
    const [head, ...lines] = csv.trimEnd().split("\n");
    const names = cells(head);
    return (row) => {
      const values = cells(lines[row]);
      return Object.fromEntries(names.map((name, index) => [name, values[index]]));
    };
  };

  // Rows are stored as runs of following ones.
  const rowNumbers = (ranges) => {
    const rows = [];
    for (let i = 0; i < ranges.length; i += 2) {
      for (let j = 0; j < ranges[i + 1]; j++) rows.push(ranges[i] + j);
    }
    return rows;
  };

  // Places are stored as differences from the point before.
  const points = (series) => {
    let [x, y] = [0, 0];
    return rowNumbers(series.rows).map((row, index) => {
      x += series.at[2 * index];
      y += series.at[2 * index + 1];
      return { row, x, y };
    });
  };

  const inside = ([left, top, right, bottom], { x, y }) =>
    x >= left - 20 && x <= right + 20 && y >= top - 20 && y <= bottom + 20;

  const readSeries = (series, panels) => {
    const all = points(series);
    const seen = all.filter((point) => inside(panels[series.panel].box, point));
    return { ...series, all, seen };
  };

  const readFigure = async (figure) => {
    const places = JSON.parse(await page.unpack(figure.places));
    const csv = await page.unpack(figure.points);
    const series = places.series.map((each) => readSeries(each, places.panels));
    return { csv, row: readTable(csv), panels: places.panels, series };
  };

  // Each figure is read once, when somebody first looks at it.
  const read = (figure) => (figure.reading ??= readFigure(figure));

  // --- what is filtered ---

  const panelFits = (figure, panel) =>
    page.filter.fits("dataset", panel.dataset ? [panel.dataset] : figure.datasets);

  const seriesFits = (figure, data, series) =>
    panelFits(figure, data.panels[series.panel]) &&
    page.filter.fits("method", figure.methods.length ? [series.name] : []);

  const toSee = (figure, data) =>
    data.series.filter((each) => each.seen.length && seriesFits(figure, data, each));

  // --- words ---

  const number = (text) => {
    if (text === "inf") return "∞";
    const value = Number(text);
    if (text === "" || Number.isNaN(value)) return text;
    return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(3)));
  };

  const count = (series, row) => {
    const of = series.of || (row.n ? `${row.n_ok}/${row.n}` : "");
    return of.includes("/") ? `n_ok/n = ${of}` : of;
  };

  const value = ([words, column, low, high], row) => {
    const interval = low && row[low] ? ` [${number(row[low])}, ${number(row[high])}]` : "";
    return `${words}: ${number(row[column])}${interval}`;
  };

  // Lines about a point: its method, then n_ok/n, panel, values with their intervals.
  const describe = (data, { series, point }) => {
    const row = data.row(point.row);
    const values = series.shown.map((shown) => value(shown, row));
    const title = data.panels[series.panel].title;
    return [series.label, count(series, row), title, ...values].filter(Boolean);
  };

  // --- what is drawn over the image ---

  const draw = (name, attributes, ...children) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, given] of Object.entries(attributes)) node.setAttribute(key, given);
    node.append(...children);
    return node;
  };

  // Points without a line are dots: strokes of no length with round ends.
  const outline = ({ line, all }, right) => {
    if (!line) return all.map(({ x, y }) => `M${x} ${y}h0`).join("");
    const parts = all.map(({ x, y }, i) => {
      if (!i) return `M${x} ${y}`;
      return line === "steps" ? `H${x}V${y}` : `L${x} ${y}`;
    });
    return parts.join("") + (line === "steps" ? `H${right}` : "");
  };

  const curve = (series, right, width) =>
    draw("path", {
      d: outline(series, right),
      stroke: series.colour,
      "stroke-width": series.line ? width : 4 * width,
    });

  // A part of the overlay that is cut off where its panel ends.
  const window_ = ([left, top, right, bottom], children) => {
    const [width, height] = [right - left, bottom - top];
    const place = { x: left, y: top, width, height, preserveAspectRatio: "none" };
    return draw("svg", { ...place, viewBox: `${left} ${top} ${width} ${height}` }, ...children);
  };

  // What was not chosen is pale; what was chosen is drawn again over it.
  const pane = (figure, data, panel, index) => {
    const [left, top, right, bottom] = panel.box;
    const here = data.series.filter((series) => series.panel === index);
    const fitting = here.filter((series) => seriesFits(figure, data, series));
    const children = [];
    if (fitting.length < here.length) {
      const size = { x: left, y: top, width: right - left, height: bottom - top };
      children.push(draw("rect", { ...size, class: "veil" }));
      children.push(...fitting.map((series) => curve(series, right, 1.5)));
    }
    const active = figure.active && figure.active.series;
    if (active && active.panel === index) children.push(curve(active, right, 2.5));
    return window_(panel.box, children);
  };

  const paint = (figure, data) => {
    const panes = data.panels.map((panel, index) => pane(figure, data, panel, index));
    figure.overlay.replaceChildren(...panes);
  };

  const filtered = () => page.filter.active("dataset") || page.filter.active("method");

  const repaint = async (figure) => {
    figure.active = null;
    figure.tip.hidden = figure.mark.hidden = true;
    if (figure.node.hidden || !(filtered() || figure.reading)) return;
    paint(figure, await read(figure));
  };

  const line = (text, index) => page.element(index ? "span" : "b", { textContent: text });

  const put = (node, { x, y }) => {
    node.style.left = `${(100 * x) / UNITS}%`;
    node.style.top = `${(100 * y) / UNITS}%`;
  };

  const show = (figure, data, found) => {
    figure.active = found;
    figure.tip.hidden = figure.mark.hidden = !found;
    paint(figure, data);
    if (!found) return;
    const { series, point } = found;
    put(figure.mark, point);
    put(figure.tip, point);
    figure.mark.style.background = series.colour;
    figure.tip.classList.toggle("left", point.x > UNITS / 2);
    figure.tip.classList.toggle("above", point.y > UNITS / 2);
    figure.tip.replaceChildren(...describe(data, found).map(line));
  };

  // --- the pointer ---

  // The square of the distance from a place to a stretch between two points.
  const distance = (from, a, b, scale) => {
    const [ax, ay] = [(a.x - from.x) * scale.x, (a.y - from.y) * scale.y];
    const [dx, dy] = [(b.x - a.x) * scale.x, (b.y - a.y) * scale.y];
    const length = dx * dx + dy * dy;
    const share = length ? Math.min(1, Math.max(0, -(ax * dx + ay * dy) / length)) : 0;
    return { square: (ax + share * dx) ** 2 + (ay + share * dy) ** 2, share };
  };

  // The point of a stretch that is nearest; a step is of the point that it begins at.
  const onStretch = (from, series, index, scale, right) => {
    const point = series.seen[index];
    const next = series.seen[index + 1];
    if (series.line === "steps") {
      const end = { x: next ? next.x : right, y: point.y };
      return { point, square: distance(from, point, end, scale).square };
    }
    if (!series.line || !next) return { point, ...distance(from, point, point, scale) };
    const { square, share } = distance(from, point, next, scale);
    return { point: share > 0.5 ? next : point, square };
  };

  const nearest = (figure, data, from, scale) => {
    let best = { square: NEAR * NEAR };
    for (const series of toSee(figure, data)) {
      const box = data.panels[series.panel].box;
      if (!inside(box, from)) continue;
      for (let index = 0; index < series.seen.length; index++) {
        const found = onStretch(from, series, index, scale, box[2]);
        if (found.square < best.square) best = { ...found, series };
      }
    }
    return best.series ? best : null;
  };

  const pointed = async (figure, event) => {
    const box = figure.cursor.getBoundingClientRect();
    const scale = { x: box.width / UNITS, y: box.height / UNITS };
    const from = { x: (event.clientX - box.left) / scale.x, y: (event.clientY - box.top) / scale.y };
    const data = await read(figure);
    show(figure, data, nearest(figure, data, from, scale));
  };

  // --- the keyboard ---

  const along = (figure, step) => {
    const { series, point } = figure.active;
    const index = Math.min(Math.max(series.seen.indexOf(point) + step, 0), series.seen.length - 1);
    return { series, point: series.seen[index] };
  };

  // The point of a curve that is nearest to a height of the cursor in the horizontal.
  const closest = (series, x) =>
    series.seen.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));

  const across = (figure, data, step, otherPanel) => {
    const { series, point } = figure.active;
    const curves = toSee(figure, data);
    for (let i = curves.indexOf(series) + step; curves[i]; i += step) {
      const other = curves[i];
      if (other.panel !== series.panel) {
        return otherPanel ? { series: other, point: other.seen[0] } : figure.active;
      }
      if (!otherPanel) return { series: other, point: closest(other, point.x) };
    }
    return figure.active;
  };

  const MOVES = {
    ArrowRight: (figure) => along(figure, 1),
    ArrowLeft: (figure) => along(figure, -1),
    Home: (figure) => along(figure, -Infinity),
    End: (figure) => along(figure, Infinity),
    ArrowDown: (figure, data) => across(figure, data, 1, false),
    ArrowUp: (figure, data) => across(figure, data, -1, false),
    PageDown: (figure, data) => across(figure, data, 1, true),
    PageUp: (figure, data) => across(figure, data, -1, true),
    Escape: () => null,
  };

  const pressed = async (figure, event) => {
    const move = MOVES[event.key];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const data = await read(figure);
    const [first] = toSee(figure, data);
    const start = first && { series: first, point: first.seen[0] };
    const next = figure.active || event.key === "Escape" ? move(figure, data) : start;
    show(figure, data, next || null);
    if (next) page.announce(describe(data, next).join(", "));
  };

  // --- files ---

  const image = (node) => {
    const canvas = page.element("canvas", {
      width: 2 * node.naturalWidth,
      height: 2 * node.naturalHeight,
    });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(node, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  };

  const button = (text, act) => {
    const made = page.element("button", { type: "button", textContent: text });
    made.addEventListener("click", act);
    return made;
  };

  const addFiles = (figure) => {
    const { id } = figure.node;
    const csv = async () => page.save(new Blob([(await read(figure)).csv], { type: "text/csv" }), `${id}.csv`);
    const png = async () => page.save(await image(figure.image), `${id}.png`);
    const buttons = [button("PNG", png)];
    if (page.unpacks) buttons.unshift(button("CSV", csv));
    for (const each of buttons) {
      each.setAttribute("aria-label", `Save ${figure.title} as ${each.textContent}`);
    }
    const link = figure.node.querySelector(".points");
    if (page.unpacks) link.hidden = true;
    link.after("Save as ", ...buttons);
  };

  // --- each figure ---

  // The image, and on it what is drawn over it, the mark, the words and what takes the focus.
  const enclose = (figure) => {
    const canvas = page.element("div", { className: "canvas" });
    figure.image.replaceWith(page.element("div", { className: "plot" }, canvas));
    canvas.append(figure.image, figure.overlay, figure.mark, figure.tip, figure.cursor);
  };

  const listen = (figure) => {
    const { cursor } = figure;
    cursor.addEventListener("pointermove", (event) => pointed(figure, event));
    cursor.addEventListener("pointerdown", (event) => pointed(figure, event));
    cursor.addEventListener("pointerleave", () => repaint(figure));
    cursor.addEventListener("keydown", (event) => pressed(figure, event));
    cursor.addEventListener("blur", () => repaint(figure));
    page.filter.listen(() => repaint(figure));
  };

  const names = (node, kind) => (node.dataset[kind] ? node.dataset[kind].split("|") : []);

  const setUp = (node) => {
    const title = node.querySelector("h3").textContent;
    const figure = {
      node,
      title,
      image: node.querySelector("img"),
      datasets: names(node, "dataset"),
      methods: names(node, "method"),
      places: node.querySelector(".places").textContent,
      points: node.querySelector(".points").href.split(",")[1],
      overlay: draw("svg", { viewBox: `0 0 ${UNITS} ${UNITS}`, preserveAspectRatio: "none", class: "overlay" }),
      mark: page.element("div", { className: "dot", hidden: true }),
      tip: page.element("div", { className: "tip", hidden: true }),
      cursor: page.element("div", { className: "cursor", tabIndex: 0 }),
    };
    for (const part of [figure.overlay, figure.mark, figure.tip]) part.setAttribute("aria-hidden", "true");
    figure.cursor.setAttribute("role", "application");
    figure.cursor.setAttribute("aria-label", `Points of ${title}: ${HELP}`);
    addFiles(figure);
    if (!page.unpacks) return;
    enclose(figure);
    listen(figure);
  };

  for (const node of document.querySelectorAll("figure")) setUp(node);
})();
