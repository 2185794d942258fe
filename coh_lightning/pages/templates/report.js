"use strict";
(() => {
  const one = selector => document.querySelector(selector);
  const articles = [...document.querySelectorAll("article")];
  const search = one("input[type=search]"), kind = one("select"), count = one(".count"), items = one("#items");
  one(".tools").hidden = false;

  const contents = new Map(articles.map(article => [article, article.textContent.toLowerCase()]));
  function update() {
    const words = search.value.toLowerCase().trim();
    // losses begin with the largest one
    items.append(...(kind.value === "loss" ? [...articles].reverse() : articles));
    for (const article of articles) {
      const fits = !kind.value || article.dataset.kinds.split(" ").includes(kind.value);
      article.hidden = !fits || !contents.get(article).includes(words);
    }
    const found = articles.filter(article => !article.hidden).length;
    count.textContent = words || kind.value ? `${found} of ${articles.length} items` : "";
  }
  search.addEventListener("input", update);
  kind.addEventListener("change", update);
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, select")) return;
    event.preventDefault();
    search.focus();
  });
})();
