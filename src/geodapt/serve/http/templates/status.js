"use strict";
const at = (id) => document.getElementById(id);
const rates = [];
let before = null, running = null;

const seconds = (value) =>
  value === null ? "–" : value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(1)} s`;
function showTimes(id, { p50, p95 }) {
  at(id).textContent = seconds(p50);
  at(`${id}-most`).textContent = seconds(p95);
}
const rate = (value) => (value < 10 ? value.toFixed(1) : String(Math.round(value)));

async function asked(path, options = {}) {
  const response = await fetch(path, options);
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(body?.error?.message ?? `the server answered ${response.status}`);
  }
  return response;
}

function say(text, bad) {
  at("state").textContent = text;
  at("state").classList.toggle("bad", bad);
}

async function look() {
  try {
    const now = await (await asked("status")).json();
    const time = performance.now() / 1000;
    const replicas = now.replicas === null ? "" : `, replicas: ${now.replicas.length}`;
    say((now.ready ? "ready" : "not ready") + replicas, !now.ready);
    at("running").textContent = now.running;
    at("queued").textContent = now.queued;
    showTimes("first-token", now.first_token);
    showTimes("whole-answer", now.whole_answer);
    if (before) {
      const passed = time - before.time;
      const tokens = Math.max(0, (now.tokens - before.now.tokens) / passed);
      at("token-rate").textContent = rate(tokens);
      at("request-rate").textContent = rate(Math.max(0, (now.requests - before.now.requests) / passed));
      rates.push(tokens);
      if (rates.length > 120) rates.shift();
      draw();
    }
    before = { time, now };
    showAdapters((await (await asked("v1/adapters")).json()).data);
  } catch (error) {
    say(error.message, true);
  }
  setTimeout(look, 1000);
}

function draw() {
  const most = Math.max(...rates, 1e-9);
  at("history").setAttribute(
    "points", rates.map((v, i) => `${i + 120 - rates.length},${38 - 36 * (v / most)}`).join(" "));
  at("most").textContent = `at most ${rate(most < 1e-6 ? 0 : most)}`;
}

function cell(text, number) {
  const made = document.createElement("td");
  made.textContent = text;
  if (number) made.className = "number";
  return made;
}

function showAdapters(found) {
  at("no-adapters").hidden = found.length > 0;
  at("adapter-count").textContent = found.length;
  at("adapters").replaceChildren(...found.map((adapter) => {
    const row = document.createElement("tr");
    const version = adapter.version ? adapter.version.split("#")[1].slice(0, 8) : "–";
    const where = adapter.resident ? "device" : adapter.loaded ? "memory" : "folder";
    row.append(cell(adapter.name), cell(version), cell(where), cell(adapter.rank ?? "–", true),
      cell(adapter.requests, true));
    return row;
  }));
  const names = new Set(found.map((adapter) => adapter.name));
  for (const slider of at("gate").querySelectorAll("input")) {
    if (names.delete(slider.dataset.name)) continue;
    for (const part of at("gate").querySelectorAll("[data-name]")) {
      if (part.dataset.name === slider.dataset.name) part.remove();
    }
  }
  for (const name of names) addSlider(name);
}

let sliders = 0;

function addSlider(name) {
  const label = document.createElement("label"), slider = document.createElement("input");
  const shown = document.createElement("output");
  Object.assign(slider, { type: "range", min: -1, max: 2, step: 0.05, value: 0, id: `weight-${sliders++}` });
  label.htmlFor = slider.id;
  label.textContent = name;
  for (const part of [label, slider, shown]) part.dataset.name = name;
  const show = () => { shown.textContent = Number(slider.value).toFixed(2); showRequest(); };
  slider.addEventListener("input", show);
  at("gate").append(label, slider, shown);
  show();
}

function request() {
  const adapters = {};
  for (const slider of at("gate").querySelectorAll("input")) {
    if (Number(slider.value)) adapters[slider.dataset.name] = Number(slider.value);
  }
  const body = {
    model: "base",
    prompt: at("prompt").value,
    max_tokens: Number(at("tokens").value),
    temperature: Number(at("temperature").value),
  };
  if (at("seed").value !== "") body.seed = Number(at("seed").value);
  if (Object.keys(adapters).length) {
    body.adapters = adapters;
    if (at("atoms").checked) body.atoms = { keep: Number(at("keep").value) };
  }
  return body;
}

const showRequest = () => { at("request").textContent = JSON.stringify(request(), null, 2); };

async function send(event) {
  event.preventDefault();
  running = new AbortController();
  at("send").disabled = true;
  at("stop").disabled = false;
  at("answer").classList.remove("error");
  at("answer").textContent = "";
  try {
    const response = await asked("v1/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...request(), stream: true }),
      signal: running.signal,
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const one of events) take(one.slice("data: ".length));
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      at("answer").classList.add("error");
      at("answer").append(error.message);
    }
  }
  running = null;
  at("send").disabled = false;
  at("stop").disabled = true;
}

function take(data) {
  if (data === "[DONE]") return;
  const event = JSON.parse(data);
  if (event.error) throw new Error(event.error.message);
  at("answer").append(event.choices[0]?.text ?? "");
}

at("try").addEventListener("submit", send);
at("stop").addEventListener("click", () => running?.abort());
at("try").addEventListener("input", showRequest);
at("atoms").addEventListener("change", () => { at("keep").disabled = !at("atoms").checked; });
at("keep").addEventListener("input", () => { at("keep-shown").textContent = Number(at("keep").value).toFixed(2); });
showRequest();
look();
