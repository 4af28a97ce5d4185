// Makes the upload form a folder picker with drag and drop and a progress bar. The form works
// without this script: then the folder's files are chosen one by one.
(function () {
  "use strict";
  var form = document.querySelector("form[data-upload]");
  if (!form) return;
  var input = form.querySelector("input[type=file]");
  var zone = form.querySelector("[data-drop]");
  var list = form.querySelector("[data-picked]");
  var bar = form.querySelector("[data-progress]");
  var status = form.querySelector("[data-status]");
  var button = form.querySelector("[data-send]");
  var chosen = [];

  input.setAttribute("webkitdirectory", "");
  input.required = false;

  function size(bytes) {
    var units = ["B", "kB", "MB", "GB", "TB"], unit = 0;
    while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
    return (unit === 0 ? bytes : bytes.toFixed(1)) + " " + units[unit];
  }

  function show(entries) {
    chosen = entries;
    list.replaceChildren.apply(list, entries.map(function (entry) {
      var row = document.createElement("li");
      var name = document.createElement("span");
      var bytes = document.createElement("span");
      name.textContent = entry.path;
      bytes.textContent = size(entry.file.size);
      row.append(name, bytes);
      return row;
    }));
    var total = entries.reduce(function (sum, entry) { return sum + entry.file.size; }, 0);
    status.textContent = entries.length + (entries.length === 1 ? " file, " : " files, ") + size(total);
    var name = form.elements.namedItem("name");
    if (!name.value && entries.length && entries[0].path.includes("/")) {
      name.value = entries[0].path.split("/")[0].replace(/[^A-Za-z0-9_-]+/g, "-");
    }
  }

  input.addEventListener("change", function () {
    show(Array.from(input.files).map(function (file) {
      return { file: file, path: file.webkitRelativePath || file.name };
    }));
  });

  function readAll(reader) {
    return new Promise(function (resolve, reject) { reader.readEntries(resolve, reject); })
      .then(function (batch) {
        if (!batch.length) return [];
        return readAll(reader).then(function (rest) { return batch.concat(rest); });
      });
  }

  function walk(entry) {
    if (entry.isFile) {
      return new Promise(function (resolve, reject) {
        entry.file(function (file) {
          resolve([{ file: file, path: entry.fullPath.replace(/^\//, "") }]);
        }, reject);
      });
    }
    return readAll(entry.createReader())
      .then(function (children) { return Promise.all(children.map(walk)); })
      .then(function (parts) { return parts.flat(); });
  }

  ["dragenter", "dragover"].forEach(function (kind) {
    zone.addEventListener(kind, function (event) { event.preventDefault(); zone.classList.add("over"); });
  });
  ["dragleave", "drop"].forEach(function (kind) {
    zone.addEventListener(kind, function () { zone.classList.remove("over"); });
  });
  zone.addEventListener("drop", function (event) {
    event.preventDefault();
    var entries = Array.from(event.dataTransfer.items)
      .map(function (item) { return item.webkitGetAsEntry(); }).filter(Boolean);
    Promise.all(entries.map(walk)).then(function (parts) { show(parts.flat()); }, function () {
      status.textContent = "The folder could not be read; choose it with the button instead.";
    });
  });

  function clearErrors() {
    form.querySelectorAll(".error").forEach(function (element) { element.remove(); });
    form.querySelectorAll("[aria-invalid]").forEach(function (e) { e.removeAttribute("aria-invalid"); });
  }

  function refuse(errors) {
    clearErrors();
    Object.keys(errors).forEach(function (name) {
      var slot = form.querySelector('[data-errors="' + name + '"]') ||
        form.querySelector('[data-errors="__all__"]');
      errors[name].forEach(function (sentence) {
        var line = document.createElement("span");
        line.className = "error";
        line.setAttribute("role", "alert");
        line.textContent = sentence;
        slot.append(line);
      });
      var field = form.elements.namedItem(name);
      if (field && field.setAttribute) field.setAttribute("aria-invalid", "true");
    });
  }

  form.addEventListener("submit", function (event) {
    event.preventDefault();
    clearErrors();
    if (!chosen.length) {
      refuse({ files: ["files: choose the checkpoint's folder (config.json, tokenizer.json, *.safetensors)."] });
      return;
    }
    if (chosen.length > Number(form.dataset.upload)) {
      refuse({ files: ["files: " + chosen.length + " are too many for a checkpoint; choose one checkpoint's folder."] });
      return;
    }
    var data = new FormData();
    data.append("csrfmiddlewaretoken", form.elements.namedItem("csrfmiddlewaretoken").value);
    data.append("name", form.elements.namedItem("name").value);
    chosen.forEach(function (entry) {
      data.append("files", entry.file);
      data.append("paths", entry.path);
    });
    var request = new XMLHttpRequest();
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", function (progress) {
      if (!progress.lengthComputable) return;
      bar.value = progress.loaded / progress.total;
      status.textContent = progress.loaded === progress.total ? "Checking the files…" :
        size(progress.loaded) + " of " + size(progress.total);
    });
    function done() { button.disabled = false; bar.hidden = true; bar.value = 0; }
    request.addEventListener("load", function () {
      if (request.status === 200 && request.response) {
        window.location.assign(request.response.location);
        return;
      }
      done();
      status.textContent = "";
      if (request.status === 400 && request.response && request.response.errors) {
        refuse(request.response.errors);
      } else {
        refuse({ __all__: ["The server answered " + request.status + "; try again, or see its log."] });
      }
    });
    request.addEventListener("error", function () {
      done();
      status.textContent = "";
      refuse({ __all__: ["The connection broke before everything was sent; try again."] });
    });
    button.disabled = true;
    bar.hidden = false;
    request.send(data);
  });
})();
