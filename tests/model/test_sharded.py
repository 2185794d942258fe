"""FSDP2 and tensor parallelism on two CPU processes: a sharded model learns, writes and is saved as on one process.

Each rank is a process of its own (this file, as a script), started as a cluster would start it, with a time limit.
FSDP1 needs a GPU: tests/gpu/.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.distributed as dist
import transformers as hf
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from test_architectures import ACCEPTED
from torch.distributed.device_mesh import init_device_mesh

from coh_lightning.callbacks import CompletionWriter, HuggingFaceExport
from coh_lightning.cli import lightning_cli as cli
from coh_lightning.errors import InputError
from coh_lightning.export.huggingface import export_checkpoint
from coh_lightning.feedback.completions import Completion
from coh_lightning.feedback.jsonl import read_jsonl
from coh_lightning.model import memory
from coh_lightning.model.checkpoints import read_checkpoint
from coh_lightning.model.loading import ModelSpec
from coh_lightning.model.lora import LoRA
from coh_lightning.model.sharding import DATA, TENSOR, broadcast_weights, full_state, shard, tensor_plan
from coh_lightning.module import CoHModule
from helpers.feedback import TINY, merged, pairs
from helpers.ranks import (
    GPT2,
    Steps,
    commanded,
    end_rank,
    losses,
    module,
    rank_of,
    relative,
    rows,
    started,
    trained,
    trainer,
    whole,
)

pytestmark = pytest.mark.slow

RUNS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": "float64"},
    "float32": {"dtype": "float32"},
    "recomputed": {"dtype": "float64", "gradient_checkpointing": True},
    "adapters": {"dtype": "float64", "lora": LoRA(rank=2)},
    "tied": {"dtype": "float32", "from_config": TINY | {"tie_word_embeddings": True}},
    "head in pieces": {"dtype": "float64", "gradient_checkpointing": True},
}


def strategy(data: int = 2, tensor: int = 1, **settings: Any) -> ModelParallelStrategy:
    return ModelParallelStrategy(
        data_parallel_size=data, tensor_parallel_size=tensor, timeout=timedelta(seconds=60), **settings
    )


def main(folder: str, what: str) -> None:
    """One rank (or the only process) of one test."""
    rank, ranks = rank_of()
    place = Path(folder)
    if what == "runs":
        for name, settings in RUNS.items():
            own = place / name
            own.mkdir(exist_ok=True)
            if name == "head in pieces":
                memory.WHOLE, memory.PIECE, memory.LEAST = 0, 0, 5
            spread = {"devices": 2, "strategy": strategy()} if ranks == 2 else {}
            long = {"write": True} if name == "float64" else {"max_steps": 4}
            torch.save(trained(own, settings=settings, **long, **spread), place / f"{name}.rank{rank}.pt")
    if what == "checkpoints":
        for kind in ("sharded", "full"):
            torch.save(resumed(place, kind), place / f"{kind}.rank{rank}.pt")
    if what == "tensor":
        for name, settings in TENSOR_RUNS.items():
            own = place / name
            own.mkdir(exist_ok=True)
            spread = {"devices": 2, "strategy": strategy(1, 2)} if ranks == 2 else {}
            torch.save(
                trained(own, settings=settings, max_steps=4, write=name == "llama", **spread),
                place / f"{name}.rank{rank}.pt",
            )
    if what == "filled":
        filled(place)


TENSOR_RUNS: dict[str, dict[str, Any]] = {
    "llama": {"from_config": TINY | {"num_key_value_heads": 2}},
    "qwen3": {
        "from_config": TINY
        | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16, "tie_word_embeddings": True}
    },
}


def filled(place: Path) -> None:
    """Models of many architectures started without weights: what differs from rank 0's after it was laid out over both
    ranks, buffers too.
    """
    rank, ranks = rank_of()
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    mesh = init_device_mesh("cpu", (2, ranks // 2), mesh_dim_names=(DATA, TENSOR))
    differing = []
    for name, config in ACCEPTED.items() if ranks == 2 else [("llama", ACCEPTED["llama"])]:
        torch.manual_seed(0)  # both ranks know the weights; only the first may give them
        reference = hf.AutoModelForCausalLM.from_config(config(), attn_implementation="eager").train()
        with torch.device("meta"):
            lm = hf.AutoModelForCausalLM.from_config(config(), attn_implementation="eager").train()
        shard(lm, mesh)
        broadcast_weights(lm, reference if rank == 0 else None, torch.device("cpu"))
        differing += [
            f"{name}: {key}"
            for key, value in lm.state_dict().items()
            if not torch.equal(whole(value), reference.state_dict()[key])
        ]
        differing += [
            f"{name}: {key}"
            for key, value in lm.named_buffers()
            if not torch.equal(value, dict(reference.named_buffers())[key])
        ]
        ids = torch.arange(5, 25)[None]
        with torch.no_grad():
            if not torch.allclose(lm(ids, use_cache=False).logits, reference(ids, use_cache=False).logits, atol=1e-6):
                differing.append(f"{name}: logits")
        if lm.config.tie_word_embeddings and lm.get_input_embeddings().weight is not lm.get_output_embeddings().weight:
            differing.append(f"{name}: no longer tied")
    (place / f"filled{rank}.json").write_text(json.dumps([differing, len(ACCEPTED)]))


def resumed(place: Path, kind: str) -> dict[str, Any]:
    """The weights at the end of a run, of the same run resumed from its second step, and what a test of each
    checkpoint says.
    """

    def spread() -> dict[str, Any]:
        return {"devices": 2, "strategy": strategy(save_distributed_checkpoint=kind == "sharded")}

    folder = place / kind
    folder.mkdir(exist_ok=True)
    found: dict[str, Any] = {}
    for name in ("whole", "resumed"):
        start = folder / "step=2.ckpt" if name == "resumed" else None
        keep = (
            []
            if start
            else [ModelCheckpoint(folder, filename="{step}", every_n_train_steps=2, save_top_k=-1), HuggingFaceExport()]
        )
        model, data, seen = module(lora=LoRA(rank=2) if kind == "full" else None), rows(folder), Steps()
        pl.seed_everything(0, verbose=False)
        run = trainer(folder, seen, *keep, max_steps=4, enable_checkpointing=bool(keep), **spread())
        run.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
        found[name] = {key: whole(value) for key, value in model.lm.state_dict().items()}
        found[f"{name}: losses"] = seen.losses
    assert not list(folder.glob(".*"))  # a checkpoint takes its name when all of it is there
    end = folder / "step=4.ckpt"
    roads: dict[str, tuple[CoHModule, Path | None]] = {
        "ckpt_path": (module(lora=LoRA(rank=2) if kind == "full" else None), end),
        "model": (module(name_or_path=str(end)), None),
        "loaded": (
            CoHModule.load_from_checkpoint(end, generation=module().generation),
            None,
        ),  # whole on each rank before it is laid out
    }
    for name, (model, path) in roads.items():
        tested = merged(
            trainer(folder, CompletionWriter(), **spread()).test(
                model, datamodule=rows(folder), ckpt_path=path, verbose=False, weights_only=True
            )
        )
        found[f"{name}: metrics"] = {key: float(value) for key, value in tested.items()}
    state = full_state(model.lm)
    found["full state"] = {key: value.clone() for key, value in state.items()}
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, dict[str, list[dict[str, Any]]]]]:
    """The same runs on one process and sharded over two: ranks -> run -> what each rank saw."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        started(__file__, folder, "runs", ranks=ranks, seconds=400)
        found[ranks] = {
            name: [torch.load(folder / f"{name}.rank{rank}.pt", weights_only=True) for rank in range(ranks)]
            for name in RUNS
        }
        found[ranks]["completions"] = [{"all": list(read_jsonl(folder / "float64" / "completions.jsonl", Completion))}]
    yield found


@pytest.mark.parametrize("name", RUNS)
def test_a_model_over_two_ranks_learns_what_it_learns_on_one(name: str, runs: Any) -> None:
    """With clipping in every step, accumulation, trees and the pretraining text."""
    alone, together = runs[1][name], runs[2][name]
    exact = 1e-9 if RUNS[name]["dtype"] == "float64" else 1e-5
    assert losses(together) == pytest.approx(losses(alone), rel=exact)
    assert together[0]["norms"] == pytest.approx(alone[0]["norms"], rel=exact)
    assert relative(alone[0]["gradients"], together[0]["gradients"]) < exact
    assert relative(alone[0]["weights"], together[0]["weights"]) < exact
    for one, other in zip(*(list(rank["weights"].values()) for rank in together), strict=True):
        assert torch.equal(one, other)


def test_a_head_in_pieces_learns_what_the_whole_head_does(runs: Any) -> None:
    for ranks in (1, 2):
        whole, pieces = runs[ranks]["recomputed"], runs[ranks]["head in pieces"]
        assert losses(pieces) == pytest.approx(losses(whole), rel=1e-9)
        assert relative(whole[0]["weights"], pieces[0]["weights"]) < 1e-9
        assert losses(pieces) != losses(whole)  # pieces are added in another order


def test_what_it_writes_and_its_held_out_figures_are_those_of_one_process(runs: Any) -> None:
    """Each prompt under each sentence once, though the prompts can't be shared out evenly."""
    alone, one, other = *runs[1]["float64"], *runs[2]["float64"]
    assert one["metrics"] == other["metrics"] and one["metrics"] == pytest.approx(
        alone["metrics"], rel=1e-6, nan_ok=True
    )
    texts = [[(one.prompt_id, one.ask, one.text) for one in runs[ranks]["completions"][0]["all"]] for ranks in (1, 2)]
    assert texts[0] == texts[1] and len(set(texts[0])) == len(texts[0]) > 4


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("checkpoints")
    started(__file__, folder, "checkpoints", ranks=2, seconds=400)
    return folder, {
        kind: [torch.load(folder / f"{kind}.rank{rank}.pt", weights_only=True) for rank in (0, 1)]
        for kind in ("sharded", "full")
    }


@pytest.mark.parametrize("kind", ["sharded", "full"])
def test_a_resumed_sharded_run_equals_the_uninterrupted_run(kind: str, checkpoints: Any) -> None:
    """From a folder of shards, and from a file (with adapters)."""
    folder, found = checkpoints
    assert (folder / kind / "step=2.ckpt").is_dir() == (kind == "sharded")
    for rank in found[kind]:
        assert rank["resumed: losses"] == rank["whole: losses"][2:]
        assert all(torch.equal(value, rank["resumed"][key]) for key, value in rank["whole"].items())


@pytest.mark.parametrize("kind", ["sharded", "full"])
def test_a_checkpoint_is_the_same_model_for_one_process_and_for_two(
    kind: str, checkpoints: Any, tmp_path: Path
) -> None:
    folder, found = checkpoints
    path, (first, second) = folder / kind / "step=4.ckpt", found[kind]
    kept = {key.removeprefix("lm."): value for key, value in read_checkpoint(path)["state_dict"].items()}
    assert kept.keys() == first["whole"].keys() and all(
        torch.equal(value, first["whole"][key]) for key, value in kept.items()
    )
    assert second["full state"] == {} and all(
        torch.equal(value, first["full state"][key]) for key, value in kept.items()
    )
    loaded = CoHModule.load_from_checkpoint(path)
    assert all(torch.equal(value, kept[key]) for key, value in loaded.lm.state_dict().items())
    alone = merged(
        trainer(tmp_path, CompletionWriter()).test(
            module(name_or_path=str(path)), datamodule=rows(tmp_path), verbose=False
        )
    )
    assert (
        first["model: metrics"] == second["model: metrics"] == first["ckpt_path: metrics"] == first["loaded: metrics"]
    )
    assert {key: float(value) for key, value in alone.items()} == pytest.approx(
        first["model: metrics"], rel=1e-5, nan_ok=True
    )


@pytest.mark.parametrize("kind", ["sharded", "full"])
def test_a_model_over_two_ranks_is_exported_in_training_as_one_process_exports_its_checkpoint(
    kind: str, checkpoints: Any, tmp_path: Path
) -> None:
    """To the last bit, from a folder of shards and from a file, whose adapters are merged."""
    path, exported = checkpoints[0] / kind / "step=4.ckpt", checkpoints[0] / kind / "huggingface" / "step=4"
    export_checkpoint(path, tmp_path / "step=4")
    for name in ("model.safetensors", "config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (exported / name).read_bytes() == (tmp_path / "step=4" / name).read_bytes(), name
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        found, wanted = (
            lm.eval()(input_ids=ids).logits
            for lm in (hf.AutoModelForCausalLM.from_pretrained(exported), CoHModule.load_from_checkpoint(path).lm)
        )
    assert torch.equal(found, wanted) if kind == "sharded" else torch.allclose(found, wanted, rtol=0, atol=1e-5)


def test_shards_as_ckpt_path_of_one_process_are_refused_with_the_remedy(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"step=4.ckpt is a folder of shards.*give the folder as model.name_or_path"):
        world = ["--model.name_or_path=world", "--data.feedback=world", "--trainer.accelerator=cpu"]
        cli.run(["test", *world, f"--ckpt_path={checkpoints[0] / 'sharded' / 'step=4.ckpt'}"])
    assert not list(tmp_path.iterdir())


def test_a_model_that_starts_without_weights_gets_those_of_the_first_rank_and_its_buffers(tmp_path: Path) -> None:
    """For each architecture that can hold trees; also frequencies of rotary positions, which no checkpoint
    has.
    """
    started(__file__, tmp_path, "filled", ranks=2, seconds=200)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"filled{rank}.json").read_text()) == [[], len(ACCEPTED)]


def test_four_ranks_can_split_layers_over_two_and_shard_that_over_two(tmp_path: Path) -> None:
    started(__file__, tmp_path, "filled", ranks=4, seconds=200)
    for rank in range(4):
        assert json.loads((tmp_path / f"filled{rank}.json").read_text())[0] == []


def test_layers_split_over_two_ranks_learn_what_they_learn_on_one(tmp_path: Path) -> None:
    """Tensor parallelism: both ranks have the same rows, and what is written is written once."""
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        started(__file__, tmp_path / str(ranks), "tensor", ranks=ranks, seconds=300)
    for name in TENSOR_RUNS:
        [alone], together = (
            [torch.load(tmp_path / f"{ranks}/{name}.rank{rank}.pt", weights_only=True) for rank in range(ranks)]
            for ranks in (1, 2)
        )
        for one in together:
            assert [2 * loss for loss in one["losses"]] == pytest.approx(alone["losses"], rel=1e-5)
            assert one["norms"] == pytest.approx(alone["norms"], rel=1e-5)
            assert relative(alone["gradients"], one["gradients"]) < 1e-5
            assert relative(alone["weights"], one["weights"]) < 1e-3  # AdamW makes much of rounding
        if "metrics" in alone:
            assert together[0]["metrics"] == pytest.approx(alone["metrics"], rel=1e-3, nan_ok=True)
    written = [
        [
            (one.prompt_id, one.ask, one.text)
            for one in read_jsonl(tmp_path / f"{ranks}/llama/completions.jsonl", Completion)
        ]
        for ranks in (1, 2)
    ]
    assert written[0] == written[1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPT2, "no plan for tensor parallelism of gpt2"),
        (TINY, r"llama has \{'num_attention_heads': 2, 'num_key_value_heads': 1\}, which can't be divided by 2 ranks"),
        (TINY | {"model_type": "phi3", "pad_token_id": 0}, "tensor parallelism of phi3 needs "),
    ],
)
def test_impossible_tensor_parallelism_is_refused(config: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(InputError, match=message):
        tensor_plan(ModelSpec(from_config=config).outline(), 2)


PARALLEL = """
trainer:
  accelerator: cpu
  devices: 2
  strategy:
    class_path: lightning.pytorch.strategies.ModelParallelStrategy
    init_args: {data_parallel_size: 2, tensor_parallel_size: 1}
  max_steps: 2
  limit_val_batches: 0
  enable_progress_bar: false
model: {name_or_path: world, lr: 1.0e-3, generation: {sampling: {max_new_tokens: 4}}}
data: {rows_per_step: 2, row_tokens: 512, max_chain_tokens: 400, max_prompt_tokens: 200}
"""


def test_the_commands_train_and_write_on_two_ranks(tmp_path: Path) -> None:
    """With uneven prompts: as many completions as prompts and sentences, each once. From a folder of shards, as
    ckpt_path and as model.
    """
    (tmp_path / "two.yaml").write_text(PARALLEL)
    (tmp_path / "feedback.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs(30)))
    common = [
        "--config",
        "two.yaml",
        "--data.feedback=feedback.jsonl",
        f"--data.cache_dir={tmp_path / 'cache'}",
        "--data.test_share=0.3",
    ]
    common += ["--data.validation_share=0"]
    commanded(["-m", "coh_lightning", "fit", *common, "--run.folder=run"], tmp_path, ranks=2, seconds=200)
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    assert checkpoint.is_dir() and (tmp_path / "run/finished").exists()
    texts = []
    for number, start in enumerate((f"--ckpt_path={checkpoint}", f"--model.name_or_path={checkpoint}")):
        commanded(
            ["-m", "coh_lightning", "predict", *common, start, f"--run.folder=written{number}"],
            tmp_path,
            ranks=2,
            seconds=200,
        )
        written = list(read_jsonl(tmp_path / f"written{number}/completions.jsonl", Completion))
        assert len(written) % 4 == 2 and len({(one.prompt_id, one.ask) for one in written}) == len(written) > 4
        texts.append([one.text for one in written])
    assert texts[0] == texts[1]


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_rank()
