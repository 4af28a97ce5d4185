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
    errorCallback: function () { return undefined; }, preProcess: bounded
  };
  // Nor may it hold the page up: long formulae, and those after the time is used up, stay as text.
  var MOST_CHARACTERS = 4000, MOST_MILLISECONDS = 1500;
  var spent = 0, began = 0;

  function bounded(formula) {
    if (formula.length > MOST_CHARACTERS || spent + performance.now() - began > MOST_MILLISECONDS) {
      throw new window.katex.ParseError("left as text");
    }
    return formula;
  }

  function render(element) {
    if (element.dataset.rendered) return;
    element.dataset.rendered = "yes";
    began = performance.now();
    withStyles(function () { window.renderMathInElement(element, OPTIONS); });
    spent += performance.now() - began;
    element.querySelectorAll(".katex-display").forEach(trimAround);
  }

  // KaTeX writes some style attributes, which the content policy refuses; the same rules set through
  // the object model are allowed.
  function withStyles(work) {
    var plain = Element.prototype.setAttribute;
    Element.prototype.setAttribute = function (name, value) {
      if (name === "style" && this.style) this.style.cssText = value;
      else plain.call(this, name, value);
    };
    try {
      work();
    } finally {
      Element.prototype.setAttribute = plain;
    }
  }

  // The text keeps its line breaks; those beside a displayed formula would be empty lines.
  function trimAround(formula) {
    var part = formula.parentNode; // auto-render puts every formula into a span
    var before = part.previousSibling, after = part.nextSibling;
    if (before && before.nodeType === Node.TEXT_NODE) {
      before.textContent = before.textContent.replace(/\s+$/, "");
    }
    if (after && after.nodeType === Node.TEXT_NODE) {
      after.textContent = after.textContent.replace(/^\s*\n/, "");
    }
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
