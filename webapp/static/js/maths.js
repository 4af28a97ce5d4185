// Renders LaTeX inside [data-maths] elements. What KaTeX cannot parse stays as it was written.
(function () {
  "use strict";
  var OPTIONS = {
    delimiters: [
      { left: "$$", right: "$$", display: true },
      { left: "\\[", right: "\\]", display: true },
      { left: "\\(", right: "\\)", display: false },
      { left: "$", right: "$", display: false }
    ],
    // A model's text is hostile: no links, no images, no raised limits, no macros kept between parts.
    trust: false, strict: "ignore", throwOnError: true, maxExpand: 200, maxSize: 10,
    errorCallback: function () { return undefined; }
  };

  function render(element) {
    if (element.dataset.rendered) return;
    element.dataset.rendered = "yes";
    window.renderMathInElement(element, OPTIONS);
  }

  // Folded thinking may be long: it is rendered when it is opened.
  function renderVisible(root) {
    root.querySelectorAll("[data-maths]").forEach(function (element) {
      var fold = element.closest("details");
      if (!fold || fold.open) render(element);
    });
  }

  document.addEventListener("DOMContentLoaded", function () { renderVisible(document); });
  document.addEventListener("htmx:afterSettle", function () { renderVisible(document); });
  document.addEventListener("toggle", function (event) {
    if (event.target.open) renderVisible(event.target);
  }, true);
})();
