"""openai/summarize_from_feedback, `comparisons`: two summaries of a post (or an article) and the labeler's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coh_lightning.errors import InputError, shown
from coh_lightning.feedback.records import Feedback, RatedCompletion, Rejected
from coh_lightning.feedback.sources.base import Source, column, text_column
from coh_lightning.feedback.sources.dialogue import is_messages
from coh_lightning.feedback.sources.files import SourceRow
from coh_lightning.feedback.turns import Part, Turn


@dataclass(frozen=True)
class Summarize(Source):
    """Comparisons of summaries of posts and articles.

    The prompt is one user turn: a head that is never cut, and a body that is cut from the back::

        "Write a summary of the following post.\\n\\nSubreddit: r/..\\nTitle: ..\\n\\n"   never cut
        "<the post>"                                                                 cut from the back

    Summaries were written after "TL;DR:" and begin with a space, which is removed; otherwise texts are kept exactly.
    """

    subset: str | None = "comparisons"
    revision: str | None = "refs/convert/parquet"
    """The hub's conversion: the dataset itself is a loading script, which `datasets` no longer runs."""

    def hub_arguments(self) -> dict[str, Any]:
        return {"path": self.path} if self.subset is None else {"path": self.path, "data_dir": self.subset}

    def columns(self) -> Sequence[str]:
        return ("info", "summaries", "choice")

    def structured(self) -> Sequence[str]:
        return ("info", "summaries", "extra")

    def feedback(self, row: SourceRow, where: str) -> Feedback | Rejected:
        info = column(row, "info", where)
        summaries = column(row, "summaries", where)
        choice = column(row, "choice", where)
        if not isinstance(info, dict) or not is_messages(summaries) or len(summaries) != 2:
            raise InputError(f"{where}: 'info' must be an object and 'summaries' a list of two objects.")
        if isinstance(choice, bool) or choice not in (0, 1):
            raise InputError(f"{where}: choice is {choice!r:.60}; it must be 0 or 1.")
        kind, body = ("post", info.get("post")) if info.get("post") else ("article", info.get("article"))
        if not isinstance(body, str) or not body.strip():
            return self.rejected("neither a post nor an article", where)
        for name in ("subreddit", "title"):
            if info.get(name) and not isinstance(info[name], str):
                raise InputError(f"{where}: info.{name} is {shown(info[name])}; it must be text.")
        head = [f"Subreddit: r/{info['subreddit']}"] if kind == "post" and info.get("subreddit") else []
        head += [f"Title: {info['title']}"] if info.get("title") else []
        task_sentence = "\n".join([f"Write a summary of the following {kind}.\n", *head, *([""] if head else []), ""])
        candidates = []
        for index, summary in enumerate(summaries):
            text, rank = text_column(summary, "text", where).removeprefix(" "), 1.0 if index == choice else 2.0
            candidates.append(RatedCompletion(text, rank=rank, author=summary.get("policy")))
        extra = {name: row[name] for name in ("worker", "batch") if row.get(name) is not None}
        if isinstance(row.get("extra"), dict) and row["extra"].get("confidence") is not None:
            extra["confidence"] = row["extra"]["confidence"]
        if info.get("id"):
            extra["post"] = info["id"]
        prompt = (Turn("user", (Part(task_sentence, "never"), Part(body, "back"))),)
        return self.record(prompt, candidates, where=where, task="summary", extra=extra)
