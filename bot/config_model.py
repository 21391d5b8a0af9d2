"""Settings of what diagnoses: models, their limits, tools, and the knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import SecretStr

from bot.config_types import Count, Group, Positive, Variable

Provider = Literal["auto", "anthropic", "openai", "rules"]


class ModelSettings(Group):
    anthropic_api_key: Annotated[
        SecretStr | None, Variable("ANTHROPIC_API_KEY", "text", "for Claude; without one the rules engine diagnoses")
    ] = None
    anthropic_base_url: Annotated[str, Variable("ANTHROPIC_BASE_URL", "URL", "another server of the same API")] = ""
    openai_api_key: Annotated[
        SecretStr | None, Variable("OPENAI_API_KEY", "text", "for OpenAI's models, and the second opinion by default")
    ] = None
    openai_base_url: Annotated[
        str, Variable("OPENAI_BASE_URL", "URL", "any OpenAI-compatible server, such as http://localhost:8000/v1")
    ] = ""
    provider: Annotated[
        Provider,
        Variable("SRE_MODEL_PROVIDER", "name", "auto: claude-… is Anthropic's, others OpenAI's; rules: no model"),
    ] = "auto"
    name: Annotated[str, Variable("SRE_MODEL", "model id", "which model diagnoses")] = "claude-sonnet-5-5"
    effort: Annotated[
        Literal["low", "medium", "high"], Variable("SRE_MODEL_EFFORT", "level", "how long a Claude model may think")
    ] = "medium"
    deadline_s: Annotated[
        Positive, Variable("SRE_MODEL_DEADLINE_S", "seconds", "a diagnosis as a whole; then the rules engine answers")
    ] = 28.0
    tokens: Annotated[
        Count, Variable("SRE_MODEL_TOKENS", "tokens", "one diagnosis may send and receive; then it must conclude")
    ] = 120_000
    tokens_day: Annotated[
        Count, Variable("SRE_MODEL_TOKENS_DAY", "tokens", "diagnoses of 24 hours may use; then the rules answer")
    ] = 5_000_000
    rounds: Annotated[
        Count, Variable("SRE_MODEL_ROUNDS", "rounds", "of tools in one diagnosis; then it must conclude")
    ] = 3
    review: Annotated[
        Literal["rule_based", "llm_cross_check", "both"],
        Variable("SRE_REVIEW", "mode", "who gives a second opinion on a model's answer; of both the lower counts"),
    ] = "both"
    reviewer: Annotated[
        str, Variable("SRE_REVIEWER", "model id", "another model than the author; its key decides whether it is used")
    ] = "gpt-6-luna"
    reviewer_provider: Annotated[
        Literal["auto", "anthropic", "openai"], Variable("SRE_REVIEWER_PROVIDER", "name", "as SRE_MODEL_PROVIDER")
    ] = "auto"
    review_deadline_s: Annotated[
        Positive, Variable("SRE_REVIEW_DEADLINE_S", "seconds", "for the second model; then the rules' opinion counts")
    ] = 10.0
    cache_s: Annotated[
        Positive, Variable("SRE_DIAGNOSIS_CACHE_S", "seconds", "a model's answer is used again for the same trouble")
    ] = 14_400.0
    tool_calls: Annotated[Count, Variable("SRE_TOOL_CALLS", "calls", "of tools in one investigation")] = 24
    tool_bytes: Annotated[Count, Variable("SRE_TOOL_BYTES", "bytes", "that tools may give in one investigation")] = (
        60_000
    )
    tool_s: Annotated[Positive, Variable("SRE_TOOL_S", "seconds", "one tool call may take")] = 8.0
    context_tokens: Annotated[
        Count, Variable("SRE_CONTEXT_TOKENS", "tokens", "of evidence and runbooks in a prompt; more is compressed")
    ] = 12_000


class KnowledgeSettings(Group):
    runbooks: Annotated[
        Path | None, Variable("SRE_RUNBOOKS", "path", "a folder of your own runbooks, beside those that are shipped")
    ] = None
    embedder: Annotated[
        str, Variable("SRE_EMBEDDER", "model name or folder", "embeds runbooks; empty: the packaged all-MiniLM-L6-v2")
    ] = ""
    reranker: Annotated[
        Path | None,
        Variable("SRE_RERANKER", "folder", "weights of ms-marco-MiniLM-L-6-v2 or another cross-encoder; empty: none"),
    ] = None
    rerank_deadline_s: Annotated[
        Positive, Variable("SRE_RERANK_DEADLINE_S", "seconds", "for the cross-encoder; then the first order stands")
    ] = 0.8
    llmlingua: Annotated[
        Path | None,
        Variable(
            "SRE_LLMLINGUA", "folder", "weights of LLMLingua-2, shortens sentences of runbooks; empty: whole lines"
        ),
    ] = None
    allow_hosts: Annotated[
        tuple[str, ...],
        Variable("SRE_KB_ALLOW_HOSTS", "names, comma-separated", "inner hosts that `kb ingest` may fetch from"),
    ] = ()
