"""Every error that the playground raises, in one tree.

The text of an error is a sentence for the person in front of the screen: what is wrong and what to do.
Foreign errors (torch, transformers, huggingface_hub, jinja2) become one of these at the boundary where they arise.
Raised everywhere, shown by `playground.ui` in the panel where they happened.

    PlaygroundError
    ├── CatalogError            a catalog file is wrong: names file, key and line
    ├── UnknownModelError       no such model id or alias: names near misses
    ├── PromptError             these messages cannot become a prompt of this model
    │   ├── TemplateError       the chat template refused them
    │   └── ContextFullError    the prompt leaves no room for an answer: says by how many tokens
    ├── SamplingError           a sampling parameter is out of range or not honoured by this engine
    ├── AdapterError            an adapter is not safe, or does not fit its model: names file, field and layer
    ├── PlacementError          no device can hold the model: says what is missing
    ├── SpaceError              a Space cannot be built, checked or uploaded: says what is in the way
    ├── LoadError               a model could not be loaded
    │   ├── CheckpointError     its files are missing, damaged or of an unsupported kind
    │   ├── DownloadError       the Hub did not give them: offline, gated, not found
    │   └── LoadCancelledError  someone gave the load up
    └── EngineError             an engine could not go on with a request
        ├── OutOfMemoryError    the device is full
        ├── EngineBusyError     too many requests are waiting
        └── EngineClosedError   the engine was stopped
"""

from __future__ import annotations


class PlaygroundError(Exception):
    """Root of the tree; `str(error)` is a sentence that may be shown to a user."""


class CatalogError(PlaygroundError):
    pass


class UnknownModelError(PlaygroundError):
    pass


class PromptError(PlaygroundError):
    pass


class TemplateError(PromptError):
    pass


class ContextFullError(PromptError):
    """`excess`: tokens by which the prompt is too long to leave room for one token of an answer."""

    def __init__(self, message: str, excess: int = 0) -> None:  # a default, so that it can be pickled
        super().__init__(message)
        self.excess = excess


class SamplingError(PlaygroundError):
    pass


class AdapterError(PlaygroundError):
    pass


class PlacementError(PlaygroundError):
    pass


class SpaceError(PlaygroundError):
    pass


class LoadError(PlaygroundError):
    pass


class CheckpointError(LoadError):
    pass


class DownloadError(LoadError):
    pass


class LoadCancelledError(LoadError):
    pass


class EngineError(PlaygroundError):
    pass


class OutOfMemoryError(EngineError):
    pass


class EngineBusyError(EngineError):
    pass


class EngineClosedError(EngineError):
    pass
