"use strict";
(() => {
  const rows = [...document.querySelectorAll("details.row")];
  const groups = [...document.querySelectorAll("section.group")];
  const tools = document.getElementById("tools");
  const none = document.getElementById("none");
  const state = { v: new Set(), s: "", e: "", q: "" };
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const verdicts = [...new Set(rows.map((row) => row.dataset.verdict))];
  const chips = verdicts.map((verdict) => {
    const button = make("button", { type: "button" }, verdict.charAt(0) + verdict.slice(1).toLowerCase());
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!state.v.delete(verdict)) state.v.add(verdict);
      changed();
    });
    return [verdict, button];
  });
  const select = make("select", { ariaLabel: "Section" }, make("option", { value: "" }, "All sections"));
  for (const strip of document.querySelectorAll(".strip-row"))
    select.append(make("option", { value: strip.dataset.section }, strip.querySelector(".title").textContent));
  const severity = make("select", { ariaLabel: "Severity" }, make("option", { value: "" }, "All severities"));
  for (const name of new Set(rows.map((row) => row.dataset.severity)))
    severity.append(make("option", { value: name }, name === "FAIL" ? "A failure fails" : "A failure warns"));
  const search = make("input", { type: "search", placeholder: "Search the rows ( / )", ariaLabel: "Search the rows" });
  const expand = make("button", { type: "button" }, "Expand all");
  const count = make("output", { ariaLive: "polite" });
  tools.append(...chips.map(([, button]) => button), select, severity, search, expand, count);
  tools.hidden = false;

  const shown = () => rows.filter((row) => !row.hidden);
  const apply = () => {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const fits = (!state.v.size || state.v.has(row.dataset.verdict)) && (!state.s || state.s === row.dataset.section)
        && (!state.e || state.e === row.dataset.severity);
      row.hidden = !(fits && words.every((word) => texts.get(row).includes(word)));
    }
    for (const group of groups) group.hidden = !group.querySelector("details.row:not([hidden])");
    for (const [verdict, button] of chips) button.setAttribute("aria-pressed", String(state.v.has(verdict)));
    select.value = state.s;
    severity.value = state.e;
    if (search.value !== state.q) search.value = state.q;
    const number = shown().length;
    count.textContent = number === rows.length ? `${number} rows` : `${number} of ${rows.length} rows`;
    none.hidden = number > 0;
  };
  const changed = () => {
    const fragment = new URLSearchParams();
    if (state.v.size) fragment.set("v", [...state.v].join(","));
    if (state.s) fragment.set("s", state.s);
    if (state.e) fragment.set("e", state.e);
    if (state.q) fragment.set("q", state.q);
    try { history.replaceState(null, "", "#" + fragment); } catch { /* some viewers forbid it */ }
    apply();
  };
  const read = () => {
    let fragment = location.hash.slice(1);
    try { fragment = decodeURIComponent(fragment); } catch { /* not one of ours */ }
    const row = rows.find((candidate) => candidate.id === fragment);
    if (row) {
      if (row.hidden) { state.v.clear(); state.s = state.e = state.q = ""; apply(); }
      row.open = true;
      row.scrollIntoView();
      row.querySelector("summary").focus({ preventScroll: true });
      return;
    }
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (location.hash.length > 1 && !["v", "s", "e", "q"].some((key) => wanted.has(key))) return;
    state.v = new Set((wanted.get("v") || "").split(",").filter((verdict) => verdicts.includes(verdict)));
    const known = (list, key) => ([...list.options].some((option) => option.value === wanted.get(key)) ? wanted.get(key) : "");
    state.s = known(select, "s");
    state.e = known(severity, "e");
    state.q = wanted.get("q") || "";
    apply();
  };
  severity.addEventListener("change", () => { state.e = severity.value; changed(); });
  select.addEventListener("change", () => { state.s = select.value; changed(); });
  search.addEventListener("input", () => { state.q = search.value; changed(); });
  expand.addEventListener("click", () => {
    const open = shown().some((row) => !row.open);
    for (const row of shown()) row.open = open;
    expand.textContent = open ? "Collapse all" : "Expand all";
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") { event.preventDefault(); search.focus(); return; }
    if (event.key !== "j" && event.key !== "k") return;
    const visible = shown();
    const here = visible.indexOf(document.activeElement.closest("details.row"));
    const next = visible[event.key === "j" ? here + 1 : Math.max(0, here - 1)];
    if (next) {
      next.querySelector("summary").focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
    }
  });

  const unpacked = async (link) => {
    const packed = Uint8Array.from(atob(link.href.split(",")[1]), (character) => character.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const copyButton = (source, label, words = async () => source.textContent) => {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(await words());
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = label; }, 1500);
    });
    return button;
  };
  for (const command of document.querySelectorAll(".command"))
    command.append(copyButton(command.querySelector("code"), "Copy"));
  const record = document.getElementById("record");
  document.getElementById("copy-record").append(copyButton(record, "Copy the record", () => unpacked(record)));
  addEventListener("hashchange", read);
  apply();
  read();
})();
