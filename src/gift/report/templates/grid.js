"use strict";
// Draws the embedded figures and lets the filter act on the tables, the charts and the pictures.
(() => {
  const { config, figures } = JSON.parse(document.getElementById("figures").textContent);
  const form = document.getElementById("filter");
  const count = document.getElementById("shown");
  const main = document.getElementById("main");
  const parts = [...main.querySelectorAll("[data-method], [data-attack], [data-model], [data-concept], [data-scope]")];
  const folds = [...main.querySelectorAll("[data-fold]")];
  const rows = [...main.querySelectorAll(".results tbody tr")];
  const wanted = { method: new Set(), attack: new Set(), model: new Set() };
  let scope = "";

  const read = () => {
    for (const [key, values] of Object.entries(wanted)) {
      const boxes = [...form.querySelectorAll(`input[name="${key}"]`)];
      values.clear();
      for (const box of boxes) if (box.checked) values.add(box.value);
      values.all = boxes.length === 0;
    }
    scope = form.elements.scope.value;
  };
  // What a part or a trace does not name, it is not filtered by.
  const passes = (about) =>
    Object.entries(wanted).every(([key, values]) => about[key] === undefined || values.all || values.has(about[key])) &&
    (about.scope === undefined || about.scope === scope) &&
    (about.concept === undefined || scope === "" || about.concept === scope);
  const draw = () => {
    for (const [id, figure] of Object.entries(figures)) {
      const chart = document.getElementById(id);
      if (chart === null || chart.closest("[hidden]")) continue;
      Plotly.react(chart, figure.data.filter((trace) => passes(trace.meta || {})), figure.layout, config);
      Plotly.Plots.resize(chart); // it may have been hidden while the window changed
    }
  };
  const apply = () => {
    read();
    for (const part of parts) part.hidden = !passes(part.dataset);
    for (const fold of folds) fold.hidden = fold.querySelector(".strip:not([hidden])") === null;
    const these = rows.filter((row) => row.dataset.scope === scope);
    count.textContent = `${these.filter((row) => !row.hidden).length} of ${these.length} rows shown`;
    draw();
  };
  form.addEventListener("change", apply);
  form.addEventListener("reset", () => setTimeout(apply)); // the fields change after the event
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
