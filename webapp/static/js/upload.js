// The upload form as a folder picker with drag and drop. The files go in pieces by the tus protocol
// (tus-js-client), three at a time, so that a broken connection, a pause or a restart loses little.
// The form works without this script: then the folder's files are chosen one by one and sent whole.
(function () {
  "use strict";
  var form = document.querySelector("form[data-upload]");
  if (!form) return;
  var PARALLEL = 3;
  var PIECE_BYTES = 16 * 1024 * 1024;
  var RETRY_MS = [0, 1000, 2000, 4000, 8000, 15000, 30000, 60000];
  var SPEED_SECONDS = 10;

  var find = function (what) { return form.querySelector("[data-" + what + "]"); };
  var input = form.querySelector("input[type=file]");
  var zone = find("drop"), list = find("picked"), bar = find("progress"), status = find("status");
  var button = find("send"), pause = find("pause");
  var token = form.elements.namedItem("csrfmiddlewaretoken").value;
  var known = document.getElementById("upload-so-far");
  var upload = known ? JSON.parse(known.textContent) : null;
  var chosen = [], running = [], waiting = [], paused = false, history = [], suggested = "";

  input.setAttribute("webkitdirectory", "");
  input.required = false;

  // --- choosing

  function size(bytes) {
    var units = ["bytes", "KB", "MB", "GB", "TB"], unit = 0;
    while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
    return (unit === 0 ? bytes : bytes.toFixed(1)) + " " + units[unit];
  }

  function duration(seconds) {
    if (seconds < 90) return Math.ceil(seconds) + " s";
    return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
  }

  function row(entry) {
    var item = document.createElement("li");
    var name = document.createElement("span");
    entry.label = document.createElement("span");
    name.textContent = entry.path;
    entry.label.textContent = size(entry.file.size);
    item.append(name, entry.label);
    return item;
  }

  // As services.is_left_out: git's own files, and documents whose names are taken nowhere.
  function isLeftOut(path) {
    var parts = path.split("/");
    if (parts.some(function (part) { return part.startsWith("."); })) return true;
    return /\.(md|pdf)$/i.test(path) && (parts.length > 3 ||
      !parts.every(function (part) { return /^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$/.test(part); }));
  }

  function told(leftOut) {
    if (!leftOut.length) return "";
    var names = Array.from(new Set(leftOut.map(function (entry) {
      return entry.path.replace(/((^|\/)\.[^/]*\/).*$/, "$1");  // a hidden folder as one
    })));
    var more = names.length > 8 ? " and " + (names.length - 8) + " more" : "";
    return "; left out, as no model is loaded from them: " + names.slice(0, 8).join(", ") + more;
  }

  function show(entries) {
    var tops = new Set(entries.map(function (entry) { return entry.path.split("/")[0]; }));
    var inFolder = tops.size === 1 && entries.every(function (e) { return e.path.includes("/"); });
    var top = inFolder ? entries[0].path.split("/")[0] : "";
    entries.forEach(function (entry) {
      if (inFolder) entry.path = entry.path.slice(top.length + 1);
      entry.sent = 0;
    });
    var leftOut = entries.filter(function (entry) { return isLeftOut(entry.path); });
    entries = entries.filter(function (entry) { return !isLeftOut(entry.path); });
    chosen = entries;
    list.replaceChildren.apply(list, entries.map(row));
    var total = entries.reduce(function (sum, entry) { return sum + entry.file.size; }, 0);
    status.textContent = entries.length + (entries.length === 1 ? " file, " : " files, ") + size(total) + told(leftOut);
    var name = form.elements.namedItem("name");
    if (name && top && (!name.value || name.value === suggested)) {
      name.value = suggested = top.replace(/[^A-Za-z0-9_-]+/g, "-");
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
    if (!button.disabled) {
      var entries = Array.from(event.dataTransfer.items)
        .map(function (item) { return item.webkitGetAsEntry(); }).filter(Boolean);
      Promise.all(entries.map(walk)).then(function (parts) { show(parts.flat()); }, function () {
        status.textContent = "The folder could not be read; choose it with the button instead.";
      });
    }
  });

  // --- saying what is wrong

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
        line.className = "error error-text";
        line.setAttribute("role", "alert");
        line.textContent = sentence;
        slot.append(line);
      });
      var field = form.elements.namedItem(name);
      if (field && field.setAttribute) field.setAttribute("aria-invalid", "true");
    });
  }

  function stopped(errors) {
    running.forEach(function (transfer) { transfer.abort(); });
    running = [];
    waiting = [];
    button.disabled = false;
    button.textContent = upload ? "Go on" : "Upload";
    input.disabled = false;
    pause.hidden = true;
    if (errors) refuse(errors);
  }

  // --- the same files again

  // Two steps of one training have files of the same names and lengths: a rest of the one must not
  // be sent behind a beginning of the other. So this browser keeps when each file was changed last.
  function memory() { return "upload " + upload.page; }

  function remembered() {
    try { return JSON.parse(localStorage.getItem(memory())) || {}; } catch (error) { return {}; }  // barred
  }

  function remember() {
    var times = remembered();
    chosen.forEach(function (entry) { times[entry.path] = entry.file.lastModified; });
    try { localStorage.setItem(memory(), JSON.stringify(times)); } catch (error) { /* full, or barred */ }
  }

  function changed() {
    var times = remembered();
    return chosen.filter(function (entry) {
      return entry.path in times && times[entry.path] !== entry.file.lastModified;
    });
  }

  function forget() {
    try { localStorage.removeItem(memory()); } catch (error) { /* barred */ }
  }

  // --- sending

  function kept() { return upload ? "; what was sent is kept. " : ". "; }

  // What an answer means that is no sentence of ours: a page to sign in, a proxy's error, nothing.
  function unexpected(number, wasLedAway) {
    return wasLedAway ? "You are signed out" + kept() + "Reload this page and sign in."
      : "The server answered " + number + kept() + "Reload this page, or see the server’s log.";
  }

  function post(address, fields) {
    var data = new FormData();
    fields.forEach(function (pair) { data.append(pair[0], pair[1]); });
    return fetch(address, { method: "POST", body: data, headers: { "X-CSRFToken": token } })
      .then(function (answer) {
        var wrong = { errors: { __all__: [unexpected(answer.status, answer.redirected)] } };
        return answer.json().then(function (value) {
          if (answer.ok) return value;
          throw value.errors ? value : wrong;
        }, function () { throw wrong; });
      }, function () {
        throw { errors: { __all__: ["The server cannot be reached" + kept() + "Try again when it is back."] } };
      });
  }

  function reason(entry, error) {
    var answer = error.originalResponse;
    if (!answer) return entry.path + ": the connection broke" + kept() + "Go on when it is back.";
    if (/^text\/plain/.test(answer.getHeader("Content-Type") || "") && answer.getBody()) return answer.getBody();
    var asked = new URL(error.originalRequest.getURL(), window.location.href).pathname;
    var answered = answer.getUnderlyingObject().responseURL;
    return unexpected(answer.getStatus(), answered && new URL(answered).pathname !== asked);
  }

  // What another try may mend: a broken connection, a server that is not well, our own last try that
  // is still being written (409, 423), a piece that was damaged on its way (460).
  function mayMend(error) {
    var number = error.originalResponse ? error.originalResponse.getStatus() : 0;
    var again = (!number || number >= 500 || [409, 423, 460].indexOf(number) >= 0) && navigator.onLine;
    if (again && !number) status.textContent = "The connection broke; trying again…";
    return again;
  }

  // Each piece with its SHA-256, where the browser has it (https, or this very machine).
  function Stack() { this.inner = new tus.DefaultHttpStack({}); }
  Stack.prototype.getName = function () { return "checked"; };
  Stack.prototype.createRequest = function (method, address) {
    var request = this.inner.createRequest(method, address);
    var send = request.send.bind(request);
    request.send = function (body) {
      if (method !== "PATCH" || !body || !window.crypto.subtle) return send(body);
      return body.arrayBuffer().then(function (bytes) {
        return window.crypto.subtle.digest("SHA-256", bytes);
      }).then(function (digest) {
        var text = btoa(String.fromCharCode.apply(null, new Uint8Array(digest)));
        request.setHeader("Upload-Checksum", "sha256 " + text);
        return send(body);
      });
    };
    return request;
  };

  function progress() {
    var total = 0, sent = 0, now = Date.now() / 1000;
    chosen.forEach(function (entry) { total += entry.file.size; sent += entry.sent; });
    bar.value = total ? sent / total : 1;
    history.push([now, sent]);
    while (history.length > 2 && now - history[0][0] > SPEED_SECONDS) history.shift();
    var text = size(sent) + " of " + size(total);
    var seconds = now - history[0][0], speed = seconds > 0 ? (sent - history[0][1]) / seconds : 0;
    if (paused) text += ", paused";
    else if (speed > 0) text += " · " + size(speed) + "/s · " + duration((total - sent) / speed) + " left";
    status.textContent = text;
  }

  function transfer(entry) {
    var before = upload.files.find(function (file) { return file.path === entry.path; });
    return new tus.Upload(entry.file, {
      endpoint: upload.endpoint,
      uploadUrl: before && before.length === entry.file.size ? before.url : null,
      chunkSize: PIECE_BYTES,
      retryDelays: RETRY_MS,
      storeFingerprintForResuming: false,
      httpStack: new Stack(),
      headers: { "X-CSRFToken": token },
      metadata: { path: entry.path },
      onProgress: function (sent) {
        entry.sent = sent;
        entry.label.textContent = Math.floor(100 * sent / Math.max(entry.file.size, 1)) + " %";
        progress();
      },
      onSuccess: function () {
        entry.sent = entry.file.size;
        entry.label.textContent = "here";
        running.splice(running.indexOf(entry.transfer), 1);
        progress();
        next();
      },
      onShouldRetry: mayMend,
      onError: function (error) {
        stopped({ files: [reason(entry, error)] });
        status.textContent = "";
      },
    });
  }

  function next() {
    if (paused) return;
    while (running.length < PARALLEL && waiting.length) {
      var entry = waiting.shift();
      entry.transfer = transfer(entry);
      running.push(entry.transfer);
      entry.transfer.start();
    }
    if (!running.length && !waiting.length) finish();
  }

  function finish() {
    pause.hidden = true;
    status.textContent = "Handing the files over…";
    bar.removeAttribute("value");
    post(upload.finish, []).then(function (value) {
      forget();
      window.location.assign(value.location);
    }, function (wrong) {
      bar.value = 0;
      bar.hidden = true;
      status.textContent = "";
      if (wrong.refused) {
        forget();
        upload = null;
      }
      stopped(wrong.errors);
    });
  }

  pause.addEventListener("click", function () {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    history = [];
    running.forEach(function (one) { if (paused) one.abort(); else one.start(); });
    progress();
    next();
  });

  function start() {
    waiting = chosen.slice();
    history = [];
    paused = false;
    pause.textContent = "Pause";
    pause.hidden = false;
    bar.hidden = false;
    next();
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
    var others = upload ? changed() : [];
    if (others.length) {
      refuse({ files: ["files: " + others[0].path + " is not the file that was sent, or was changed since; choose the same " +
        "folder again, or delete this upload and begin a new one."] });
      return;
    }
    button.disabled = true;
    input.disabled = true;
    if (upload) { remember(); start(); return; }
    var fields = [["name", form.elements.namedItem("name").value]];
    var project = form.elements.namedItem("project");
    if (project) fields.push(["project", project.value]);
    chosen.forEach(function (entry) {
      fields.push(["paths", entry.path], ["lengths", String(entry.file.size)]);
    });
    post(form.dataset.begin, fields).then(function (value) {
      upload = value;
      // A reload finds this upload again.
      window.history.replaceState(null, "", upload.page);
      remember();
      start();
    }, function (wrong) { stopped(wrong.errors); });
  });

  window.addEventListener("beforeunload", function (event) { if (running.length) event.preventDefault(); });
})();
