"use strict";
(() => {
  const articles = [...document.querySelectorAll("article")];
  const one = selector => document.querySelector(selector);
  const tools = one(".script"), count = one(".count"), search = one("input[type=search]");
  const marks = one("select"), unfold = one(".script button");
  const older = [...document.querySelectorAll(".older")];
  tools.hidden = articles.length < 2 && !older.length;

  // --- search
  const contents = new Map();
  function content(article) {
    if (!contents.has(article)) {
      const texts = [...article.querySelectorAll("h2, .text")].map(text => text.textContent);
      contents.set(article, texts.join("\n").toLowerCase());
    }
    return contents.get(article);
  }
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase();
    for (const article of articles) article.hidden = words !== "" && !content(article).includes(words);
    const found = articles.filter(article => !article.hidden).length;
    count.textContent = words === "" ? "" : `${found} of ${articles.length} prompts`;
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input[type=search], select")) return;
    event.preventDefault();
    search.focus();
  });

  // --- fold and unfold all older rounds
  unfold.hidden = !older.length;
  unfold.addEventListener("click", () => {
    const open = unfold.getAttribute("aria-pressed") !== "true";
    for (const one of older) one.open = open;
    unfold.setAttribute("aria-pressed", open);
    unfold.textContent = open ? "Fold older rounds" : "Unfold older rounds";
  });

  // --- words that another text lacks, marked by the Highlight API once they are in view
  if (!("highlights" in CSS)) return;
  marks.hidden = false;
  marks.querySelector("[value=before]").hidden = !older.length;
  // size of the alignment table; above it, a word counts as changed if it is nowhere in the other text
  const LARGEST = 4e6;
  const changed = new Highlight();
  CSS.highlights.set("changed", changed);

  function wordsOf(text) {
    const words = [], walker = document.createTreeWalker(text, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      for (const { 0: word, index: from } of node.data.matchAll(/\S+/g)) {
        words.push({ word, node, from, to: from + word.length });
      }
    }
    return words;
  }

  // whether each word of `own` is outside a longest common subsequence with `other`
  function differing(own, other) {
    if (own.length * other.length > LARGEST) {
      const known = new Set(other);
      return own.map(word => !known.has(word));
    }
    const wide = other.length + 1, longest = new Uint32Array((own.length + 1) * wide);
    for (let i = own.length - 1; i >= 0; i--) {
      for (let j = other.length - 1; j >= 0; j--) {
        longest[i * wide + j] =
          own[i] === other[j]
            ? longest[(i + 1) * wide + j + 1] + 1
            : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
      }
    }
    const found = own.map(() => true);
    for (let i = 0, j = 0; i < own.length && j < other.length;) {
      if (own[i] === other[j]) { found[i++] = false; j++; }
      else if (longest[(i + 1) * wide + j] >= longest[i * wide + j + 1]) i++;
      else j++;
    }
    return found;
  }

  function counterpart(cell) {
    const row = cell.parentElement, place = [...row.children].indexOf(cell);
    if (marks.value === "first") {
      const first = [...row.children].find(one => one.checkVisibility() && one.querySelector(".text"));
      return first === cell ? null : first;
    }
    const rows = [...cell.closest(".sheet").querySelectorAll(`.row[data-sample="${row.dataset.sample}"]`)];
    const older = rows.slice(rows.indexOf(row) + 1).map(one => one.children[place]);
    return older.find(one => one?.querySelector(":scope > .text"));
  }

  function mark(cell) {
    const other = counterpart(cell);
    if (!other) return;
    const [own, others] = [cell, other].map(one => wordsOf(one.querySelector(":scope > .text")));
    const differs = differing(own.map(one => one.word), others.map(one => one.word));
    for (let i = 0; i < own.length; i++) {
      if (!differs[i]) continue;
      const range = new Range();
      range.setStart(own[i].node, own[i].from);
      while (differs[i + 1] && own[i + 1].node === own[i].node) i++;
      range.setEnd(own[i].node, own[i].to);
      changed.add(range);
    }
  }

  const done = new Set();
  const seen = new IntersectionObserver(entries => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting || done.has(target) || !marks.value) continue;
      done.add(target);
      mark(target);
    }
  }, { rootMargin: "300px" });
  const again = () => {
    changed.clear();
    done.clear();
    seen.disconnect();
    if (marks.value) for (const cell of document.querySelectorAll(".cell:has(> .text)")) seen.observe(cell);
  };
  marks.addEventListener("change", again);
  for (const box of document.querySelectorAll(".tools input[type=checkbox]")) box.addEventListener("change", again);
})();
