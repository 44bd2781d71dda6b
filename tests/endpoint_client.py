"""What a program does with /generate, in one word."""

from __future__ import annotations

from typing import Any

from gradio_client import Client


def generate(client: Client, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
    """Every update of an answer."""
    job = client.submit(*arguments, **named, api_name="/generate")
    steps = list(job)
    job.result()
    return steps
