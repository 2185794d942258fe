"""The losses of a row from the model: its head on all sources at once, or in pieces where their logits would take much
memory.

    U = 600 sources, V = 150,000       logits (600, V), their softmax and gradient    360 MB each
    in pieces of 128                   those of one piece at a time                    77 MB each

The coefficients of a row are final, so the gradient of its loss is known as soon as a piece's logits are: a piece is
computed, turned into losses and gradients, and forgotten, and nothing is computed twice. The head's `forward` is
replaced while the root of the model is called, so that the root's hooks (FSDP2) run as ever.

Not every model can: one may cap or scale logits behind its head (Gemma-2, Granite, Cohere). `use_head_in_pieces` tests
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from coh_lightning.model import memory
from coh_lightning.model.attention import keeps_logits, mask_dtype, model_config, row_inputs, row_logits
from coh_lightning.model.layout_check import difference, probing, tolerance
from coh_lightning.model.losses import TokenLosses, token_losses
from coh_lightning.model.tree_attention import CALL

_FLAG = "_coh_head_in_pieces"


def row_losses(lm: nn.Module, batch: Mapping[str, Tensor], *, call: int = CALL) -> TokenLosses:
    """The losses of a row's tokens. Calls the root module, so that FSDP's hooks run.

    Args:
        call: As for `row_inputs`.
    """
    sources = len(batch["keep"])
    at_once = sources_at_once(lm, sources, batch["keep"].device)
    if at_once >= sources:
        return token_losses(row_logits(lm, batch, call=call), batch)
    head, sizes = lm.get_output_embeddings(), (batch["children"].numel(), batch["unlearned_children"].numel(), 1)  # type: ignore[operator]
    own = head.forward

    def in_pieces(hidden: Tensor) -> Tensor:
        found = _in_pieces(head, own, hidden, batch, at_once)
        return torch.cat([found.nll.flatten(), found.unlikelihood.flatten(), found.loss[None]])[None, :, None]

    with _replaced(head, in_pieces):
        losses: Tensor = lm(**row_inputs(lm, batch, call=call), logits_to_keep=batch["keep"]).logits
    likely, against, loss = losses.flatten().split(sizes)
    return TokenLosses(likely.view_as(batch["children"]), against.view_as(batch["unlearned_children"]), loss[0])


def sources_at_once(lm: nn.Module, sources: int, device: torch.device) -> int:
    """How many of a row's sources go through the head together."""
    # float16 needs the loss scaled before its gradient is computed
    if not getattr(lm, _FLAG, False) or mask_dtype(lm, device) == torch.float16:
        return sources
    vocabulary = model_config(lm).get_text_config().vocab_size
    return memory.sources_at_once(sources, vocabulary=vocabulary, gpu=device.type != "cpu")


def use_head_in_pieces(lm: nn.Module) -> bool:
    """Have a model compute its head in pieces from now on, where the logits of a row would take much memory. Its
    logits must be those of its head, a layer that works token by token, with nothing behind it; otherwise it stays as
    it is. Under FSDP, on all ranks; the answer is the same on each.

    Returns:
        Whether it does so now.
    """
    head = lm.get_output_embeddings()  # type: ignore[operator]
    possible = (
        head is not None
        and keeps_logits(lm)
        and not isinstance(lm, FullyShardedDataParallel)  # FSDP1 hides a module's parameters while it runs
        and not (head._forward_hooks or head._forward_pre_hooks)  # tensor parallelism
    )
    setattr(lm, _FLAG, possible and _is_last(lm, head))
    return bool(getattr(lm, _FLAG))


def _is_last(lm: nn.Module, head: nn.Module) -> bool:
    """Whether the model returns what its head does, whatever it is, and whether the head's own are its logits."""
    device, own = next(lm.parameters()).device, head.forward
    letters = int(model_config(lm).get_text_config().vocab_size)
    inputs = {"input_ids": torch.arange(8, device=device)[None] % letters, "use_cache": False}
    inputs["logits_to_keep"] = torch.tensor([1, 4, 6], device=device)
    calls: list[Tensor] = []
    passed = torch.linspace(-50, 50, 7, dtype=torch.float64, device=device)[None, :, None]

    def stand_in(hidden: Tensor) -> Tensor:
        nonlocal passed
        passed = passed.to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        calls.extend(own(one) for one in hidden.split(1, dim=1))
        return passed

    with probing(lm):
        whole: Tensor = lm(**inputs).logits
        try:
            with _replaced(head, stand_in):
                found: Tensor = lm(**inputs).logits
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return False  # it works on its logits
    if len(calls) != 3 or found.shape != passed.shape or not torch.equal(found.to(passed.dtype), passed):
        return False
    pieces = torch.cat(calls, dim=1)
    return pieces.shape == whole.shape and difference(pieces[0], whole[0]) <= tolerance(whole)


def _in_pieces(
    head: nn.Module, own: Callable[[Tensor], Tensor], hidden: Tensor, batch: Mapping[str, Tensor], count: int
) -> TokenLosses:
    """The losses of sources (1, U, H), with the logits of `count` at a time; only `loss` has gradients. `own` is the
    head's forward.
    """
    wanted = [one for one in (hidden, *head.parameters()) if one.requires_grad] if torch.is_grad_enabled() else []
    parts: list[TokenLosses] = []
    sums = [torch.zeros_like(one) for one in wanted]
    for start in range(0, hidden.shape[1], count):
        piece = hidden[:, start : start + count].detach().requires_grad_(hidden.requires_grad)
        with torch.set_grad_enabled(bool(wanted)):
            logits = own(piece)[0]
            found = token_losses(logits, _part(batch, start, start + count))
        parts.append(TokenLosses(found.nll.detach(), found.unlikelihood.detach(), found.loss.detach()))
        if wanted:
            inputs = [piece if one is hidden else one for one in wanted]
            pairs = zip(wanted, sums, strict=True)
            totals = [total[:, start : start + count] if one is hidden else total for one, total in pairs]
            _add_gradients(head, piece, logits, found.loss, inputs, totals)
    loss = torch.stack([part.loss for part in parts]).sum()
    if wanted:
        loss = _Known.apply(loss, len(sums), *sums, *wanted)
    return TokenLosses(torch.cat([part.nll for part in parts]), torch.cat([part.unlikelihood for part in parts]), loss)


def _add_gradients(
    head: nn.Module, piece: Tensor, logits: Tensor, loss: Tensor, inputs: Sequence[Tensor], into: Sequence[Tensor]
) -> None:
    """Adds the gradients of a piece's loss by its inputs: itself and parameters of the head, those that are trained."""
    weight = head.weight
    if type(head) is not nn.Linear or head.bias is not None or not logits.dtype == weight.dtype == piece.dtype:
        for total, gradient in zip(into, torch.autograd.grad(loss, inputs), strict=True):
            total.add_(gradient)
        return
    # the same by hand, without another tensor of the size of the weights
    [of_logits] = torch.autograd.grad(loss, [logits])
    for one, total in zip(inputs, into, strict=True):
        if one is piece:
            torch.mm(of_logits, weight.detach(), out=total[0])
        else:
            total.addmm_(of_logits.t(), piece.detach()[0])


def _part(batch: Mapping[str, Tensor], start: int, stop: int) -> dict[str, Tensor]:
    """What `token_losses` needs of the sources from `start` to before `stop`."""
    part = {name: batch[name][start:stop] for name in ("children", "learned")}
    names = ("unlearned_rows", "unlearned_children", "unlearned")
    if len(rows := batch["unlearned_rows"]):
        first, last = torch.searchsorted(rows, torch.tensor([start, stop], device=rows.device)).tolist()
        part |= {name: batch[name][first:last] for name in names}
        part["unlearned_rows"] = part["unlearned_rows"] - start
    else:
        part |= {name: batch[name] for name in names}
    return part


class _Known(torch.autograd.Function):
    """A number whose gradients were computed with it, for one backward pass."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *gradients_and_inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients_and_inputs[:count])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = [one.mul_(gradient) for one in ctx.saved_tensors]
        return (None, None, *(None for _ in found), *found)


@contextmanager
def _replaced(head: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    before: dict[str, Any] = {"forward": head.forward} if "forward" in vars(head) else {}
    head.forward = forward
    try:
        yield
    finally:
        del head.forward
        vars(head).update(before)
