// Looking closely: a strip's marks open their samples, keys step through them, thinking is searched.
(function () {
  "use strict";
  var MOST_HITS = 2000;
  var SVG = "http://www.w3.org/2000/svg";

  // --- strips: each mark is a sample. One stop of the Tab key; arrow keys choose a mark.

  function address(strip, sample) {
    return strip.getAttribute("href").split("?")[0] + "?sample=" + sample;
  }

  function sampleAt(strip, event) {
    var box = strip.querySelector("svg").getBoundingClientRect();
    var count = Number(strip.dataset.cells);
    var at = Math.floor((event.clientX - box.left) / box.width * count);
    return Math.min(Math.max(at, 0), count - 1);
  }

  function choose(strip, sample) {
    var svg = strip.querySelector("svg");
    var frame = svg.querySelector(".cell-at") || svg.appendChild(document.createElementNS(SVG, "rect"));
    frame.setAttribute("class", "cell-at");
    frame.setAttribute("x", 6 * sample - 0.3);
    frame.setAttribute("y", 0.5);
    frame.setAttribute("width", 5.6);
    frame.setAttribute("height", 13);
    strip.dataset.at = sample;
    strip.title = "sample " + sample + ": open it";
  }

  document.querySelectorAll(".cells[data-at]").forEach(function (strip) {
    choose(strip, Number(strip.dataset.at));
  });
  document.addEventListener("mousemove", function (event) {
    var strip = event.target.closest && event.target.closest(".cells");
    if (strip) strip.title = "sample " + sampleAt(strip, event) + ": open it";
  });
  document.addEventListener("click", function (event) {
    var strip = event.target.closest(".cells");
    if (!strip) return;
    var byKey = event.detail === 0; // Enter on the link
    if (byKey && strip.dataset.at === undefined) return;
    strip.href = address(strip, byKey ? strip.dataset.at : sampleAt(strip, event));
  });
  document.addEventListener("keydown", function (event) {
    var strip = event.target.closest && event.target.closest(".cells");
    var step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!strip || !step) return;
    event.preventDefault();
    var last = Number(strip.dataset.cells) - 1;
    var at = strip.dataset.at === undefined ? (step > 0 ? -1 : 1) : Number(strip.dataset.at);
    choose(strip, Math.min(Math.max(at + step, 0), last));
  });

  // --- keys: j next, k previous, w next wrong, W previous wrong

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    var link = document.querySelector('a[data-key="' + CSS.escape(event.key) + '"]');
    if (link) link.click();
  });

  // --- copying

  function said(button, words) {
    var plain = button.dataset.words || button.textContent;
    button.dataset.words = plain;
    button.textContent = words;
    window.setTimeout(function () { button.textContent = plain; }, 1500);
  }

  document.addEventListener("click", function (event) {
    var button = event.target.closest("[data-copy]");
    if (!button) return;
    var link = document.querySelector(".cells[data-at]");
    var text = button.dataset.copy === "link"
      ? Promise.resolve(link ? new URL(address(link, link.dataset.at), location.href).href : location.href)
      : fetch(button.dataset.copy).then(function (answer) {
        if (!answer.ok) throw new Error("gone");
        return answer.text();
      });
    text.then(function (found) { return navigator.clipboard.writeText(found); })
      .then(function () { said(button, "Copied"); }, function () { said(button, "Could not copy"); });
  });

  // --- searching the thinking: the whole of it, also what is not shown yet

  function marked(text, wanted) {
    var part = document.createElement("div");
    part.className = "text";
    var low = text.toLowerCase(), at = 0, hits = 0, next;
    // Where lower case has another length the places would not fit: then case counts.
    if (low.length !== text.length) low = text; else wanted = wanted.toLowerCase();
    while (hits < MOST_HITS && (next = low.indexOf(wanted, at)) >= 0) {
      part.append(text.slice(at, next));
      var mark = document.createElement("mark");
      mark.className = "hit";
      mark.textContent = text.slice(next, next + wanted.length);
      part.append(mark);
      at = next + wanted.length;
      hits += 1;
    }
    part.append(text.slice(at));
    return part;
  }

  function setUp(form) {
    var parts = form.parentNode.querySelector(".parts"), output = form.querySelector("output");
    var input = form.querySelector("input");
    var shown = null, whole = null, at = -1, asked = 0;

    function load() {
      if (whole === null) {
        whole = fetch(form.dataset.search).then(function (answer) {
          if (!answer.ok) throw new Error("gone");
          return answer.text();
        });
      }
      return whole;
    }

    function go(step) {
      var hits = parts.querySelectorAll("mark.hit");
      if (!hits.length) return;
      if (hits[at]) hits[at].classList.remove("now");
      at = (at + step + hits.length) % hits.length;
      hits[at].classList.add("now");
      hits[at].scrollIntoView({ block: "nearest" });
      output.textContent = (at + 1) + " of " + hits.length + (hits.length === MOST_HITS ? " or more" : "");
    }

    function search() {
      var wanted = input.value, mine = asked += 1;
      if (!wanted) {
        if (shown !== null) parts.replaceChildren.apply(parts, shown);
        shown = null;
        output.textContent = "";
        return;
      }
      load().then(function (text) {
        if (mine !== asked) return; // something else was typed meanwhile
        if (shown === null) shown = Array.from(parts.childNodes);
        var found = marked(text, wanted);
        parts.replaceChildren(found);
        at = -1;
        if (found.querySelector("mark")) go(1); else output.textContent = "not found";
      }, function () { output.textContent = "The thinking could not be loaded."; whole = null; });
    }

    input.addEventListener("input", search);
    form.addEventListener("submit", function (event) { event.preventDefault(); go(1); });
    input.addEventListener("keydown", function (event) {
      if (event.key !== "Enter" || !event.shiftKey) return;
      event.preventDefault();
      go(-1);
    });
  }

  document.querySelectorAll("[data-search]").forEach(setUp);
})();
