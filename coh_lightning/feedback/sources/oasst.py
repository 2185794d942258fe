"""OpenAssistant's message trees: every human message with its ranked answers is one record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from coh_lightning.checks import number
from coh_lightning.errors import InputError, a_kind, named, shown
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources.base import Source, column, text_column
from coh_lightning.feedback.sources.dialogue import turns_of_messages
from coh_lightning.feedback.sources.files import SourceRow, SourceRows, converted
from coh_lightning.feedback.turns import refuse_beside_content


@dataclass(frozen=True)
class OASST(Source):
    """Trees of OpenAssistant (`oasst*_trees.jsonl.gz`): rankings of k answers, and thumbs (+1 and -1 counted against
    each other)::

        prompt "Hi"                                       two records
         ├─ "Hello!"  rank 0                              "Hi"                    -> "Hello!" (0), "What?" (1)
         │   └─ "Who are you?"                            "Hi","Hello!","Who.."   -> "A model." (0), "Me." (1)
         │       ├─ "A model."  rank 0
         │       └─ "Me."  rank 1
         └─ "What?"   rank 1

    Answers that were deleted or failed review are left out, and so is every message that is or follows such a message.
    An answer without a rank beside ranked ones stays unranked. A message whose answers have neither a rank nor a clear
    thumb is rejected. `limit` counts trees; ids are those of the human messages.
    """

    def columns(self) -> Sequence[str]:
        return ("prompt",)

    def structured(self) -> Sequence[str]:
        return ("prompt",)

    def rows(self) -> SourceRows:
        """One row for each human message that has answers: {"id", "messages", "removed", "replies"}."""

        def questions(tree: SourceRow, where: str) -> SourceRow:
            return {"questions": list(_questions(column(tree, "prompt", where), [], where))}

        for where, tree in converted(super().rows(), questions):
            if isinstance(tree, InputError):
                yield where, tree
            elif not tree["questions"]:
                yield where, {"replies": []}
            else:
                yield from ((f"{where} ({named(row['id'])})", row) for row in tree["questions"])

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        if not row["replies"]:
            return self.rejected("no message of the tree has answers", where)
        if row.get("removed"):
            return self.rejected("a message of the prompt was deleted or failed review", where)
        candidates = []
        for reply in row["replies"]:
            if _removed(reply):
                continue
            emojis = reply.get("emojis") or {}
            if not isinstance(emojis, dict):
                raise InputError(f"{where}: emojis is {shown(emojis)}; it must be an object.")
            balance = number(emojis.get("+1", 0), "emojis.+1", where) - number(emojis.get("-1", 0), "emojis.-1", where)
            rank = reply.get("rank")
            one = RatedCompletion(
                text_column(reply, "text", where),
                rank=None if rank is None else number(rank, "rank", where),
                thumb=None if balance == 0 else balance > 0,
                author=str(reply.get("model_name") or "model") if reply.get("synthetic") else "human",
            )
            candidates.append(one)
        if not candidates:
            return self.rejected("all answers were deleted or failed review", where)
        if all(candidate.rank is None and candidate.thumb is None for candidate in candidates):
            return self.rejected("answers without a rank and without a clear thumb", where)
        prompt = turns_of_messages(row["messages"], "messages", where, self.notes)
        return self.record(prompt, candidates, where=where, task="response", id=row["id"])


def _removed(message: SourceRow) -> bool:
    return bool(message.get("deleted")) or message.get("review_result") is False


def _questions(node: SourceRow, before: list[SourceRow], where: str, removed: bool = False) -> Iterator[SourceRow]:
    """The human messages with answers, from the root down, each with the messages before it and whether one of these
    was removed.
    """
    if not isinstance(node, dict):
        raise InputError(f"{where}: a message of the tree is {a_kind(node)}; it must be an object.")
    refuse_beside_content(node, "a message of the tree", where)
    removed = removed or _removed(node)
    path = [*before, {"role": text_column(node, "role", where), "content": text_column(node, "text", where)}]
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise InputError(f"{where}: replies is {shown(replies)}; it must be a list of messages.")
    if path[-1]["role"] == "prompter" and replies:
        yield {"id": text_column(node, "message_id", where), "messages": path, "removed": removed, "replies": replies}
    for reply in replies:
        yield from _questions(reply, path, where, removed)
