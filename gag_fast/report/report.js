// Sorts and pages the tables of a report, and dims the other methods while one is pointed at.
// Text from data reaches the page through textContent only.
"use strict";

const MISSING = -2147483648;
const PAGE = 50;

// ---- tables that are already in the page ------------------------------------------------------

function sortable(header, sort) {
  header.classList.add("sorts");
  header.tabIndex = 0;
  const act = () => {
    const next = header.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", next);
    sort(next === "ascending" ? 1 : -1);
  };
  header.addEventListener("click", act);
  header.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); act(); }
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    const value = Number(text.replace("−", "-"));
    return text !== "" && !Number.isNaN(value) ? value : text;
  };
  [...table.tHead.rows[0].cells].forEach((header, column) => sortable(header, (direction) => {
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => direction * (
      typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// ---- the table of every row: columns of integers, unpacked once, drawn a page at a time --------

async function unpack(column, rows) {
  const packed = Uint8Array.from(atob(column.data), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const values = new Int32Array(rows);
  for (let i = 0; i < rows; i++) {
    values[i] = planes[i] | planes[rows + i] << 8 | planes[2 * rows + i] << 16 | planes[3 * rows + i] << 24;
  }
  return values;
}

async function rowsTable(box) {
  const data = JSON.parse(document.getElementById(box.dataset.rows).textContent);
  const columns = data.columns;
  for (const column of columns) column.values = await unpack(column, data.rows);
  const find = (kind) => columns.find((column) => column.kind === kind);
  const [images, methods, statuses] = [find("image"), find("method"), find("status")];
  const rank = (names) => {
    const order = names.map((_, i) => i).sort((a, b) => names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : 0);
    const ranks = new Int32Array(names.length);
    order.forEach((index, position) => { ranks[index] = position; });
    return ranks;
  };
  const lower = data.images.map((name) => name.toLowerCase());
  const form = box.querySelector("form");
  const body = box.querySelector("tbody");
  const output = box.querySelector("output");
  const position = box.querySelector(".pager span");
  for (const [index, name] of data.methods.entries()) form.elements.method.append(new Option(name, index));

  let order = Uint32Array.from({ length: data.rows }, (_, i) => i);
  let shown = order;
  let page = 0;

  const text = (column, row) => {
    const value = column.values[row];
    if (column.kind === "image") return data.images[value];
    if (column.kind === "method") return data.methods[value];
    if (column.kind === "status") return value ? "ok" : "failed";
    if (column.kind === "class" && value !== MISSING) return data.classes[value] ?? `class ${value}`;
    return value === MISSING ? "–" : (value / 10 ** column.digits).toFixed(column.digits);
  };
  const numeric = (column) => column.kind === "number";
  const valued = (column) => numeric(column) || column.kind === "class";

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const fragment = document.createDocumentFragment();
    for (const row of shown.subarray(page * PAGE, (page + 1) * PAGE)) {
      const line = fragment.appendChild(document.createElement("tr"));
      for (const column of columns) {
        const cell = line.appendChild(document.createElement(column.kind === "image" ? "th" : "td"));
        cell.textContent = text(column, row);
        if (column.kind === "image") { cell.scope = "row"; cell.title = cell.textContent; }
        if (numeric(column)) cell.className = "n";
        if (column.kind === "status") cell.className = cell.textContent;
        if (column.kind === "class") cell.className = "class";
      }
    }
    body.replaceChildren(fragment);
    const number = (value) => value.toLocaleString("en-US");
    output.textContent = number(shown.length) + (shown.length === 1 ? " row" : " rows")
      + (data.total > data.rows ? ` (of ${number(data.rows)} drawn evenly from ${number(data.total)})` : "");
    position.textContent = `${number(page + 1)} of ${number(pages)}`;
    for (const button of box.querySelectorAll(".pager button")) {
      const back = button.dataset.go === "first" || button.dataset.go === "-1";
      button.disabled = back ? page === 0 : page === pages - 1;
    }
  }

  function filter() {
    const words = form.elements.text.value.toLowerCase();
    const method = form.elements.method.value;
    const status = form.elements.status.value;
    const hit = words ? Uint8Array.from(lower, (name) => name.includes(words) ? 1 : 0) : null;
    shown = order.filter((row) => (hit === null || hit[images.values[row]])
      && (method === "" || methods.values[row] === Number(method))
      && (status === "" || statuses.values[row] === Number(status)));
    page = 0;
    draw();
  }

  function sort(column, direction) {
    let values = column.values;
    if (column.kind === "image") values = Int32Array.from(values, function (i) { return this[i]; }, rank(data.images));
    if (column.kind === "method") values = Int32Array.from(values, function (i) { return this[i]; }, rank(data.methods));
    // Missing values last in both directions; equal values in the order of the data.
    const last = direction === 1 ? 2147483647 : MISSING;
    const keys = valued(column) ? values.map((v) => v === MISSING ? last : v) : values;
    order = Uint32Array.from({ length: data.rows }, (_, i) => i);
    order.sort((a, b) => direction * (keys[a] - keys[b]) || a - b);
    filter();
  }

  const head = box.querySelector("thead").appendChild(document.createElement("tr"));
  for (const column of columns) {
    const header = head.appendChild(document.createElement("th"));
    header.textContent = column.name;
    if (numeric(column)) header.className = "n";
    sortable(header, (direction) => sort(column, direction));
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  box.querySelector(".pager").addEventListener("click", (event) => {
    const go = event.target.dataset.go;
    if (go === undefined) return;
    page = go === "first" ? 0 : go === "last" ? Infinity : page + Number(go);
    draw();
  });
  draw();
  // Every row that the filter leaves, in the order shown; not the page's fifty.
  box.everyRow = () => [columns.map((column) => column.name),
    ...Array.from(shown, (row) => columns.map((column) => text(column, row)))];
  box.dataset.ready = "true";
}

for (const box of document.querySelectorAll(".rows")) {
  rowsTable(box).catch((error) => {
    box.querySelector("output").textContent = `The rows cannot be shown here (${error.message}).`;
  });
}

// ---- figures and tables to take along ---------------------------------------------------------

function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function svgFile(drawing) {
  const copy = drawing.cloneNode(true);
  const [from, to] = [[drawing, ...drawing.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  const kept = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "stroke-dasharray", "font-size", "font-family"];
  from.forEach((element, index) => {
    const style = getComputedStyle(element);
    for (const name of kept) to[index].setAttribute(name, style.getPropertyValue(name));
    to[index].removeAttribute("class");
    to[index].removeAttribute("style");
  });
  const [, , width, height] = drawing.getAttribute("viewBox").split(" ");
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  return new XMLSerializer().serializeToString(copy);
}

const cellText = (cell) => [...cell.childNodes].map((node) => node.textContent.trim()).filter(Boolean).join(" ");
// A spreadsheet computes what begins with one of these, unless it is a number.
const formula = (text) => /^[=+@\t\r-]/.test(text) && Number.isNaN(Number(text)) ? "'" + text : text;
const csvFile = (rows) => rows.map((row) => row.map((cell) => {
  const text = formula(cell);
  return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}).join(",")).join("\n") + "\n";
const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "–": "--", "−": "$-$", "…": "\\dots{}" };
const latexText = (text) => text.replace(/[\\~^&%$#_{}↑↓–−…]/g, (c) => LATEX[c] ?? "\\" + c);
const latexFile = ([head, ...rows]) => [
  "% needs \\usepackage{booktabs}", `\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule",
  head.map(latexText).join(" & ") + " \\\\", "\\midrule",
  ...rows.map((row) => row.map(latexText).join(" & ") + " \\\\"), "\\bottomrule", "\\end{tabular}", ""].join("\n");

function buttons(choices) {
  const bar = document.createElement("div");
  bar.className = "save";
  for (const [label, act] of choices) {
    const button = bar.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", act);
  }
  return bar;
}

const plainName = (text) => text.trim().replace(/[^A-Za-z0-9]+/g, "-").slice(0, 60).replace(/^-|-$/g, "") || "figure";
for (const figure of document.querySelectorAll(".charts figure")) {
  const drawing = figure.querySelector("svg");
  const name = plainName(drawing.getAttribute("aria-label")) + ".svg";
  figure.append(buttons([["SVG", () => save(name, "image/svg+xml", svgFile(drawing))]]));
}
for (const table of document.querySelectorAll(".scroll > table")) {
  const box = table.closest(".rows");
  const heading = table.closest("section")?.querySelector("h2")?.firstChild?.textContent ?? "table";
  const rows = () => box ? box.everyRow() : [...table.rows].map((row) => [...row.cells].map(cellText));
  table.parentNode.after(buttons([
    ["CSV", () => save(plainName(heading) + ".csv", "text/csv", csvFile(rows()))],
    ["LaTeX", () => save(plainName(heading) + ".tex", "text/plain", latexFile(rows()))],
  ]));
}

// On paper there is nothing to unfold.
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });

// ---- pointing at a method ---------------------------------------------------------------------

for (const run of document.querySelectorAll("article.run")) {
  const point = (event) => {
    const source = event.target.closest?.(".legend [data-m], .summary [data-m], svg [data-m]");
    const focus = event.type === "pointerleave" || !source ? null : source.dataset.m;
    run.toggleAttribute("data-pointed", focus !== null);
    for (const mark of run.querySelectorAll("svg:not(.whisker) [data-m], .tiles [data-m], .legend li")) {
      const away = focus !== null && mark.dataset.m !== focus;
      mark.style.opacity = away ? (mark.classList.contains("band") ? "0" : "0.14") : "";
    }
  };
  run.addEventListener("pointerover", point);
  run.addEventListener("pointerleave", point);
}
