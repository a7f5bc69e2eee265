"use strict";
(() => {
  const make = (tag, options = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "text") node.textContent = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const numberIn = (text) => {
    const found = /[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?/i.exec(text);
    return found ? parseFloat(found[0].replaceAll(",", "")) : NaN;
  };
  const compare = (a, b, numeric, sign) => {
    if (!numeric) return sign * String(a).localeCompare(String(b), "en", { numeric: true });
    const [x, y] = [a === null ? NaN : a, b === null ? NaN : b];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sign * (x - y);
  };
  const sortButtons = (heads, sort) => {
    heads.forEach((head, index) => {
      const label = head.textContent || "name";
      head.textContent = "";
      head.append(make("button", { type: "button", text: label, title: "Sort by " + label, onclick: () => {
        const next = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", next);
        sort(index, next === "ascending" ? 1 : -1);
      } }));
    });
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    sortButtons([...table.tHead.rows[0].cells], (column, sign) => {
      const rows = [...body.rows];
      const texts = rows.map((row) => row.cells[column].textContent);
      const numbers = texts.map(numberIn);
      const numeric = texts.every((text, i) => text.trim() === "–" || text.trim() === "" || /^[-+]?\d/.test(text.trim()));
      const order = rows.map((row, i) => i).sort((i, j) =>
        numeric ? compare(numbers[i], numbers[j], true, sign) : compare(texts[i], texts[j], false, sign));
      body.append(...order.map((i) => rows[i]));
    });
  }

  const choices = (rows, read) => [...new Set(rows.map(read))];
  const select = (label, values, change, all = true) => {
    const box = make("select", { onchange: change });
    if (all) box.append(make("option", { value: "", text: "all" }));
    for (const value of values) box.append(make("option", { value, text: value }));
    return [make("label", { text: label }, box), box];
  };

  const HEIGHT = 29;
  for (const place of document.querySelectorAll(".grid")) {
    const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
    const texts = data.rows.map((row) => row.join(" ").toLowerCase());
    let shown = data.rows.map((row, i) => i);
    let order = null;
    const search = make("input", { type: "search", oninput: () => update() });
    const filters = data.columns.map((column, i) => {
      if (column.numeric && column.name !== "layer" && column.name !== "head") return null;
      const values = choices(data.rows, (row) => row[i]);
      return values.length > 1 ? [i, ...select(column.name, values, () => update())] : null;
    }).filter(Boolean);
    const count = make("p", { class: "note", role: "status" });
    const paper = make("p", { class: "note paper" });
    const head = make("tr", {}, ...data.columns.map((column) =>
      make("th", { scope: "col", class: column.numeric ? "" : "word", text: column.name })));
    const body = make("tbody");
    const table = make("table", {}, make("thead", {}, head), body);
    const view = make("div", { class: "window", tabindex: "0", role: "region", "aria-label": "Every head, scrolls", onscroll: () => draw() }, table);
    const space = (rows) => make("tr", { class: "space", "aria-hidden": "true" }, make("td", { colspan: data.columns.length, style: "" }));
    const draw = () => {
      const first = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - 10);
      const last = Math.min(shown.length, first + 60);
      const above = space(), below = space();
      above.firstChild.style.height = first * HEIGHT + "px";
      below.firstChild.style.height = (shown.length - last) * HEIGHT + "px";
      const rows = shown.slice(first, last).map((i) => make("tr", {}, ...data.rows[i].map((value, c) =>
        make("td", { class: data.columns[c].numeric ? "" : "word", text: value === null ? "–" : value }))));
      body.replaceChildren(above, ...rows, below);
    };
    window.addEventListener("beforeprint", () => {
      view.scrollTop = 0;
      draw();
    });
    const update = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      shown = data.rows.map((row, i) => i).filter((i) =>
        words.every((word) => texts[i].includes(word)) &&
        filters.every(([c, , box]) => box.value === "" || String(data.rows[i][c]) === box.value));
      if (order) {
        const [c, sign] = order;
        shown.sort((i, j) => compare(data.rows[i][c], data.rows[j][c], data.columns[c].numeric, sign));
      }
      count.textContent = shown.length + " of " + data.rows.length + " rows";
      paper.textContent = shown.length > 60 ? "On paper: the first 60, in the order they were sorted in." : "";
      view.scrollTop = 0;
      draw();
    };
    sortButtons([...head.cells], (c, sign) => { order = [c, sign]; update(); });
    place.replaceChildren(
      make("div", { class: "controls" }, make("label", { text: "search" }, search), ...filters.map(([, label]) => label)), count, paper, view);
    update();
  }

  for (const place of document.querySelectorAll(".viewer")) {
    const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
    const results = make("div", { "aria-live": "polite" });
    const kinds = ["model", "strategy", "prompt"];
    const boxes = {};
    const labels = [];
    const fill = (kind) => {
      const before = kinds.slice(0, kinds.indexOf(kind));
      const fitting = data.texts.filter((text) => before.every((name) => text[name] === boxes[name].value));
      const old = boxes[kind].value;
      const values = choices(fitting, (text) => text[kind]);
      boxes[kind].replaceChildren(...values.map((value) => make("option", { value, text: value })));
      if (values.includes(old)) boxes[kind].value = old;
    };
    const show = () => {
      kinds.forEach(fill);
      const fitting = data.texts.filter((text) => kinds.every((name) => text[name] === boxes[name].value));
      results.replaceChildren(...fitting.map((text) => {
        const wins = new Set(text.wins);
        const made = make("p");
        text.made.forEach((piece, i) => {
          const node = data.pieces[piece];
          made.append(wins.has(i) ? make("mark", { text: node }) : node);
        });
        const size = text.size + (text.size === 1 ? " winner" : " winners");
        return make("article", { class: "text" },
          make("h4", { text: text.source + ": " + text.made.length + " tokens, " + size }), made);
      }));
      const given = fitting.length ? fitting[0].given.map((piece) => data.pieces[piece]).join("") : "";
      results.prepend(make("article", { class: "text" },
        make("h4", { text: "prompt" }), make("p", { class: "given", text: given })));
    };
    for (const kind of kinds) {
      const [label, box] = select(kind, [], show, false);
      boxes[kind] = box;
      labels.push(label);
    }
    place.replaceChildren(make("div", { class: "controls" }, ...labels), results);
    show();
  }
})();
