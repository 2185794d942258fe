"""Chain of Hindsight with PyTorch Lightning: fine-tune language models on human feedback of any kind, turned into
sentences.

    from coh_lightning import CoHDataModule, CoHModule
    data, model = CoHDataModule("feedback.jsonl"), CoHModule("gpt2")
    lightning.pytorch.Trainer(max_epochs=1).fit(model, data)

Each name is imported when it is first used, so that commands which only touch files don't wait for torch and
Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coh_lightning.callbacks import CompletionWriter as CompletionWriter
    from coh_lightning.callbacks import HuggingFaceExport as HuggingFaceExport
    from coh_lightning.callbacks import HumanEvalExport as HumanEvalExport
    from coh_lightning.data import CoHDataModule as CoHDataModule
    from coh_lightning.errors import InputError as InputError
    from coh_lightning.feedback.completions import Completion as Completion
    from coh_lightning.feedback.records import Feedback as Feedback
    from coh_lightning.generation.sampling import Sampling as Sampling
    from coh_lightning.generation.settings import Generation as Generation
    from coh_lightning.model.lora import LoRA as LoRA
    from coh_lightning.module import CoHModule as CoHModule
    from coh_lightning.sequences.method import Method as Method
    from coh_lightning.sequences.prompt_format import PromptFormat as PromptFormat
    from coh_lightning.sequences.wording import Wording as Wording
    from coh_lightning.training.schedule import OptimizerSettings as OptimizerSettings

    __version__: str

_HOMES = {
    "CoHDataModule": "data",
    "CoHModule": "module",
    "Completion": "feedback.completions",
    "CompletionWriter": "callbacks",
    "Feedback": "feedback.records",
    "Generation": "generation.settings",
    "HuggingFaceExport": "callbacks",
    "HumanEvalExport": "callbacks",
    "InputError": "errors",
    "LoRA": "model.lora",
    "Method": "sequences.method",
    "OptimizerSettings": "training.schedule",
    "PromptFormat": "sequences.prompt_format",
    "Sampling": "generation.sampling",
    "Wording": "sequences.wording",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("coh_lightning")
    if name not in _HOMES:
        raise AttributeError(f"module 'coh_lightning' has no attribute '{name}'")
    return getattr(import_module(f"coh_lightning.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "__version__"})
