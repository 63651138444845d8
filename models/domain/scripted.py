"""Models of the scripted upstream, in the format of OpenRouter's `/models`. None is a model: answers are played."""

from __future__ import annotations

from typing import Any

SCRIPTED_MODEL = "awgp/scripted"
SCRIPTED_LARGE = "awgp/scripted-large"


def _listed(model: str, name: str, pricing: dict[str, str]) -> dict[str, Any]:
    return {
        "id": model,
        "canonical_slug": model,
        "name": name,
        "created": 1_767_225_600,
        "description": "Not a model: plays the script that it finds in the request.",
        "context_length": 131_072,
        "architecture": {"modality": "text->text", "input_modalities": ["text"], "output_modalities": ["text"]},
        "pricing": pricing,
        "top_provider": {"context_length": 131_072, "max_completion_tokens": 16_384, "is_moderated": False},
        "supported_parameters": ["max_tokens", "max_completion_tokens", "tools", "tool_choice", "response_format"],
    }


# Prices are not zero, so that holds, refusals and the ledger work with scripted answers as with real ones.
SCRIPTED_MODELS: tuple[dict[str, Any], ...] = (
    _listed(SCRIPTED_MODEL, "Scripted (not a model)", {"prompt": "0.0000005", "completion": "0.0000015"}),
    _listed(
        SCRIPTED_LARGE,
        "Scripted, with every kind of price (not a model)",
        {
            "prompt": "0.000003",
            "completion": "0.000015",
            "request": "0.0001",
            "image": "0.0048",
            "web_search": "0.01",
            "internal_reasoning": "0.00002",
            "input_cache_read": "0.0000003",
            "input_cache_write": "0.00000375",
        },
    ),
)
