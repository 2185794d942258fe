(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const sheet = sheetFiles(data);
  const at = id => document.getElementById(id);
  const words = data.words;
  const said = (name, values = {}) => words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  const KEYS = Object.fromEntries(data.levels.map((choice, number) => [number + 1, choice]));
  for (const letter of data.ranking ? data.levels : []) KEYS[letter.toLowerCase()] = letter;
  for (const key of data.ranking ? [] : ["a", "t", "b"]) {
    KEYS[key] = data.levels.find(choice => choice.toLowerCase().startsWith(key) && !choice.endsWith("clearly"));
  }
  const IDLE = 180000; // ms without input after which time no longer counts: the rater has left

  // --- text: invisible characters are shown as code points; everything is inserted as text, never as markup
  const UNSEEN = new RegExp(
    "\\r\\n|[\\0-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f" +
      "\\ufeff\\ufff9-\\ufffb]|\\udb40[\\udc00-\\udc7f]",
    "g",
  );
  const sign = part => "U+" + part.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  const element = (name, kind, ...inside) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    made.append(...inside);
    return made;
  };
  /** A text as nodes, with signs for what can't be seen. */
  function nodes(text) {
    const parts = [];
    let from = 0;
    for (const found of text.matchAll(UNSEEN)) {
      parts.push(text.slice(from, found.index));
      parts.push(found[0] === "\r\n" ? "\n" : element("span", "control", sign(found[0])));
      from = found.index + found[0].length;
    }
    return [...parts, text.slice(from)];
  }
  // blocks between fences, and what stands in backticks
  const CODE = /^(`{3,}|~{3,})[^]*?(?:^\1[^\n]*$|$(?![^]))|`[^`\n]+`/gm;
  function show(place, text) {
    if (text === "") return place.replaceChildren(element("span", "empty", words.empty));
    const parts = [];
    let from = 0;
    for (const found of text.matchAll(CODE)) {
      parts.push(...nodes(text.slice(from, found.index)), element("span", "code", ...nodes(found[0])));
      from = found.index + found[0].length;
    }
    place.replaceChildren(...parts, ...nodes(text.slice(from)));
  }
  /** An answer: as it was written, or the HTML that the page has of it. */
  function showAnswer(place, text, id) {
    const made = data.rendered && !practice && text !== "" ? at(id) : null;
    place.classList.toggle("rendered", made !== null);
    place.classList.toggle("code", data.code && made === null);
    if (made === null) show(place, text);
    else place.replaceChildren(made.content.cloneNode(true));
  }

  // --- the work of one rater, stored after each change
  let rater = null; // of data.raters: { name, order, rows: [[row, hash, item, left]] }
  let work = null; // row -> { hash, choices: {attribute: choice}, comment, seconds }
  let here = 0; // number of the row that is shown; rater.rows.length is the end
  let active = 0; // number of the marked question
  let unsaved = false; // since the last CSV
  let kept = true;
  let practiced = false; // whether the practice items are done
  let undone = []; // [row number, attribute, choice before]
  let practice = null; // during the practice items: { rater, work, here } of the study itself
  const place = () => "human-eval/" + data.study + "/" + rater.name;
  const bare = hash => String(hash).replace(/^h/, ""); // earlier versions had no letter
  const made = number => {
    const [row, hash] = rater.rows[number];
    return (work[row] ??= { hash, choices: {}, comment: "", seconds: 0, reasons: {} });
  };
  const touched = number => {
    const done = work[rater.rows[number][0]];
    return Boolean(done) && (Object.keys(done.choices).length > 0 || done.comment !== "" || given(done).length > 0);
  };
  /** The letters of a ranking, from best to worst; and whether a question is answered, a ranking with all letters. */
  const ranked = choice => (choice ? choice.split(" > ") : []);
  const whole = choice => (data.ranking ? ranked(choice).length === data.ranking : Boolean(choice));
  const given = done => ["A", "B"].flatMap(side => done.reasons?.[side] ?? []);
  const answered = number => {
    const done = work[rater.rows[number][0]];
    return Boolean(done) && rater.order.every(name => whole(done.choices[name]));
  };
  /** Whether what must be said beside the choices is said: a reason unless all is a tie, a comment long enough. */
  const explained = number => {
    const done = work[rater.rows[number][0]];
    if (practice) return true;
    const tied = rater.order.every(name => done.choices[name] === "tie");
    const reasoned = !data.reasons.length || tied || given(done).length > 0;
    return reasoned && [...done.comment.trim()].length >= data.least;
  };
  const complete = number => answered(number) && explained(number);
  const numComplete = () => rater.rows.filter((_, number) => complete(number)).length;
  function keep() {
    if (practice) return;
    try {
      localStorage.setItem(place(), JSON.stringify({ work, here, unsaved, practiced }));
      kept = true;
    } catch {
      kept = false;
    }
    at("unkept").hidden = kept;
  }
  function recall(text) {
    work = {};
    here = 0;
    unsaved = practiced = false;
    try {
      const old = JSON.parse(text ?? localStorage.getItem(place()) ?? "{}");
      for (const [row, hash] of rater.rows) {
        const done = old.work?.[row];
        if (done && bare(done.hash) === bare(hash)) work[row] = done; // the texts may have changed since
      }
      here = Math.min(Math.max(Number(old.here) || 0, 0), rater.rows.length);
      unsaved = Boolean(old.unsaved);
      practiced = Boolean(old.practiced);
    } catch {
      kept = false;
    }
  }

  // --- time: counted only while the item is visible and the rater active
  let since = null, life = 0;
  function tick() {
    const now = performance.now();
    if (since !== null && here < rater.rows.length) {
      made(here).seconds += Math.max(0, Math.min(now, life + IDLE) - since) / 1000;
    }
    since = document.visibilityState === "visible" && !at("rate").hidden ? now : null;
    life = now;
  }
  function alive() {
    if (since !== null && performance.now() > life + IDLE) tick();
    life = performance.now();
  }

  // --- the screens
  const screens = ["choose", "start", "rate", "end"];
  function only(name) {
    for (const each of screens) at(each).hidden = each !== name;
    at("moves").hidden = name !== "rate";
  }
  let hush = 0;
  function say(text, long = false) {
    at("said").textContent = text;
    at("said").classList.add("shown");
    clearTimeout(hush);
    hush = setTimeout(() => at("said").classList.remove("shown"), long ? 9000 : 2600);
  }
  function asked() {
    for (const list of document.querySelectorAll("dl.words")) {
      list.replaceChildren(...rater.order.map(name => {
        const definition = element("dd", "", data.definitions[name] ?? "");
        return element("div", "", element("dt", "", named(name)), definition);
      }));
    }
  }
  const named = name => data.names[name];
  function meaning(choice) {
    if (data.ranking) return choice;
    const [letter, strength] = choice.split(" ");
    return letter === "tie" ? words.tie_long : said(strength ? "better_" + strength : "better", { letter });
  }
  function progress() {
    const num = numComplete(), all = rater.rows.length;
    const number = element("b", "", said(practice ? "practice" : "item", { number: here + 1 }));
    const item = [number, ` ${said("of", { count: all })}`];
    at("save").disabled = practice !== null;
    if (practice) return at("count").replaceChildren(...item);
    const shown = at("rate").hidden ? [] : [...item, " · "];
    at("count").replaceChildren(...shown, said("rated", { count: num }));
    at("bar").setAttribute("aria-valuemax", all);
    at("bar").setAttribute("aria-valuenow", num);
    at("bar").firstElementChild.style.width = (all ? (100 * num) / all : 0) + "%";
    at("undo").disabled = undone.length === 0;
    at("save").classList.toggle("main", unsaved && num === all);
  }
  function questions() {
    at("questions").replaceChildren(...rater.order.map((name, number) => {
      const group = element("div", "question");
      group.setAttribute("role", "group");
      group.setAttribute("aria-labelledby", "question-" + number);
      group.setAttribute("aria-describedby", "definition-" + number);
      group.tabIndex = -1;
      const title = element("h2", "", named(name));
      title.id = "question-" + number;
      const definition = element("p", "", data.definitions[name] ?? "");
      definition.id = "definition-" + number;
      const choices = element("div", "choices");
      choices.classList.toggle("graded", data.levels.length > 3 || data.ranking > 0);
      for (const [place, choice] of data.levels.entries()) {
        const [letter, strength] = choice.split(" ");
        const label = letter === "tie" ? words.tie : letter;
        const button = element("button", "", label, element("kbd", "", String(place + 1)));
        if (strength) button.append(element("small", "", words[strength]));
        if (data.ranking) button.append(element("small", ""));
        button.type = "button";
        button.dataset.choice = choice;
        button.setAttribute("aria-label", `${named(name)}: ${meaning(choice)}`);
        button.addEventListener("click", () => choose(number, choice));
        choices.append(button);
      }
      group.append(title, definition, choices);
      group.addEventListener("focusin", () => mark(number, false));
      return group;
    }));
  }
  function answers() {
    const done = work[rater.rows[here][0]];
    [...at("questions").children].forEach((group, number) => {
      group.classList.toggle("active", number === active);
      const choice = done?.choices[rater.order[number]];
      if (whole(choice)) group.classList.remove("open");
      for (const button of group.querySelectorAll("button")) {
        const rank = ranked(choice).indexOf(button.dataset.choice);
        button.setAttribute("aria-pressed", String(data.ranking ? rank >= 0 : choice === button.dataset.choice));
        if (data.ranking) button.querySelector("small").textContent = rank < 0 ? "–" : `${rank + 1}.`;
      }
    });
    for (const button of at("reasons").querySelectorAll("button")) {
      const { side, reason } = button.dataset;
      button.setAttribute("aria-pressed", String(Boolean(done?.reasons?.[side]?.includes(reason))));
    }
    explain();
    const ready = complete(here), last = here === rater.rows.length - 1 && !practice;
    const label = ready ? (last ? words.finish : words.next) : words.skip;
    at("next").replaceChildren(label, element("kbd", "", ready ? "Enter" : "→"));
    at("next").classList.toggle("main", ready);
    at("back").disabled = here === 0;
    progress();
  }
  function reasons() {
    if (data.least) at("comment-rule").textContent = `(${said("least", { count: data.least })})`;
    at("reasons").hidden = data.reasons.length === 0;
    if (data.reasons.length) at("reasons").replaceChildren(
      element("legend", "", words.reasons + " ", element("span", "", `(${words.reasons_needed})`)),
      ...["A", "B"].map(side => element("div", "side", element("b", "", side), ...data.reasons.map(reason => {
        const button = element("button", "", reason);
        button.type = "button";
        Object.assign(button.dataset, { side, reason });
        button.setAttribute("aria-label", `${side}: ${reason}`);
        button.addEventListener("click", () => {
          const all = (made(here).reasons ??= {}), now = all[side] ?? [];
          all[side] = now.includes(reason) ? now.filter(each => each !== reason) : [...now, reason];
          unsaved = true;
          answers();
          keep();
        });
        return button;
      }))),
    );
  }
  /** What is right of a practice item, once it is answered. */
  function explain() {
    const shown = practice !== null && answered(here), item = data.practice[here];
    at("explained").hidden = !shown;
    if (!shown) return;
    const right = Object.entries(item.answers).map(([name, choice]) => `${named(name)}: ${meaning(choice)}`);
    at("explained").replaceChildren(element("b", "", said("expected", { answers: right.join("; ") })), " " + item.why);
  }
  function begin() {
    if (practiced || !data.practice.length) return go(here);
    practice = { rater, work, here };
    rater = { ...rater, rows: data.practice.map((_, number) => ["practice " + number, "", number, 0]) };
    work = {};
    go(0);
  }
  function beginStudy() {
    ({ rater, work, here } = practice);
    practice = since = null;
    practiced = true;
    undone = [];
    at("explained").hidden = true;
    go(here);
    say(words.practice_done);
  }
  function mark(number, focus = true) {
    active = number;
    [...at("questions").children].forEach((group, each) => group.classList.toggle("active", each === number));
    if (focus) {
      const group = at("questions").children[number];
      group.focus({ preventScroll: true });
      group.scrollIntoView({ block: "nearest" });
    }
  }
  function go(number) {
    tick();
    at("said").classList.remove("shown");
    here = Math.min(Math.max(number, 0), rater.rows.length);
    if (here === rater.rows.length && practice) return beginStudy();
    if (here === rater.rows.length) {
      end();
    } else {
      only("rate");
      const [row] = rater.rows[here], texts = shown(here);
      const [, , item, left] = rater.rows[here];
      show(at("prompt"), texts[0]);
      for (const [number, place] of places(left).entries()) {
        showAnswer(at("answer-" + "abcde"[number]), texts[number + 1], `text-${item}-${place}`);
      }
      fold();
      at("place").textContent = `${said("item", { number: here + 1 })} ${said("of", { count: rater.rows.length })}`;
      at("comment").value = work[row]?.comment ?? "";
      for (const group of at("questions").children) group.classList.remove("open");
      active = Math.max(0, rater.order.findIndex(name => !whole(work[row]?.choices[name])));
      scrollTo(0, 0);
      at("panel").scrollTop = 0;
      answers();
      jumps();
      // a screen reader hears where it is; the marked question needs no focus
      at("place").focus({ preventScroll: true });
    }
    tick();
    keep();
  }
  // --- a long prompt is folded, so that the answers are on the screen; what is below it is one step away
  function fold(folded = true) {
    const text = at("prompt");
    text.classList.toggle("folded", folded);
    const line = parseFloat(getComputedStyle(text).lineHeight);
    const long = !folded || text.scrollHeight > text.clientHeight + 4 * line; // less is not worth a step
    text.classList.toggle("folded", folded && long);
    at("fold").hidden = !long;
    at("fold").setAttribute("aria-expanded", String(!folded));
    at("fold").firstChild.textContent = folded ? words.show_prompt : words.fold_prompt;
    jumps();
  }
  const TARGETS = [["answers", words.answers], ["panel", words.questions]];
  const top = id => at(id).getBoundingClientRect().top;
  const below = () => TARGETS.find(([id]) => top(id) > top("moves") - 40);
  function jumps() {
    const target = at("rate").hidden ? undefined : below();
    at("jump").hidden = target === undefined;
    if (target) at("jump").firstChild.textContent = target[1];
  }
  function jump() {
    const target = below();
    if (target) at(target[0]).scrollIntoView({ block: "start" });
  }
  function end() {
    only("end");
    const open = rater.rows.length - numComplete();
    at("end-title").textContent = open ? words.not_done : words.all_rated;
    at("rest").textContent = open ? said("rest", { open, count: rater.rows.length }) : words.send;
    at("open").hidden = open === 0;
    progress();
    at("end-title").focus();
  }
  function change(number, name, choice) {
    const choices = made(number).choices;
    if (choice) choices[name] = choice;
    else delete choices[name];
    unsaved = true;
  }
  /** A ranking with one more letter at its end, or without one that it had; the last letter needs no choice. */
  /** A click fills the last place by itself. A key doesn't: whoever types all places would answer another question. */
  function ranking(before, letter, fill) {
    const had = ranked(before).includes(letter);
    const now = had ? ranked(before).filter(each => each !== letter) : [...ranked(before), letter];
    const left = data.levels.filter(each => !now.includes(each));
    if (fill && !had && left.length === 1) now.push(left[0]);
    return now.join(" > ");
  }
  function choose(number, choice, typed = false) {
    const name = rater.order[number], before = made(here).choices[name];
    undone.push([here, name, before]);
    change(here, name, data.ranking ? ranking(before, choice, !typed) : before === choice ? undefined : choice);
    const order = [...rater.order.keys()].map(step => (number + step) % rater.order.length);
    const open = order.find(each => !whole(made(here).choices[rater.order[each]]));
    active = open ?? number;
    const now = made(here).choices[name];
    const then = open === undefined ? words.all_answered : said("next_question", { name: named(rater.order[open]) });
    at("told").textContent = `${named(name)}: ${now ? meaning(now) : words.open}. ${then}`;
    answers();
    if (open !== undefined) at("questions").children[open].scrollIntoView({ block: "nearest" });
    else if (practice) at("explained").scrollIntoView({ block: "nearest" });
    keep();
  }
  function undo() {
    const last = undone.pop();
    if (!last) return say(words.nothing_undone);
    const [number, name, before] = last;
    change(number, name, before);
    if (number !== here) go(number);
    active = rater.order.indexOf(name);
    answers();
    keep();
    say(said("undone", { name: named(name) }));
  }
  function next(skip) {
    if (here === rater.rows.length) return;
    if (complete(here) || skip) return go(here + 1);
    if (answered(here)) return say(words.more_needed);
    const open = rater.order.flatMap((name, number) => (whole(made(here).choices[name]) ? [] : [number]));
    for (const number of open) at("questions").children[number].classList.add("open");
    mark(open[0]);
    say(said("still_open", { open: open.length, count: rater.order.length }));
  }
  function nextOpen() {
    const all = rater.rows.length;
    const found = [...Array(all).keys()].map(step => (here + 1 + step) % all).find(number => !complete(number));
    if (found === undefined) go(all);
    else go(here === all ? rater.rows.findIndex((_, number) => !complete(number)) : found);
  }
  /** Numbers of the texts that are shown as A, B, ... */
  const places = left => (Array.isArray(left) ? left : [left, 1 - left]);
  /** What row number `number` shows: prompt, answer A, answer B, ... */
  function shown(number) {
    const [, , item, left] = rater.rows[number];
    if (practice) return ["prompt", "a", "b"].map(name => data.practice[item][name]);
    const [prompt, ...texts] = data.items[item];
    return [prompt, ...places(left).map(place => texts[place])];
  }
  const why = done => (data.reasons.length ? ["A", "B"].map(side => (done?.reasons?.[side] ?? []).join("; ")) : []);
  function table() {
    const answers = [...(data.ranking ? data.levels : "AB")].map(letter => "answer_" + letter.toLowerCase());
    const about = ["row_id", "study_id", "rater", "text_hash", "prompt", ...answers];
    const rows = rater.rows.map(([row, hash], number) => {
      const done = work[row];
      const seconds = touched(number) ? done.seconds.toFixed(1) : "";
      const choices = rater.order.map(name => (whole(done?.choices[name]) ? done.choices[name] : ""));
      const ids = [row, data.study, rater.name, hash];
      return [...ids, ...shown(number), ...choices, ...why(done), done?.comment ?? "", seconds];
    });
    const columns = data.reasons.length ? ["reasons_a", "reasons_b"] : [];
    return [[...about, ...rater.order, ...columns, "comment", "seconds"], ...rows];
  }
  function save() {
    if (practice) return;
    tick();
    const link = element("a", "");
    link.href = URL.createObjectURL(new Blob([sheet.csv(table())], { type: "text/csv;charset=utf-8" }));
    link.download = `${data.study}-${rater.name}.csv`.replace(/[^\w.-]+/g, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    unsaved = false;
    keep();
    progress();
    say(said("saved", { file: link.download, rated: numComplete(), count: rater.rows.length }));
  }
  async function load(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    at("keys").close();
    if (String(bytes.slice(0, 4)) === "80,75,3,4") {
      return say(words.workbook, true);
    }
    const places = new Map(rater.rows.map(([row], number) => [row, number]));
    const rows = sheet.table(bytes, places);
    if (rows === null) return say(words.no_header, true);
    let num = 0, foreign = 0, unclear = 0;
    for (const row of rows) {
      const number = places.get(sheet.plain(row.row_id));
      if (number === undefined || !sheet.fits(row, rater.rows[number][1], shown(number))) {
        foreign += 1;
        continue;
      }
      const done = made(number);
      for (const name of rater.order) {
        const choice = sheet.choice(row[sheet.column(name)]);
        if (choice) done.choices[name] = choice;
        unclear += choice === null ? 1 : 0;
      }
      for (const side of data.reasons.length ? ["A", "B"] : []) {
        const written = sheet.reasons(row["reasons_" + side.toLowerCase()]);
        unclear += written.filter(each => !data.reasons.includes(each)).length;
        const known = data.reasons.filter(each => written.includes(each));
        if (known.length) (done.reasons ??= {})[side] = known;
      }
      done.comment = sheet.unguard(row.comment ?? "") || done.comment;
      done.seconds = Math.max(done.seconds, sheet.seconds(row.seconds));
      num += touched(number) ? 1 : 0;
    }
    undone = [];
    unsaved = true;
    go(here);
    const counts = [["loaded", num], ["foreign", foreign], ["unclear", unclear]];
    const parts = counts.filter(([name, count]) => count || name === "loaded");
    say(parts.map(([name, count]) => said(name, { count })).join("; "), parts.length > 1);
  }

  // --- which rater
  function wanted() {
    const places = [location.hash.slice(1), location.search.slice(1)];
    const named = places.map(text => new URLSearchParams(text).get("rater")).find(name => name);
    return named ?? (data.raters.length === 1 ? data.raters[0].name : null);
  }
  function enter() {
    if (rater) tick();
    if (practice) ({ rater, work, here } = practice);
    practice = null;
    const name = wanted();
    rater = data.raters.find(each => each.name === name) ?? null;
    since = null;
    undone = [];
    at("top").hidden = rater === null;
    if (rater === null) {
      only("choose");
      at("unknown").hidden = name === null;
      at("unknown").textContent = said("unknown", { name });
      at("raters").replaceChildren(...data.raters.map(each => {
        const count = element("span", "", said("items", { count: each.rows.length }));
        const button = element("button", "", each.name, count);
        button.type = "button";
        button.addEventListener("click", () => (location.hash = "rater=" + encodeURIComponent(each.name)));
        return element("li", "", button);
      }));
      return;
    }
    recall();
    at("who").textContent = rater.name;
    at("task").textContent = said(data.ranking ? "task_ranked" : "task", { count: rater.rows.length });
    asked();
    questions();
    reasons();
    keep();
    if (Object.keys(work).length || practiced) {
      go(here);
      say(said("welcome", { rated: numComplete(), count: rater.rows.length }));
    } else {
      only("start");
      progress();
      at("begin").focus({ preventScroll: true }); // or Enter would go to the name that was chosen, which is hidden now
    }
  }

  // --- keys and buttons
  function help() {
    at("keys").showModal();
    at("keys-title").focus({ preventScroll: true }); // the browser gives the focus to a button, and scrolls to it
    at("keys").scrollTop = 0;
  }
  function onKey(event) {
    alive();
    if (!rater || event.isComposing || at("keys").open) {
      if (at("keys").open && event.key === "?") at("keys").close();
      return;
    }
    const writing = event.target === at("comment");
    const asking = at("questions").contains(document.activeElement);
    const command = event.ctrlKey || event.metaKey;
    const other = event.key.length === 1 && event.key > "\x7f" && event.code.startsWith("Key");
    const latin = other ? event.code.slice(3) : event.key; // the same keys on a keyboard of another script
    const key = latin.length === 1 ? latin.toLowerCase() : latin;
    let act = null;
    if (command && key === "s") act = save;
    else if (event.altKey || (command && !(key === "z" && !writing) && !(key === "Enter" && writing))) return;
    else if (command && key === "z") act = undo;
    else if (writing && key === "Escape") act = () => mark(active);
    else if (writing) act = command && key === "Enter" ? () => next(false) : null;
    else if (key === "?") act = help;
    else if (key === "s") act = save;
    else if (!at("start").hidden) act = key === "Enter" && event.target.tagName !== "BUTTON" ? begin : null;
    else if (key === "u") act = undo;
    else if (key === "n") act = nextOpen;
    else if (key === "ArrowLeft") act = () => go(here - 1);
    else if (at("rate").hidden) return;
    else if (key in KEYS) act = () => choose(active, KEYS[key], true);
    else if (key === "ArrowRight") act = () => next(true);
    else if (key === "ArrowDown" && asking && active < rater.order.length - 1) act = () => mark(active + 1);
    else if (key === "ArrowUp" && asking && active > 0) act = () => mark(active - 1);
    else if (key === "c") act = () => at("comment").focus();
    else if (key === "p") act = () => (at("fold").hidden ? null : at("fold").click());
    else if (key === "j") act = jump;
    // Enter on a choice moves on too, else it would undo the choice; space presses a button
    else if (key === "Enter" && (event.target.tagName !== "BUTTON" || asking)) act = () => next(false);
    if (act && !(event.repeat && key in KEYS)) act();
    if (act) event.preventDefault();
  }
  document.addEventListener("keydown", onKey);
  at("begin").addEventListener("click", begin);
  at("back").addEventListener("click", () => go(here - 1));
  at("next").addEventListener("click", () => next(true));
  at("again").addEventListener("click", () => go(rater.rows.length - 1));
  at("open").addEventListener("click", nextOpen);
  at("undo").addEventListener("click", undo);
  at("save").addEventListener("click", save);
  at("save-end").addEventListener("click", save);
  at("help").addEventListener("click", help);
  at("fold").addEventListener("click", () => fold(at("fold").getAttribute("aria-expanded") === "true"));
  at("jump").addEventListener("click", jump);
  at("close").addEventListener("click", () => at("keys").close());
  at("load").addEventListener("click", () => at("file").click());
  at("file").addEventListener("change", event => {
    if (event.target.files.length) load(event.target.files[0]);
    event.target.value = "";
  });
  at("comment").addEventListener("input", event => {
    const before = complete(here);
    made(here).comment = event.target.value;
    unsaved = true;
    if (complete(here) !== before) answers();
    keep();
  });
  addEventListener("pointerdown", alive);
  addEventListener("scroll", alive, { passive: true });
  addEventListener("scroll", jumps, { passive: true });
  addEventListener("resize", () => {
    if (rater && !at("rate").hidden) fold(at("fold").getAttribute("aria-expanded") !== "true");
  });
  document.addEventListener("visibilitychange", () => {
    if (!rater) return;
    tick();
    keep();
  });
  addEventListener("pagehide", () => {
    if (!rater) return;
    tick();
    keep();
  });
  addEventListener("beforeunload", event => {
    if (!rater || !unsaved) return;
    event.preventDefault();
    event.returnValue = true; // browsers before 2023
  });
  addEventListener("storage", event => {
    if (!rater || practice || event.key !== place() || event.newValue === null) return;
    since = null; // the other window counts now
    const shown = here;
    recall(event.newValue);
    here = Math.min(shown, rater.rows.length);
    if (!at("rate").hidden) answers();
    progress();
  });
  addEventListener("hashchange", enter);
  history.scrollRestoration = "manual"; // the browser would scroll to where another item was, under the header
  document.title = data.title;
  for (const title of document.querySelectorAll(".title")) title.textContent = data.title;
  at("unkept").firstElementChild.textContent = words.unkept;
  enter();
})();
