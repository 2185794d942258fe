"""How long set-up takes, how much memory it needs, and how fast rows are handed out.

    OMP_NUM_THREADS=1 python tests/benchmarks/setup.py [records] [trl] [rows] [--records 1000,10000] [--rounds 5]

* records: CPU seconds and the most anonymous memory of `CoHDataModule.setup` by number of records, with an empty cache
  and again with the cache that this left; beyond the memory that the imports and the tokenizer take.
* trl: the same pairs as chains through the set-up of TRL's SFTTrainer (prompt and completion, four chains a pair) and
  as pairs through that of its DPOTrainer, in turn with ours (empty cache). CPU seconds of everything after the imports.
* rows: rows of 1,024 tokens that the training loader hands out a second, with 0, 2 and 4 workers, by the clock.

Pairs have the lengths of helpful and harmless dialogues (see `pair`); with COH_REAL_DATA=FOLDER they are the rows of
hh_harmless_1000.jsonl.gz there, again and again with a number in the first turn. The tokenizer is a byte-level BPE of
8,192 tokens trained on some of them. Each figure is of a process of its own with one thread. Memory is RssAnon: pages
of mapped files, which the system may drop at any time, are given beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REAL = Path(os.environ.get("COH_REAL_DATA", "")) / "hh_harmless_1000.jsonl.gz"
SIZES = {"row_tokens": 1024, "max_chain_tokens": 1024, "max_prompt_tokens": 512, "rows_per_step": 8}


def pair(chance: random.Random, words: list[str], number: int) -> dict[str, Any]:
    """A pair with the lengths of HH: 1 to 9 turns (2.5 answers on average), about 15 words asked, 40 answered."""

    def text(mean: int) -> str:
        return " ".join(chance.choices(words, k=min(3 + int(chance.expovariate(1 / (mean - 3))), 6 * mean)))

    turns = [{"role": "user", "content": f"{number} {text(15)}?"}]
    while len(turns) < 9 and chance.random() < 0.6:
        turns += [{"role": "assistant", "content": text(40)}, {"role": "user", "content": text(15)}]
    answers = [{"text": text(38), "rank": 1}, {"text": text(45), "rank": 2}]
    return {"id": str(number), "prompt": turns, "completions": answers, "task": "response"}


def vocabulary() -> list[str]:
    """20,000 words, the frequent ones more than once."""
    chance = random.Random(0)
    parts = [
        a + b for a in "b c d f g h k l m n p r s t v w st th ch tr".split() for b in "a e i o u ea ou ing er".split()
    ]
    words = ["".join(chance.choices(parts, k=1 + i % 3)) for i in range(20_000)]
    return [word for i, word in enumerate(words) for _ in range(1 + 4000 // (1 + i))]


def pairs(number: int) -> Iterator[dict[str, Any]]:
    """Real ones where they are."""
    if not REAL.exists():
        chance, words = random.Random(1), vocabulary()
        yield from (pair(chance, words, i) for i in range(number))
        return
    from coh_lightning.feedback.records import Feedback
    from coh_lightning.feedback.sources.hh import HH

    source = HH(str(REAL))
    found = [source.feedback(row, where) for where, row in source.all_rows()]  # type: ignore[arg-type]
    real = [one.to_json() for one in found if isinstance(one, Feedback)]
    for i in range(number):
        row = json.loads(json.dumps(real[i % len(real)])) | {"id": str(i)}
        if i >= len(real):
            row["prompt"][0]["content"] = f"{i} {row['prompt'][0]['content']}"
            for one in row["completions"]:
                one["text"] = f"{one['text']} {i}"
        yield row


def prepared(folder: Path, number: int) -> Path:
    """A file of pairs and, once, a tokenizer."""
    file = folder / f"pairs-{number}.jsonl"
    if not file.exists():
        with file.open("w", encoding="utf-8") as out:
            for row in pairs(number):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not (folder / "tokenizer").exists():
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=8192, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
        )
        texts = [one["text"] for row in pairs(1000) for one in row["completions"]]
        backend.train_from_iterator(texts, trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>")
        tokenizer.save_pretrained(folder / "tokenizer")
    return file


class Memory:
    """The most anonymous memory while it is open, in bytes, beyond that at its beginning; looked at every 5 ms."""

    def __enter__(self) -> Memory:
        self.before = self.most = resident("RssAnon")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.most = max(self.most, resident("RssAnon"))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.after, self.mapped = resident("RssAnon"), resident("RssFile")

    @property
    def peak(self) -> int:
        return max(self.most, self.after) - self.before


def resident(kind: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{kind}:"))) * 1024


def module(file: Path, **settings: Any) -> Any:
    from coh_lightning.data import CoHDataModule

    shares = {"validation_share": 0.0, "test_share": 0.0}
    places = {"tokenizer": str(file.parent / "tokenizer"), "cache_dir": str(file.parent / "cache")}
    return CoHDataModule(str(file), **{**SIZES, **shares, **places, **settings})


def ours(file: Path) -> dict[str, Any]:
    """One set-up in this process."""
    import torch  # noqa: F401
    from transformers import AutoTokenizer

    import coh_lightning.data  # noqa: F401

    AutoTokenizer.from_pretrained(file.parent / "tokenizer")
    with Memory() as memory:
        start, clock = time.process_time(), time.perf_counter()
        data = module(file)
        data.setup()
        rows = data.plan.num_rows
        cpu, wall = time.process_time() - start, time.perf_counter() - clock
    return {
        "cpu": cpu,
        "wall": wall,
        "peak": memory.peak,
        "kept": memory.after - memory.before,
        "mapped": memory.mapped,
        "rows": rows,
        "chains": data.counts["train"].chains,
        "digest": data.plan.digest,
    }


def trl(file: Path, kind: str) -> dict[str, Any]:
    """The set-up of one of TRL's trainers in this process, with a model of a thousand parameters."""
    import warnings

    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(file.parent / "tokenizer")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    lm = LlamaForCausalLM(LlamaConfig(vocab_size=8192, **sizes))
    folder = tempfile.mkdtemp(dir=file.parent)
    datasets.config.HF_DATASETS_CACHE = Path(folder)
    start, clock = time.process_time(), time.perf_counter()
    rows = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            turns = "".join(
                f"{'User' if it['role'] == 'user' else 'Assistant'}: {it['content']}\n\n" for it in row["prompt"]
            )
            good, bad = (one["text"] for one in row["completions"])
            if kind == "dpo":
                rows.append({"prompt": turns, "chosen": good, "rejected": bad})
                continue
            g, b = "A helpful answer:\n", "An unhelpful answer:\n"
            for before, after in (
                (turns + g, good),
                (turns + b, bad),
                (f"{turns}{g}{good}</s>\n\n{b}", bad),
                (f"{turns}{b}{bad}</s>\n\n{g}", good),
            ):
                rows.append({"prompt": before, "completion": after})
    given = {"output_dir": folder, "report_to": "none", "max_length": 1024, "use_cpu": True, "bf16": False}
    table = datasets.Dataset.from_list(rows)
    made: Any = (
        DPOTrainer(lm, copy.deepcopy(lm), args=DPOConfig(**given), train_dataset=table, processing_class=tokenizer)
        if kind == "dpo"
        else SFTTrainer(lm, args=SFTConfig(**given), train_dataset=table, processing_class=tokenizer)
    )
    cpu, wall = time.process_time() - start, time.perf_counter() - clock
    return {"cpu": cpu, "wall": wall, "rows": len(made.train_dataset)}


def loader(file: Path, workers: int, seconds: float = 8.0) -> dict[str, Any]:
    """Rows that the training loader hands out, for some seconds after its first ones."""
    data = module(file, num_workers=workers)
    data.setup()
    count, start = 0, 0.0
    for number, _ in enumerate(data.train_dataloader()):
        if number == 16:
            start = time.perf_counter()
        count = number - 16
        if number > 16 and time.perf_counter() - start > seconds:
            break
    return {"rows": count / (time.perf_counter() - start)}


def apart(what: str, file: Path, *more: str) -> dict[str, Any]:
    """A measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", what, str(file), *more]
    one_thread = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"} if what != "loader" else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | one_thread)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure_records(folder: Path, sizes: list[int], rounds: int) -> None:
    print("records    cache  CPU s  us a record  clock s  anonymous MB  bytes a record  kept MB  mapped MB")
    for size in sizes:
        file = prepared(folder, size)
        for cache in ("empty", "warm"):
            found = []
            for _ in range(rounds):
                if cache == "empty":
                    subprocess.run(["rm", "-rf", str(folder / "cache")], check=True)
                found.append(apart("ours", file))
            mid = {name: statistics.median(one[name] for one in found) for name in found[0] if name != "digest"}
            print(
                f"{size:>9,}  {cache:>6}  {mid['cpu']:5.2f}  {mid['cpu'] / size * 1e6:11.0f}  {mid['wall']:7.2f}  "
                f"{mid['peak'] / 1e6:12.0f}  {mid['peak'] / size:14.0f}  {mid['kept'] / 1e6:7.0f}  "
                f"{mid['mapped'] / 1e6:9.0f}   plan {found[0]['digest']}",
                flush=True,
            )


def measure_trl(folder: Path, sizes: list[int], rounds: int) -> None:
    print("records    ours s   SFTTrainer s  ratio (range)        DPOTrainer s  ratio (range)")
    for size in sizes:
        file = prepared(folder, size)
        found: dict[str, list[float]] = {"ours": [], "sft": [], "dpo": []}
        for _ in range(rounds):
            subprocess.run(["rm", "-rf", str(folder / "cache")], check=True)
            found["ours"].append(apart("ours", file)["cpu"])
            for kind in ("sft", "dpo"):
                found[kind].append(apart("trl", file, kind)["cpu"])
        line = f"{size:>9,}  {statistics.median(found['ours']):7.3f}"
        for kind in ("sft", "dpo"):
            ratios = [theirs / own for theirs, own in zip(found[kind], found["ours"], strict=True)]
            middle = statistics.median(found[kind])
            line += f"  {middle:12.2f}  {statistics.median(ratios):5.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(line, flush=True)


def measure_rows(folder: Path, size: int) -> None:
    print("workers  rows a second")
    for workers in (0, 2, 4):
        print(f"{workers:>7}  {apart('loader', prepared(folder, size), str(workers))['rows']:13.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["records", "trl", "rows"])
    parser.add_argument("--records", default="1000,10000")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder")
    parser.add_argument("--one", nargs="*")
    options = parser.parse_args()
    if options.one:
        what, file, *more = options.one
        made = {"ours": ours, "trl": trl, "loader": lambda file, workers: loader(file, int(workers))}[what]
        print(json.dumps(made(Path(file), *more)))  # type: ignore[operator]
        return
    sizes = [int(size) for size in options.records.split(",")]
    with tempfile.TemporaryDirectory() as made_folder:
        folder = Path(options.folder or made_folder)
        folder.mkdir(exist_ok=True)
        if "records" in options.what:
            measure_records(folder, sizes, options.rounds)
        if "trl" in options.what:
            measure_trl(folder, sizes[:1], options.rounds)
        if "rows" in options.what:
            measure_rows(folder, sizes[-1])


if __name__ == "__main__":
    main()
