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

  const decoded = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  for (const place of document.querySelectorAll(".attention")) {
    const data = JSON.parse(document.getElementById(place.dataset.source).textContent);
    let query = null;
    let chosen = false; // until somebody chooses, each head is shown with the surrogate that explains it best
    const named = data.texts.map((text, i) => (i + 1) + ": " + text.model + ", " + text.strategy + ", " + text.prompt);
    const [textLabel, textBox] = select("text", named, () => { query = null; fill(); }, false);
    const [headLabel, headBox] = select("head", [], () => fillSources(), false);
    const [sourceLabel, sourceBox] = select("surrogate", [], () => { chosen = true; draw(); }, false);
    const refill = (box, values) => {
      const old = box.value;
      box.replaceChildren(...values.map(([value, text]) => make("option", { value, text })));
      if (values.some(([value]) => value === old)) box.value = old;
    };
    const textNumber = () => named.indexOf(textBox.value);
    const headsHere = () => data.heads.filter((head) => head.text === textNumber());
    const fill = () => {
      refill(headBox, headsHere().map((head) => [head.name, head.name + (head.kind ? " (" + head.kind + ")" : "")]));
      fillSources();
    };
    const fillSources = () => {
      const head = headsHere().find((one) => one.name === headBox.value);
      refill(sourceBox, Object.keys(head.sources).filter((name) => name !== "model").map((name) => [name, name]));
      if (!chosen && head.best in head.sources) sourceBox.value = head.best;
      draw();
    };
    const asking = make("p", { class: "note", role: "status" });
    const out = make("div");
    const percent = (value) => (100 * value).toFixed(value < 0.1 ? 1 : 0) + " %";
    const draw = () => {
      const text = data.texts[textNumber()];
      const head = headsHere().find((one) => one.name === headBox.value);
      const size = text.pieces.length, types = Math.max(...text.columns) + 1;
      if (query === null || query >= size) query = size - 1;
      const first = (q) => head.window === null ? 1 : Math.max(1, q - head.window + 1);
      const mass = {};
      for (const name of ["model", sourceBox.value]) mass[name] = decoded(head.sources[name]);
      const of = (name, q, k) => mass[name][(q - 1) * types + text.columns[k - 1]] / 255;
      let most = 1 / 255;
      for (const name of Object.keys(mass)) for (let k = first(query); k <= query; k++) most = Math.max(most, of(name, query, k));
      const panel = (name, title) => {
        const tokens = make("p", { class: "tokens" });
        text.pieces.forEach((piece, k) => {
          const seen = k >= first(query) && k <= query;
          const token = make("button", { type: "button", text: piece, "aria-pressed": String(k === query), onclick: () => {
            query = Math.max(1, k);
            const number = [...out.querySelectorAll(".tokens")].indexOf(tokens);
            draw();
            out.querySelectorAll(".tokens")[number].children[query].focus(); // the button that was pressed is gone
          } });
          if (k === query) token.className = "asks";
          else if (!seen) token.className = "unseen";
          if (seen) {
            token.style.backgroundColor = "rgba(0, 114, 178, " + (0.8 * of(name, query, k) / most).toFixed(3) + ")";
            token.title = percent(of(name, query, k));
          }
          token.ariaLabel = [JSON.stringify(piece), token.title].filter(Boolean).join(", ");
          tokens.append(token);
        });
        const canvas = make("canvas", { width: size * 5, height: size * 5, role: "img", "aria-label": title + ": queries down, keys across" });
        const pen = canvas.getContext("2d");
        for (let q = 1; q < size; q++) {
          const times = {};
          for (let k = first(q); k <= q; k++) times[text.columns[k - 1]] = (times[text.columns[k - 1]] || 0) + 1;
          for (let k = first(q); k <= q; k++) {
            const even = of(name, q, k) / times[text.columns[k - 1]];
            pen.fillStyle = "rgba(0, 114, 178, " + Math.min(1, 0.04 + Math.sqrt(even)).toFixed(3) + ")";
            pen.fillRect(k * 5, q * 5, 5, 5);
          }
        }
        return make("article", { class: "text" }, make("h4", { text: title }), tokens, canvas);
      };
      const seen = new Map();
      for (let k = first(query); k <= query; k++) seen.set(text.columns[k - 1], k);
      const rows = [...seen.values()].sort((a, b) => of("model", query, b) - of("model", query, a)).slice(0, 12);
      const cell = (value) => make("td", { text: percent(value) });
      const table = make("table", {},
        make("thead", {}, make("tr", {}, ...["token", "model", sourceBox.value].map((name) => make("th", { scope: "col", text: name })))),
        make("tbody", {}, ...rows.map((k) => make("tr", {}, make("th", { scope: "row", text: JSON.stringify(text.pieces[k]) }),
          cell(of("model", query, k)), cell(of(sourceBox.value, query, k))))));
      asking.textContent = "Query: token " + (query + 1) + ", " + JSON.stringify(text.pieces[query]) + ".";
      out.replaceChildren(make("div", { class: "pair" }, panel("model", "model"), panel(sourceBox.value, sourceBox.value)),
        make("div", { class: "scroll" }, table));
    };
    place.replaceChildren(make("div", { class: "controls" }, textLabel, headLabel, sourceLabel), asking, out);
    fill();
    place.shows = (name) => data.heads.some((head) => head.name === name);
    place.show = (name) => {
      textBox.value = named[data.heads.find((head) => head.name === name).text];
      query = null;
      fill();
      headBox.value = name;
      fillSources();
      place.scrollIntoView();
    };
  }

  const tip = make("div", { class: "tip", role: "status", hidden: "" });
  document.body.append(tip);
  for (const node of document.querySelectorAll(".said")) {
    const title = node.querySelector("title"); // what a browser shows without this script, late
    const text = title.textContent;
    title.remove();
    const attention = node.closest("section").querySelector(".attention");
    const opens = node.dataset.head && attention && attention.shows && attention.shows(node.dataset.head);
    const move = (event) => {
      tip.hidden = false;
      tip.textContent = text + (opens ? " (click: its attention)" : "");
      tip.style.left = Math.min(event.clientX + 12, window.innerWidth - tip.offsetWidth - 4) + "px";
      tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 8) + "px";
    };
    node.addEventListener("pointerenter", move);
    node.addEventListener("pointermove", move);
    node.addEventListener("pointerleave", () => { tip.hidden = true; });
    if (opens) {
      node.classList.add("opens");
      node.addEventListener("click", () => { tip.hidden = true; attention.show(node.dataset.head); });
    }
  }
})();
