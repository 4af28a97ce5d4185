// Keeps folds open while htmx replaces the polled part of a page around them, and logs at their
// end unless somebody has scrolled up in one.
(function () {
  "use strict";
  var open = new Set();
  document.addEventListener("toggle", function (event) {
    var fold = event.target;
    if (!fold.id) return;
    if (fold.open) open.add(fold.id); else if (fold.isConnected) open.delete(fold.id);
  }, true);
  var read = new Set();
  function follow(log) {
    var fold = log.closest("details");
    if (!read.has(fold && fold.id)) log.scrollTop = log.scrollHeight;
  }
  document.addEventListener("scroll", function (event) {
    var log = event.target;
    if (!log.dataset || log.dataset.follow === undefined) return;
    var fold = log.closest("details");
    if (log.scrollTop + log.clientHeight < log.scrollHeight - 8) read.add(fold && fold.id);
    else read.delete(fold && fold.id);
  }, true);
  document.addEventListener("toggle", function (event) {
    if (event.target.open) event.target.querySelectorAll("[data-follow]").forEach(follow);
  }, true);
  document.addEventListener("htmx:afterSwap", function () {
    open.forEach(function (id) {
      var fold = document.getElementById(id);
      if (fold) fold.open = true;
    });
    document.querySelectorAll("details[open] [data-follow]").forEach(follow);
  });
})();
