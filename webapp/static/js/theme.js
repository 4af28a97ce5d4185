// Applies the chosen theme before the page is painted, and switches it. No choice: the system's.
(function () {
  "use strict";
  var root = document.documentElement;
  var stored = null;
  try {
    stored = window.localStorage.getItem("theme");
  } catch (error) {
    stored = null; // storage may be switched off; the system's theme applies
  }
  if (stored === "light" || stored === "dark") root.dataset.theme = stored;

  function current() {
    if (root.dataset.theme) return root.dataset.theme;
    return window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-theme-toggle]");
    if (!button) return;
    var next = current() === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    try {
      window.localStorage.setItem("theme", next);
    } catch (error) {
      return; // the choice then lasts for this page
    }
    document.dispatchEvent(new CustomEvent("themechange"));
  });
})();
