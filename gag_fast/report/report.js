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
  const planes = await inflated(column.data);
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

// ---- a live p: the map, its shares and its Focus Area from mean |g| and variance ---------------

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackLive(data) {
  const size = data.width * data.height;
  const count = data.channels * size;
  const planes = await inflated(data.absmean);
  const levels = await inflated(data.level);
  const within = data.within === null ? null : await inflated(data.within);
  const weight = new Float32Array(count);   // of a pixel that is kept
  const damped = new Float32Array(count);   // of one that is not
  for (let c = 0; c < data.channels; c++) {
    const q = data.percentiles[c];
    for (let i = c * size; i < (c + 1) * size; i++) {
      const units = data.bytes === 1 ? planes[i] : planes[i] | planes[count + i] << 8;
      weight[i] = units * data.scale[c];
      const low = q[levels[i]], high = q[Math.min(levels[i] + 1, 100)];
      const place = data.within_bytes === 2 ? within[i] | within[count + i] << 8 : within?.[i];
      const share = within === null ? 0.5 : (place + 0.5) / 256 ** data.within_bytes;
      damped[i] = weight[i] * (low > 0 ? low * (high / low) ** share : high * share);
    }
  }
  return { levels, weight, damped, size, channels: data.channels };
}

function mapAt(stats, p) {
  const map = new Float32Array(stats.size);
  for (let c = 0, i = 0; c < stats.channels; c++) {
    for (let pixel = 0; pixel < stats.size; pixel++, i++) map[pixel] += stats.levels[i] >= p ? stats.weight[i] : stats.damped[i];
  }
  let low = Infinity, high = -Infinity;
  for (const value of map) { if (value < low) low = value; if (value > high) high = value; }
  for (let pixel = 0; pixel < stats.size; pixel++) map[pixel] = high > low ? (map[pixel] - low) / (high - low) : 0;
  return map;
}

// The p-th percentile of ascending values, linear between neighbours.
function percentile(ascending, p) {
  const rank = p / 100 * (ascending.length - 1);
  const below = Math.floor(rank);
  return ascending[below] + (rank - below) * (ascending[Math.min(below + 1, ascending.length - 1)] - ascending[below]);
}

// Of each of RCAP's percentiles: the share of the saliency, and of the pixels, that lie above it.
function sharesOf(map, ascending, data) {
  const total = map.reduce((sum, value) => sum + value, 0);
  return data.percentiles_of_rcap.map((percent) => {
    const threshold = data.sorted ? ascending[Math.max(0, Math.floor(map.length * percent / 100) - 1)] : percentile(ascending, percent);
    let saliency = 0, pixels = 0;
    for (const value of map) if (data.sorted ? value > threshold : value >= threshold) { saliency += value; pixels++; }
    return { percent, threshold, share: total > 0 ? saliency / total : 0, pixels: pixels / map.length };
  });
}

function colourTable(anchors) {
  const rgb = anchors.map((code) => [0, 2, 4].map((k) => parseInt(code.slice(k, k + 2), 16)));
  return Array.from({ length: 256 }, (_, level) => {
    const place = level / 255 * (rgb.length - 1);
    const k = Math.min(Math.floor(place), rgb.length - 2);
    return rgb[k].map((value, channel) => value + (place - k) * (rgb[k + 1][channel] - value));
  });
}

async function live(box) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const stats = await unpackLive(data);
  const canvas = box.querySelector("canvas");
  canvas.width = data.width; canvas.height = data.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const photograph = box.parentNode.querySelector(".tiles figure:not([data-m]) img");
  let base = null;
  if (photograph) {
    await photograph.decode();
    context.drawImage(photograph, 0, 0, data.width, data.height);
    base = context.getImageData(0, 0, data.width, data.height).data;
  }
  const colours = colourTable(data.colours);
  const frame = context.createImageData(data.width, data.height);
  const slider = box.querySelector("[name=p]"), only = box.querySelector("[name=focus]");
  const head = box.querySelector("thead").appendChild(document.createElement("tr"));
  for (const title of ["pixels kept", "saliency share"]) head.appendChild(document.createElement("th")).textContent = title;
  const drawing = box.querySelector(".overp svg");
  let marker = null;
  if (drawing) {
    marker = drawing.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
    marker.setAttribute("class", "now");
  }

  function draw() {
    const p = Number(slider.value);
    const map = mapAt(stats, p);
    const ascending = map.slice().sort();
    const shares = sharesOf(map, ascending, data);
    const focus = shares[shares.length - 1];
    const ceiling = percentile(ascending, 99.5) || ascending[ascending.length - 1] || 1;
    for (let i = 0; i < map.length; i++) {
      const share = Math.min(map[i] / ceiling, 1);
      const alpha = Math.min(1.25 * share ** 0.7, 1);
      const colour = colours[Math.round((0.18 + 0.82 * share) * 255)];
      const outside = only.checked && !(data.sorted ? map[i] > focus.threshold : map[i] >= focus.threshold);
      const grey = base ? 0.299 * base[4 * i] + 0.587 * base[4 * i + 1] + 0.114 * base[4 * i + 2] : 0;
      for (let c = 0; c < 3; c++) {
        const under = base ? 0.6 * (0.75 * grey + 0.25 * base[4 * i + c]) + 20 : 0;
        frame.data[4 * i + c] = outside ? 0.25 * under : (1 - alpha) * under + alpha * colour[c];
      }
      frame.data[4 * i + 3] = 255;
    }
    context.putImageData(frame, 0, 0);
    box.querySelector("output").textContent = String(p);
    box.querySelector("tbody").replaceChildren(...shares.map((row) => {
      const line = document.createElement("tr");
      const percent = `top ${(100 * row.pixels).toFixed(0)} %` + (row === focus ? ", the Focus Area" : "");
      for (const value of [percent, row.share.toFixed(4)]) line.appendChild(document.createElement("td")).textContent = value;
      return line;
    }));
    if (marker) marker.setAttribute("d", `M${40 + p / 100 * 308} 24V146`);
    box.shown = { p, map, shares };
  }

  slider.value = String(data.p);
  slider.addEventListener("input", draw);
  only.addEventListener("input", draw);
  draw();
  box.hidden = false;
  box.dataset.ready = "true";
}

for (const box of document.querySelectorAll(".live")) live(box).catch(() => box.remove());

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
