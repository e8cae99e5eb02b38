"use strict";
// Draws each figure of the embedded JSON in the element of its name.
(() => {
  const { config, figures } = JSON.parse(document.getElementById("figures").textContent);
  for (const [id, figure] of Object.entries(figures)) Plotly.newPlot(id, figure.data, figure.layout, config);
})();
