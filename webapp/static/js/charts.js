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

  function draw(element) {
    var figure = JSON.parse(document.getElementById(element.dataset.chart).textContent);
    var layout = Object.assign({}, figure.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink-2") },
      margin: { l: 56, r: 16, t: 8, b: 48 }, hovermode: "closest", autosize: true,
      colorway: SERIES.map(colour),
      xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      legend: { orientation: "h", y: 1.12, x: 0 }
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
