"""The layers of the models that adapters are inspected for, found once for each model, outside of this process.

To find them takes torch, which stays out of the app: a child does it. Called by the library, from many threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

from huggingface_hub import hf_hub_download

from model_registry.spec import ModelSpec
from playground.adapters.facts import BaseLayers
from playground.hub_errors import asked_for, hub_errors

FindLayers = Callable[[ModelSpec], BaseLayers]


class KnownLayers:
    """Remembers the layers of each model; a search that failed is done again when it is asked for again.

    find: called once for each model, in the thread of whoever asks first; the others wait for it.
    """

    def __init__(self, find: FindLayers) -> None:
        self._find = find
        self._found: dict[str, Future[BaseLayers]] = {}
        self._lock = Lock()

    def __call__(self, spec: ModelSpec) -> BaseLayers:
        """The layers of a catalog model.

        Raises:
            CheckpointError: its config.json is missing, or describes no model that can be built.
            DownloadError: its config.json is not here, and the Hub did not give it.
        """
        with self._lock:
            is_first = spec.id not in self._found
            found = self._found.setdefault(spec.id, Future())
        if is_first:
            self._search(spec, found)
        return found.result()

    def _search(self, spec: ModelSpec, found: Future[BaseLayers]) -> None:
        try:
            found.set_result(self._find(spec))
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            with self._lock:
                del self._found[spec.id]
            found.set_exception(error)


def find_layers(spec: ModelSpec) -> BaseLayers:
    """The layers of a catalog model, whose config.json is downloaded where it is not here yet; imports torch."""
    from playground.adapters.base_layers import base_layers

    return base_layers(spec, config_folder(spec))


def config_folder(spec: ModelSpec) -> Path:
    """The folder with the model's config.json; nothing else of the model is fetched.

    Raises:
        DownloadError: the Hub did not give it.
    """
    if spec.weights.path is not None:
        return spec.weights.path
    assert spec.weights.hub is not None
    with hub_errors(asked_for(spec)):
        return Path(hf_hub_download(spec.weights.hub, "config.json", revision=spec.weights.revision)).parent
