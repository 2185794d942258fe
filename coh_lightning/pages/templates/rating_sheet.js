"use strict";
// The sheet of a rater as a file: written as `human_eval/sheets.py` does it, read as `human_eval/rating_files.py` does.
const sheetFiles = data => {
  const HEADER_WITHIN = 40; // rows among which the header is looked for: instructions may stand above it
  const LETTERS = data.ranking ? data.levels : ["A", "B"];
  const TEXTS = ["prompt", ...LETTERS.map(letter => "answer_" + letter.toLowerCase())];

  // RFC 4180, UTF-8 with a byte order mark, the same guard against formulas as the sheets
  const dangerous = new RegExp(data.guard);
  const guard = text => (dangerous.test(text) ? "'" + text : text);
  const unguard = cell => (cell.startsWith("'") && dangerous.test(cell) ? cell.slice(1) : cell);
  const field = text => '"' + text.replaceAll('"', '""') + '"';
  const csv = rows => "\ufeff" + rows.map(row => row.map(text => field(guard(text))).join(",") + "\r\n").join("");

  function decoded(bytes) {
    const mark = { "255 254": "utf-16le", "254 255": "utf-16be" }[bytes[0] + " " + bytes[1]];
    if (mark) return new TextDecoder(mark).decode(bytes);
    try {
      return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      return new TextDecoder("windows-1252").decode(bytes);
    }
  }
  function cells(text, separator, quote) {
    const rows = [[""]];
    let quoted = false;
    for (let from = 0; from < text.length; from++) {
      const row = rows[rows.length - 1], last = row.length - 1, part = text[from];
      if (quoted && part === quote && text[from + 1] === quote) row[last] += text[from++];
      else if (quoted && part === quote) quoted = false;
      else if (quoted) row[last] += part;
      else if (part === quote && row[last] === "") quoted = true;
      else if (part === separator) row.push("");
      else if (part === "\r" || part === "\n") rows.push([""]);
      else row[last] += part;
    }
    return rows.filter(row => row.some(cell => cell.trim()));
  }
  const column = cell =>
    unguard(cell).replace(/^[\ufeff \t'"]+|[\ufeff \t'"]+$/g, "").replace(/[\s_]+/g, "_").toLowerCase();
  const plain = cell => unguard(cell ?? "").replace(/[\s\u200b\ufeff]+/g, " ").trim();

  /** The rows of a file as objects, column -> cell; null if it has no header with a column row_id. The separator and
      the quote are those that leave the most rows as wide as the header, of a row that `known` knows. */
  function table(bytes, known) {
    let text = decoded(bytes);
    const marked = /^sep=(.)\r?\n/.exec(text);
    if (marked) text = text.slice(marked[0].length);
    let best = null, most = -1;
    for (const quote of "\"'") {
      for (const separator of marked ? marked[1] : ",;\t|") {
        const lines = cells(text, separator, quote);
        const top = lines.slice(0, HEADER_WITHIN).findIndex(line => line.map(column).includes("row_id"));
        if (top < 0) continue;
        const head = lines[top].map(column);
        const row = line => Object.fromEntries(head.map((name, at) => [name, line[at] ?? ""]));
        const rows = lines.slice(top + 1).map(row);
        const wide = lines.slice(top).filter(line => line.length === head.length).length;
        const fit = wide + rows.filter(row => known.has(plain(row.row_id))).length;
        if (fit > most) [best, most] = [rows, fit];
      }
    }
    return best;
  }

  const hash = text => plain(text).toLowerCase().replace(/^h/, ""); // earlier versions had no letter
  const bare = text => text.replace(/[\0-\x1f\x7f-\x9f\ufeff\ufffe\uffff]|\s/g, "").replace(/^'+/, "");
  const every = new Set(data.items.flat().map(bare));
  every.delete("");
  /** Whether a row shows what was exported: the right hash and no text from elsewhere in the study, or all texts. */
  function fits(row, textHash, texts) {
    const there = TEXTS.map((name, at) => [row[name], texts[at]]).filter(([cell]) => cell !== undefined);
    const changed = there.filter(([cell, text]) => bare(cell) !== bare(text) && bare(unguard(cell)) !== bare(text));
    if (row.text_hash !== undefined && hash(row.text_hash) === hash(textHash)) {
      return !changed.some(([cell]) => every.has(bare(cell)));
    }
    return there.length === TEXTS.length && changed.length === 0;
  }
  const choice = cell => {
    if (data.ranking) {
      const letters = [...plain(cell).toUpperCase().replace(/[\s>,;]/g, "")];
      if (!letters.length) return "";
      return [...letters].sort().join() === LETTERS.join() ? letters.join(" > ") : null;
    }
    const word = plain(cell).replace(/^'+/, "").toLowerCase();
    return word === "" ? "" : data.choices[word] ?? null; // null: not understood
  };
  const seconds = cell => Math.max(0, Number(plain(cell).replace(",", "."))) || 0;
  const reasons = cell => unguard(cell ?? "").split(";").map(part => part.trim()).filter(Boolean);
  return { csv, reasons, unguard, table, fits, choice, column, plain, seconds };
};
