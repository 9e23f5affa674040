"""Prompts: what is put before a text, per role and task. The only source of prompts in every stage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from acclimate.errors import ModelError, UsageError
from acclimate.types import Role

DEFAULT_TASK = ""
_DOCUMENT_NAMES = ("document", "passage", "corpus")
_INSTRUCTED = re.compile(r"(Instruct: |task: )(.*)(\nQuery: ?| \| query: )", re.DOTALL)
"""Query prompts with a place for a task: of Qwen3-Embedding and E5-instruct, of EmbeddingGemma."""
_ROLE_OF_SUFFIX: dict[str, Role] = {"query": "query", **dict.fromkeys(_DOCUMENT_NAMES, "document")}


@dataclass(frozen=True)
class Prompts:
    """Task -> prompt, for queries and for documents. The default task's name is the empty string.

    A task that only one role knows leaves the other role with its default prompt: instruction models such as
    Qwen3-Embedding have one instruction per task for queries, and bare documents.
    """

    query: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, str] = field(default_factory=dict)

    def prompt(self, role: Role, task: str | None = None) -> str:
        """What is put before a text of this role; empty if there is none.

        Raises:
            UsageError: neither role knows the task.
        """
        prompts = self.query if role == "query" else self.document
        if task and task not in self.tasks:
            known = ", ".join(self.tasks) or "none, this model has no tasks"
            raise UsageError(f"Unknown task {task!r}", possible=known)
        return prompts.get(task or DEFAULT_TASK, prompts.get(DEFAULT_TASK, ""))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks beside the default one, sorted."""
        return tuple(sorted({*self.query, *self.document} - {DEFAULT_TASK}))

    def with_defaults(
        self, query: str | None = None, document: str | None = None, instruction: str | None = None
    ) -> Prompts:
        """The same prompts with another default for a role, or see `with_instruction`; None leaves it."""
        changed = self if instruction is None else self.with_instruction(instruction)
        if query is not None:
            changed = replace(changed, query={**changed.query, DEFAULT_TASK: query})
        if document is not None:
            changed = replace(changed, document={**changed.document, DEFAULT_TASK: document})
        return changed

    def with_instruction(self, instruction: str) -> Prompts:
        """The same prompts with this task in the default query prompt, in the model's own format.

        Raises:
            UsageError: the model's query prompt has no place for a task.
        """
        own = self.prompt("query")
        found = _INSTRUCTED.fullmatch(own)
        if found is None:
            raise UsageError(
                f"instruction = {instruction!r}: the model's query prompt {own!r} has no place for a task",
                possible="models whose query prompt is 'Instruct: ...\\nQuery:' or 'task: ... | query: '",
                fix="Give the whole prompt by --query-prompt.",
            )
        return self.with_defaults(query=found[1] + instruction + found[3])

    def with_task(
        self, task: str, query: str | None = None, document: str | None = None, instruction: str | None = None
    ) -> Prompts:
        """The same prompts with a task; None is what the model has for a task of this name, else the default.

        Raises:
            UsageError: an instruction, for which the model's query prompt has no place.
        """
        if instruction is not None:
            query = self.with_instruction(instruction).prompt("query")

        def own(prompts: Mapping[str, str]) -> str:
            return prompts.get(task, prompts.get(DEFAULT_TASK, ""))

        return Prompts(
            {**self.query, task: own(self.query) if query is None else query},
            {**self.document, task: own(self.document) if document is None else document},
        )

    def to_json(self) -> dict[str, dict[str, str]]:
        """Plain tables, for JSON."""
        return {"query": dict(self.query), "document": dict(self.document)}

    @staticmethod
    def from_json(value: Any) -> Prompts:
        """The inverse of `to_json`.

        Raises:
            ModelError: the value is not two tables of strings.
        """
        if not isinstance(value, Mapping):
            raise ModelError(f"Prompts are {value!r}", possible='{"query": {task: prompt}, "document": {task: prompt}}')
        return Prompts(_table(value, "query"), _table(value, "document"))

    @staticmethod
    def from_sentence_transformers(named: Mapping[str, str | None]) -> Prompts:
        """Read the `prompts` of a `config_sentence_transformers.json`, as `encode_query` and `encode_document` do.

        "query" is the query prompt; "document", "passage" or "corpus", the first that is there, the document prompt.
        (sentence-transformers 6.2 documents this order, but takes the last two of a folder for "document" only where
        they are given to its constructor too.) `default_prompt_name` is for texts without a role. Other names become
        tasks; a name such as "retrieval.query" is the task "retrieval" of one role.
        """
        given = {name: text or "" for name, text in named.items()}
        document = next((text for name in _DOCUMENT_NAMES if (text := named.get(name)) is not None), "")
        tables: dict[Role, dict[str, str]] = {
            "query": {DEFAULT_TASK: given.get("query", "")},
            "document": {DEFAULT_TASK: document},
        }
        for name, text in given.items():
            parts = re.fullmatch(r"(.+)[-._](query|document|passage|corpus)", name)
            if name in _ROLE_OF_SUFFIX:
                continue
            if parts:
                tables[_ROLE_OF_SUFFIX[parts[2]]][parts[1]] = text
            else:
                tables["query"][name] = tables["document"][name] = text
        return Prompts(tables["query"], tables["document"])


def _table(value: Mapping[str, Any], role: str) -> dict[str, str]:
    table = value.get(role, {})
    if not isinstance(table, Mapping) or not all(isinstance(text, str) for text in table.values()):
        raise ModelError(f"Prompts of role {role} are {table!r}", possible="a table of task: prompt")
    return dict(table)
