"""Who diagnoses and who reviews, as the settings say; what that falls back to is named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from bot.config_model import ModelSettings
from pipeline.adapters.llm.models import same_model, standing
from pipeline.adapters.llm.rules import RulesDiagnostician
from pipeline.ports.model import Reviewer
from pipeline.stages.diagnose import Authors

if TYPE_CHECKING:
    from pipeline.adapters.llm.chat import ChatModel
    from pipeline.adapters.llm.prompts import Fit

log = logging.getLogger(__name__)

Redact = Callable[[str], str]
Company = Literal["anthropic", "openai"]


def authors_of(settings: ModelSettings, redact: Redact, fit: Fit | None, fallbacks: list[str]) -> Authors:
    """The author, the rules and the reviewer. Adds to ``fallbacks`` what could not be had, and why."""
    rules = RulesDiagnostician()
    author = _author_model(settings, fallbacks)
    if author is None:
        return Authors(rules, rules)
    fallbacks += model_notes(settings.name)
    # Imported here: the SDKs take seconds, and a start without a model needs none of them.
    from pipeline.adapters.llm.reasoner import ModelDiagnostician
    from pipeline.adapters.llm.talk import Limits

    limits = Limits(
        deadline_s=settings.deadline_s,
        max_rounds=settings.rounds,
        budget_tokens=settings.tokens,
        evidence_tokens=settings.context_tokens,
    )
    reviewer = _reviewer(settings, redact, fit, fallbacks)
    return Authors(ModelDiagnostician(author, redact=redact, limits=limits, fit=fit), rules, reviewer)


def company(provider: str, model: str) -> Company:
    """Whose API serves ``model``."""
    if provider in ("anthropic", "openai"):
        return "anthropic" if provider == "anthropic" else "openai"
    return "anthropic" if model.lower().startswith("claude") else "openai"


def model_notes(model: str) -> list[str]:
    """What is to be known of a model: that its end is near, or that nobody knows it; nothing for one in service."""
    found = standing(model, datetime.now(UTC).date())
    return [] if found.state == "current" else [found.said]


def why_no_author(settings: ModelSettings) -> str:
    """Why the rules engine diagnoses; empty when a model does."""
    if settings.provider == "rules":
        return "SRE_MODEL_PROVIDER is rules: the rules engine diagnoses"
    if company(settings.provider, settings.name) == "anthropic":
        return "" if settings.anthropic_api_key else "no ANTHROPIC_API_KEY: the rules engine diagnoses"
    has_access = settings.openai_api_key is not None or settings.openai_base_url
    return "" if has_access else "no OPENAI_API_KEY and no OPENAI_BASE_URL: the rules engine diagnoses"


def why_no_reviewer(settings: ModelSettings) -> str:
    """Why the rules alone give the second opinion; empty when a model does."""
    if settings.review == "rule_based":
        return "SRE_REVIEW is rule_based: the rules give the second opinion"
    if said := same_model(settings.name, settings.reviewer):
        return f"SRE_REVIEWER refused, {said}; the rules give the second opinion"
    if company(settings.reviewer_provider, settings.reviewer) == "anthropic":
        return "" if settings.anthropic_api_key else _no_reviewer("ANTHROPIC_API_KEY", settings)
    has_access = settings.openai_api_key is not None or settings.openai_base_url
    return "" if has_access else _no_reviewer("OPENAI_API_KEY", settings)


def _no_reviewer(key: str, settings: ModelSettings) -> str:
    return f"no {key} for {settings.reviewer}: the rules give the second opinion"


def _author_model(settings: ModelSettings, fallbacks: list[str]) -> ChatModel | None:
    if why := why_no_author(settings):
        fallbacks.append(why)
        return None
    whose = company(settings.provider, settings.name)
    return _model(whose, settings.name, settings, effort=settings.effort)


def _reviewer(settings: ModelSettings, redact: Redact, fit: Fit | None, fallbacks: list[str]) -> Reviewer | None:
    if why := why_no_reviewer(settings):
        fallbacks.append(why)
        return None
    fallbacks += model_notes(settings.reviewer)
    from pipeline.adapters.llm.reviewer import ModelReviewer

    whose = company(settings.reviewer_provider, settings.reviewer)
    model = _model(whose, settings.reviewer, settings, effort="low")
    return ModelReviewer(
        model,
        redact=redact,
        deadline_s=settings.review_deadline_s,
        fit=fit,
        evidence_tokens=settings.context_tokens,
    )


def _model(
    whose: Company, name: str, settings: ModelSettings, *, effort: Literal["low", "medium", "high"]
) -> ChatModel:
    timeout_s = settings.deadline_s
    if whose == "anthropic":
        from pipeline.adapters.llm.anthropic import AnthropicModel

        key = settings.anthropic_api_key.get_secret_value() if settings.anthropic_api_key else ""
        return AnthropicModel(key, model=name, base_url=settings.anthropic_base_url, effort=effort, timeout_s=timeout_s)
    from pipeline.adapters.llm.openai import OpenAiModel

    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""
    return OpenAiModel(key, model=name, base_url=settings.openai_base_url, effort=effort, timeout_s=timeout_s)
