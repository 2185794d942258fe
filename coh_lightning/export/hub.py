"""An exported folder on the Hugging Face hub (`coh export ... --push-to-hub NAME`), through huggingface_hub.

    before the export    is there a token, and does the hub take it?      HF_TOKEN, or `hf auth login`
    after its checks     a repository (a new one is private), and one commit with the whole folder

HF_ENDPOINT names another hub. Nothing is sent before the folder has passed its checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coh_lightning.errors import InputError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOGIN = "give one that may write in HF_TOKEN, or by `hf auth login`"


class Hub:
    """A repository NAME (user/model) that a folder is to be sent to."""

    def __init__(self, name: str, api: HfApi) -> None:
        self.name, self.api = name, api

    @classmethod
    def for_pushing(cls, name: str) -> Hub:
        """Checks the name and asks the hub who the token is.

        Raises:
            InputError: the name is no name of a repository, there is no token, or the hub refuses it.
        """
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        hub = cls(name, HfApi())
        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise InputError(f"--push-to-hub is {name!r:.100}; name a repository, such as user/model.") from error
        if get_token() is None:
            raise InputError(f"--push-to-hub: there is no token for {hub.api.endpoint}; {LOGIN}.")
        with hub.one_sentence():
            hub.api.whoami()
        return hub

    def push(self, folder: Path) -> str:
        """Sends the folder as one commit; returns the address of the repository.

        Raises:
            InputError: the hub refuses it, or can't be reached.
        """
        with self.one_sentence(f"; the model is in {folder}: hf upload {self.name} {folder}"):
            place = self.api.create_repo(self.name, private=True, exist_ok=True)
            self.api.upload_folder(repo_id=place.repo_id, folder_path=folder, commit_message="coh export")
        return place.url

    @contextmanager
    def one_sentence(self, then: str = "") -> Iterator[None]:
        """Errors of huggingface_hub as an InputError; `then` ends its sentence."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            yield
        except HfHubHTTPError as error:
            status = error.response.status_code
            what = f"--push-to-hub: {self.api.endpoint} answers with {status}"
            if status == 401:
                raise InputError(f"{what}: it does not know the token; {LOGIN}{then}.") from error
            if status == 403:
                raise InputError(f"{what}: the token may not write to {self.name}; {LOGIN}{then}.") from error
            said = error.server_message or first_line(error)
            raise InputError(f"{what}: {' '.join(said.split()):.200}{then}.") from error
        except Exception as error:
            # the libraries under it raise their own: httpx, hf_xet, OSError
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"--push-to-hub: {self.api.endpoint} can't be reached ({first_line(error)}){then}."
            ) from error
