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

  // The legend stands above the plot; where it does not fit in a line, plotly sets it in columns.
  function legendHeight(element, figure) {
    var width = Math.max.apply(null, figure.data.map(function (trace) { return 50 + 7.5 * trace.name.length; }));
    var columns = Math.max(1, Math.floor((element.clientWidth - 72) / width));
    return 14 + 20 * Math.ceil(figure.data.length / columns);
  }

  // A trace that belongs to one of several things compared has that thing's colour in every chart.
  function paint(trace) {
    if (!trace.meta || trace.meta.series === undefined) return trace;
    var ink = colour("--series-" + trace.meta.series);
    return Object.assign({}, trace, {
      line: Object.assign({}, trace.line, { color: ink }),
      marker: Object.assign({}, trace.marker, { color: ink }),
      error_y: Object.assign({}, trace.error_y, { color: ink }),
      textfont: { color: ink }
    });
  }

  // What cannot be drawn is read: the table of its figures opens in its place.
  function drawOrRead(element) {
    try {
      draw(element);
    } catch (error) {
      var table = document.getElementById(element.dataset.table);
      if (!table) throw error;
      element.hidden = true;
      table.open = true;
      console.warn("The chart could not be drawn, its table is shown: " + error.message);
    }
  }

  function draw(element) {
    var figure = JSON.parse(document.getElementById(element.dataset.chart).textContent);
    var legend = figure.data.length > 1 && figure.layout.showlegend !== false;
    var layout = Object.assign({}, figure.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("--ink-2") },
      margin: { l: 56, r: 16, t: legend ? legendHeight(element, figure) : 8, b: 48 },
      hovermode: "closest", autosize: true,
      colorway: SERIES.map(colour),
      xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
      legend: { orientation: "h", yref: "container", y: 1, yanchor: "top", x: 0 }
    });
    window.Plotly.react(element, figure.data.map(paint), layout, { displayModeBar: false, responsive: true });
  }

  function drawAll(root) {
    root.querySelectorAll("[data-chart]").forEach(drawOrRead);
  }

  document.addEventListener("DOMContentLoaded", function () { drawAll(document); });
  document.addEventListener("htmx:afterSettle", function (event) { drawAll(event.detail.elt); });
  document.addEventListener("themechange", function () { drawAll(document); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () {
    drawAll(document);
  });
})();
