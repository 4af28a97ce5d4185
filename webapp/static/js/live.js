// Keeps folds open while htmx replaces the polled part of a page around them.
(function () {
  "use strict";
  var open = new Set();
  document.addEventListener("toggle", function (event) {
    var fold = event.target;
    if (!fold.id) return;
    if (fold.open) open.add(fold.id); else if (fold.isConnected) open.delete(fold.id);
  }, true);
  document.addEventListener("htmx:afterSwap", function () {
    open.forEach(function (id) {
      var fold = document.getElementById(id);
      if (fold) fold.open = true;
    });
  });
})();
