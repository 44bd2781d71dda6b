"""The languages of the catalog by name. Called by whoever shows people a language code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "bn": "Bengali",
        "en": "English",
        "gu": "Gujarati",
        "hi": "Hindi",
        "kn": "Kannada",
        "ko": "Korean",
        "ml": "Malayalam",
        "mr": "Marathi",
        "or": "Odia",
        "pa": "Punjabi",
        "ta": "Tamil",
        "te": "Telugu",
    }
)


def language_name(code: str) -> str:
    """Such as "Hindi"; a code that is none of ours stays as it is."""
    return NAMES.get(code, code)
