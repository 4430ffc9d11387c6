"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const lines = new Map();
  for (const li of document.querySelectorAll("#steps li[data-step]")) lines.set(Number(li.dataset.step), li);
  const lives = [...document.querySelectorAll("#all .life")];
  const count = data.count;
  // Where one can stop: at each step, with the first note after it, and at each further note.
  const stops = [];
  const firstStop = [];
  for (let step = 0; step <= count; step++) {
    const notes = data.notes.filter((after) => after === data.first + step - 1).length;
    firstStop.push(stops.length);
    for (let said = Math.min(notes, 1); said <= notes; said++) stops.push({ step, said });
  }
  const end = stops.length - 1;
  let place = data.start ? end : 0;
  let timer = null;
  let chosen = -1;

  document.body.classList.add("live");
  at("controls").hidden = false;
  at("slider").max = end;
  at("choice").hidden = false;

  const make = (name, text, className) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    if (className) node.className = className;
    return node;
  };

  function show() {
    const { step, said } = stops[place];
    const number = data.first + step - 1;
    const line = lines.get(number);
    for (const li of document.querySelectorAll("[aria-current]")) li.removeAttribute("aria-current");
    for (const li of document.querySelectorAll(`li[data-step="${number}"]`)) li.setAttribute("aria-current", "step");
    const note = at("note");
    note.replaceChildren();
    let after = data.first - 1;
    let notes = 0;
    let latest = null;
    for (const li of at("steps").children) {
      if (li.dataset.step) { after = Number(li.dataset.step); notes = 0; }
      if (li.classList.contains("said")) notes++;
      li.classList.toggle("ahead", after > number || (after === number && notes > said));
      if (after !== number || notes > said) continue;
      latest = li;
      if (notes === 0) continue;
      if (notes > 1) note.append("\n");
      note.append(...li.cloneNode(true).childNodes);
    }
    note.hidden = !said;
    for (const li of document.querySelectorAll("#story li")) li.classList.toggle("ahead", Number(li.dataset.step ?? li.dataset.after) > number);
    const sentence = at("sentence");
    sentence.replaceChildren();
    if (line) {
      sentence.append(make("small", `${line.dataset.time} s`), " ", line.lastElementChild.textContent);
      const list = at("steps");
      const top = latest.offsetTop - list.clientHeight / 2;
      if (latest.offsetTop < list.scrollTop || latest.offsetTop + latest.clientHeight > list.scrollTop + list.clientHeight) list.scrollTop = top;
    } else {
      at("steps").scrollTop = 0;
      sentence.append(count ? "Before the first step." : "There are no steps.");
    }
    const edge = edgeOf(step);
    at("cursor").setAttribute("visibility", step ? "visible" : "hidden");
    at("cursor").style.transform = `translateX(${Math.max(edge, 0)}px)`;
    const veil = step === count ? data.width : step ? edge + data.column : data.margin / 2;
    at("veil").style.transform = `translateX(${veil - data.width}px)`;
    scrollToEdge();
    at("slider").value = place;
    at("slider").setAttribute("aria-valuetext", `step ${step} of ${count}`);
    at("position").textContent = `${step} of ${count}`;
    at("first").disabled = at("back").disabled = place === 0;
    at("next").disabled = at("last").disabled = place === end;
    showState(number);
  }

  function edgeOf(step) {
    return data.margin + (step - 1) * data.column;
  }

  function scrollToEdge() {
    const edge = edgeOf(stops[place].step);
    const box = at("scroll");
    const room = box.clientWidth - document.querySelector(".names").clientWidth;
    if (edge < box.scrollLeft || edge + data.column > box.scrollLeft + room) box.scrollLeft = edge - room / 2;
  }

  function scrollToLine(life) {
    const line = (life.querySelector(".line") ?? life).getBoundingClientRect();
    const box = at("scroll");
    const frame = box.getBoundingClientRect();
    const left = document.querySelector(".names").getBoundingClientRect().right;
    if (line.right < left || line.left > frame.right) box.scrollLeft += line.left - left - 40;
    if (line.top < frame.top || line.bottom > frame.bottom) box.scrollTop += line.top - frame.top - frame.height / 2;
  }

  function showState(number) {
    at("state-when").textContent = number < data.first ? "before the first step" : `after step ${number}`;
    const rows = data.places.map(() => ({ ready: [], "in flight": [], deferred: [] }));
    for (const [life, row, where, begin, end, holder] of data.stays) {
      if (begin > number || (end !== null && end <= number)) continue;
      const tag = data.lives[life].tag;
      rows[row][where === "held" ? "ready" : where].push(holder ? `${tag} (${holder})` : tag);
    }
    const body = document.querySelector("#state tbody");
    body.replaceChildren(...data.places.map(([name, kind], index) => {
      const tr = make("tr");
      const th = make("th", name);
      th.scope = "row";
      const unusual = data.spans.filter((one) => one[1] === index && one[2] <= number && (one[3] === null || one[3] > number));
      const shut = unusual.some((one) => one[0] === "closed"); // what it has nobody is told
      const words = [kind, ...unusual.map((one) => one[0])];
      th.append(make("small", words.join(", ")));
      tr.append(th);
      for (const where of ["ready", "in flight", "deferred"]) {
        const td = make("td");
        const tags = rows[index][where];
        if (kind === "topic" && where === "in flight") { tr.append(td); continue; }
        td.append(make("b", shut && !tags.length ? "–" : String(tags.length)));
        if (tags.length) td.append(make("small", tags.slice(0, 5).join(", ") + (tags.length > 5 ? `, ${tags.length - 5} more` : "")));
        tr.append(td);
      }
      return tr;
    }));
  }

  function go(to) {
    place = Math.min(Math.max(to, 0), end);
    show();
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    document.body.classList.remove("playing");
    at("play").setAttribute("aria-label", "Play");
  }

  function play() {
    if (timer !== null) return pause();
    if (place === end) go(0);
    document.body.classList.add("playing");
    at("play").setAttribute("aria-label", "Pause");
    timer = setInterval(() => {
      go(place + 1);
      if (place === end) pause();
    }, Number(at("speed").value));
  }

  function choose(index) {
    chosen = index === chosen ? -1 : index;
    document.body.classList.toggle("has-choice", chosen >= 0);
    lives.forEach((life, number) => life.classList.toggle("chosen", number === chosen));
    at("message").value = chosen < 0 ? "" : String(chosen);
    const story = at("story");
    story.replaceChildren();
    if (chosen < 0) return;
    const life = data.lives[chosen];
    story.append(make("pre", `${life.body}\nid ${life.id}`));
    if (!life.whole) story.append(make("p", "What happened to it before this record began is not known."));
    const list = make("ol");
    const steps = new Set(life.steps);
    const gaps = new Set(life.gaps);
    for (const li of at("steps").children) {
      if (steps.has(Number(li.dataset.step)) || gaps.has(Number(li.dataset.after))) list.append(li.cloneNode(true));
    }
    story.append(list);
    show();
  }

  const move = (to) => { pause(); go(to); };
  at("first").onclick = () => move(0);
  at("back").onclick = () => move(place - 1);
  at("next").onclick = () => move(place + 1);
  at("last").onclick = () => move(end);
  at("play").onclick = play;
  at("speed").onchange = () => { if (timer !== null) { pause(); play(); } };
  at("slider").oninput = () => move(Number(at("slider").value));
  at("message").onchange = () => {
    const value = at("message").value;
    choose(value === "" ? chosen : Number(value));
    if (chosen >= 0) scrollToLine(lives[chosen]);
  };
  document.addEventListener("click", (event) => {
    const life = event.target.closest("#all .life");
    if (life) return choose(Number(life.dataset.life));
    const line = event.target.closest("li[data-step]");
    if (line) move(firstStop[Number(line.dataset.step) - data.first + 1]);
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const life = event.target.closest(".life");
    if (life && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      return choose(Number(life.dataset.life));
    }
    if (event.key === "Escape" && chosen >= 0) return choose(chosen);
    if (event.target.closest("input, select")) return;
    if (event.key === " " && event.target.closest("button")) return;
    const keys = {
      ArrowRight: () => move(place + 1), ArrowLeft: () => move(place - 1),
      Home: () => move(0), End: () => move(end), " ": play,
    };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  window.addEventListener("resize", scrollToEdge);
  window.addEventListener("beforeprint", () => showState(data.first + count - 1));
  window.addEventListener("afterprint", show);
  show();
  document.body.getBoundingClientRect(); // what is there at first does not move there
  document.body.classList.add("moving");
})();
