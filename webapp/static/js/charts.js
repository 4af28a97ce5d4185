// Draws every [data-chart] element from the JSON script it names, in the page's own colours.
(function () {
  "use strict";
  var SERIES = ["--accent", "--o-wrong", "--ink-3", "--o-looped"];

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function axis(given) {
    return Object.assign({
      color: colour("--ink-2"), gridcolor: colour("--line"), zeroline: false,
      linecolor: colour("--line-strong"), automargin: true, fixedrange: true
    }, given || {});
  }

  // The legend stands above the plot; where it does not fit in a line, plotly stacks its entries.
  function legendHeight(element, figure) {
    var characters = figure.data.reduce(function (sum, trace) { return sum + trace.name.length; }, 0);
    var width = 7.5 * characters + 50 * figure.data.length;
    return 14 + 20 * (width < element.clientWidth - 72 ? 1 : figure.data.length);
  }

  function draw(element) {
    var figure = JSON.parse(document.getElementById(element.dataset.chart).textContent);
    var layout = Object.assign({}, figure.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink-2") },
      margin: { l: 56, r: 16, t: figure.data.length > 1 ? legendHeight(element, figure) : 8, b: 48 },
      hovermode: "closest", autosize: true,
      colorway: SERIES.map(colour),
      xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      legend: { orientation: "h", yref: "container", y: 1, yanchor: "top", x: 0 }
    });
    window.Plotly.react(element, figure.data, layout, { displayModeBar: false, responsive: true });
  }

  function drawAll(root) {
    root.querySelectorAll("[data-chart]").forEach(draw);
  }

  document.addEventListener("DOMContentLoaded", function () { drawAll(document); });
  document.addEventListener("htmx:afterSettle", function (event) { drawAll(event.detail.elt); });
  document.addEventListener("themechange", function () { drawAll(document); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () {
    drawAll(document);
  });
})();
