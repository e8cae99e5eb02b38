"use strict";
// Draws each figure of the embedded JSON in the element of its name, and fits them to the paper before printing.
(() => {
  const { config, figures } = JSON.parse(document.getElementById("figures").textContent);
  const drawn = Object.keys(figures).sort();
  for (const id of drawn) Plotly.newPlot(id, figures[id].data, figures[id].layout, config);
  const fit = () => drawn.forEach((id) => Plotly.Plots.resize(id));
  window.addEventListener("beforeprint", fit);
  window.addEventListener("afterprint", fit);
})();
