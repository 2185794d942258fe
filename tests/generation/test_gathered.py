"""A sharded model is gathered once for all tokens of a round, and is sharded again afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from coh_lightning.generation import gathered as gathering
from coh_lightning.generation.gathered import gathered
from coh_lightning.generation.request import Request
from coh_lightning.generation.sampling import Sampling
from helpers.decoding import VOCABULARY, model, rows_of, sharded, write
from helpers.ranks import end_rank

SHORT = Sampling(max_new_tokens=8, batch_size=3, temperature=1.0)


def _requests() -> list[Request]:
    chance = np.random.default_rng(0)
    lengths = (3, 17, 1, 9, 9, 30, 2, 25)
    return [
        Request(f"p{i}", "good", chance.integers(13, VOCABULARY, size=n).astype(np.int32))
        for i, n in enumerate(lengths)
    ]


def _one_rank(rank: int, folder: str) -> None:
    import torch.distributed.fsdp._fully_shard._fsdp_param_group as param_group

    gathers = 0
    own = param_group.foreach_all_gather

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal gathers
        gathers += 1
        return own(*args, **kwargs)

    param_group.foreach_all_gather = counted
    lm = model().train()
    everyone = sharded(lm, rank, folder)
    share = slice(0, 6) if rank == 0 else slice(6, 8)
    found: dict[str, Any] = {"layers": len(lm.model.layers)}
    for share_of_memory in (0.5, 0.0):
        gathering.SHARE, gathers = share_of_memory, 0
        with gathered(lm, everyone) as in_step:
            written = write(lm, _requests()[share], SHORT, everyone_done=in_step)
            whole = not any(isinstance(one, DTensor) for one in lm.parameters())
        found[str(share_of_memory)] = [rows_of(written), gathers, in_step is None, whole]
    assert all(isinstance(one, DTensor) for one in lm.parameters())
    gathering.SHARE = 0.5
    with pytest.raises(RuntimeError, match="midway"), gathered(lm, everyone):
        raise RuntimeError("midway")
    gathers = 0
    lm(input_ids=torch.tensor([[20, 21, 22]]), labels=torch.tensor([[20, 21, 22]])).loss.backward()
    found["in training"] = [gathers, all(isinstance(one.grad, DTensor) for one in lm.parameters())]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    end_rank()


def test_weights_are_gathered_once_for_all_tokens_and_ranks_need_not_wait(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [json.loads(Path(tmp_path, f"{rank}.json").read_text()) for rank in range(2)]
    expected = [list(row) for row in rows_of(write(model(), _requests(), SHORT))]
    units = ranks[0]["layers"] + 1
    for memory in ("0.5", "0.0"):
        assert ranks[0][memory][0] + ranks[1][memory][0] == expected
    for one in ranks:
        assert one["0.5"][1:] == [units, True, True]
        _, gathers, independent, whole = one["0.0"]
        assert gathers > 10 * units and not independent and not whole
        # forward and backward, as ever: the root and each block are gathered again
        assert one["in training"][0] > units and one["in training"][1]


def test_a_model_that_is_not_sharded_stays_as_it_is() -> None:
    lm = model()
    before = [id(one) for one in lm.parameters()]
    for everyone in (None, lambda done: pytest.fail("nobody is asked")):
        with gathered(lm, everyone) as in_step:
            assert in_step is everyone
    assert [id(one) for one in lm.parameters()] == before
