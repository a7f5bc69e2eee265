"""The units of the experiment `causes`: texts, what is learned from them, strengths, and continuations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from harness.config.decoding import Sampling, has_one_continuation, strategy_options
from harness.config.model_defaults import resolve
from harness.core.errors import UsageError
from harness.core.hashing import canonical_hash
from harness.data.splits import Prompt
from harness.experiments._shared.continuations import (
    Model,
    continuation_unit,
    local,
    smoke_length,
    tokens_of,
)
from harness.experiments._shared.given_texts import texts_unit
from harness.experiments.causes.settings import HUMAN, NATURAL, NGRAM, NOISE, OWN
from harness.experiments.causes.texts import LEARN, MATCH, REPORT, parted, set_up, taken
from harness.experiments.experiment import Request
from harness.runs.units import Unit

ROOM = "harness.experiments.causes"
SMOKE = 3
"""Interventions of a smoke run with `limit` N are at most so many times N."""


def plan(request: Request) -> list[Unit]:
    """Of every model: texts, what is learned, strengths by intervention and sort of text, continuations."""
    beams = [way for way in request.config.generation.strategies if "beams" in strategy_options(way)]
    if beams:
        raise UsageError("generation.strategies: causes intervenes in no beam search; leave beams out")
    return [unit for model in request.models for unit in _Planned(request, model).units()]


class _Planned:
    """The units of one model."""

    def __init__(self, request: Request, model: Model) -> None:
        self.request, self.model, self.settings = request, model, request.settings
        self.config, limit = request.config, request.config.limit
        s = self.settings
        self.names = s.names if limit is None else s.names[: SMOKE * limit]
        self.levels = s.levels if limit is None else s.levels[-limit:]
        self.written = [level for level in s.written if level in self.levels] or list(self.levels[-1:])
        self.sorts = s.matched_on if limit is None else s.matched_on[:limit]
        self.length = smoke_length(self.config, s.max_length)
        self.training = [prompt for prompt in request.prompts if prompt.split == "train"]
        self.held_out = [prompt for prompt in request.prompts if prompt.split == "held_out"]

    def unit(self, task: str, label: str, settings: dict[str, Any], needs: Sequence[Unit]) -> Unit:
        about = {**self.model.settings(), "max_length": self.length, "seed": self.config.seed, **settings}
        where = local(self.model, self.request.device)
        return Unit(f"{ROOM}.{task}", f"{self.model.name}: {label}", about, tuple(needs), where, self.config.threads)

    def parts(self, texts: Sequence[Prompt], wanted: Sequence[str], what: str) -> dict[str, list[str]]:
        """Text -> the parts that it is in; at most as many texts of a part as the settings say.

        A smoke run may have fewer groups than parts: then every text is in all of them.
        """
        s = self.settings
        found: dict[str, list[str]] = {}
        try:
            of_group = parted((text.group for text in texts), wanted, self.config.seed)
        except ValueError as error:
            if self.config.limit is None:
                raise UsageError(f"experiments.causes: {what}: {error}; give more") from None
            return {text.id: list(wanted) for text in texts}
        for part in wanted:
            own = [text for text in texts if of_group[text.group] == part]
            count = s.learning_texts if part == LEARN else max(1, s.calibration_texts // 2)
            found |= {text.id: [part] for text in taken(own, count, self.config.seed)}
        return found

    def units(self) -> list[Unit]:
        s, model = self.settings, self.model
        own_parts = self.parts(self.training, (LEARN, MATCH, REPORT), "training prompts")
        used = [prompt for prompt in self.training if prompt.id in own_parts]
        own = continuation_unit(self.config, model, used, Sampling(temperature=1.0), 0, self.request.device)
        about = {
            "layers": _plain(s.layers), "parts": own_parts, "random_like": list(s.random_like),
            "top_heads": s.top_heads,
            "noise": NOISE in self.names,
        }  # fmt: skip
        learned = self.unit("learning:learn", "heads, outputs and MLPs on its training texts", about, [own])
        found, strengths = [own, learned], {}
        for sort in self.sorts:
            texts, parts, groups = own, own_parts, {prompt.id: prompt.group for prompt in used}
            if sort == HUMAN:
                texts, parts, groups = self._human(own_parts)
                found.append(texts)
            parts = {text: [part for part in of_text if part != LEARN] for text, of_text in parts.items()}
            parts = {text: of_text for text, of_text in parts.items() if of_text}
            groups = {text: groups[text] for text in parts}
            for name in self.names:
                about = {
                    "intervention": name, "text": sort, "levels": list(self.levels), "parts": parts, "groups": groups,
                    "layers": _plain(s.layers),
                }  # fmt: skip
                label = f"strength of {name}, matched on {'its own' if sort == OWN else 'human-like'} texts"
                needs = [learned, texts]
                strengths[name, sort] = self.unit("calibrating:calibrate", label, about, needs)
                found.append(strengths[name, sort])
        return found + self._continuations(learned, strengths)

    def _human(self, own_parts: dict[str, list[str]]) -> tuple[Unit, dict[str, list[str]], dict[str, str]]:
        """The unit that holds human-like texts, in which half each is, and their groups."""
        documents = self.request.documents[: self.config.limit]
        parts = own_parts
        if self.settings.texts is None:
            documents = [prompt for prompt in self.training if set(own_parts.get(prompt.id, ())) - {LEARN}]
        else:
            parts = self.parts(documents, (MATCH, REPORT), "texts")
        pieces, kept = [], []
        for text in documents:
            ids = self.model.encode(text.text, f"experiments.causes.texts: text {text.id!r}").whole[: self.length]
            if text.id in parts and len(ids) > 1:
                pieces.append({"document": text.id, "split": "train", "piece": 0, "tokens": ids})
                kept.append(text)
        self.model.report("human-like texts")
        label = f"{len(pieces)} human-like texts"
        unit = texts_unit(self.model, pieces, label, self.length, self.request.device)
        return unit, {text.id: parts[text.id] for text in kept}, {text.id: text.group for text in kept}

    def _continuations(self, learned: Unit, strengths: dict[tuple[str, str], Unit]) -> list[Unit]:
        """The units that continue held-out prompts: without an intervention, then with each."""
        s, config, found = self.settings, self.config, []
        contexts = {context: self._contexts(context) for context in s.contexts}
        jobs: list[tuple[dict[str, Any], list[Unit]]] = [({"intervention": "none"}, [])]
        if s.no_repeat_ngram is not None:
            jobs.append(({"intervention": NGRAM, "n": s.no_repeat_ngram}, []))
        jobs += [
            ({"intervention": name, "text": sort, "level": level}, [learned, unit])
            for (name, sort), unit in strengths.items()
            for level in self.written
        ]
        for strategy, (job, needs), (context, tokens) in product(config.generation.strategies, jobs, contexts.items()):
            resolved = resolve(strategy, self.model.defaults)
            about = {
                "job": job,
                "context": context,
                "prompts": [_prompt_settings(prompt, ids) for prompt, ids in zip(self.held_out, tokens, strict=True)],
                "strategy": resolved.name,
                "temperature": resolved.temperature,
                "options": {**resolved.options, **dict(resolved.fields or {})},
                "max_new_tokens": smoke_length(config, config.generation.max_new_tokens),
                "batch_size": config.generation.batch_size,
                "ignore_eos": config.generation.ignore_eos,
                "seeds": 1 if has_one_continuation(strategy) else config.generation.seeds,
                "layers": _plain(s.layers),
                "margin": s.margin,
                "repeats": s.repeats,
            }
            what = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in job.values())
            label = f"continuing {len(self.held_out)} prompts, {context}, {resolved.name}: {what}"
            unit = self.unit("writing:write", label, about, needs)
            unit.local["tokens"] = tokens
            found.append(unit)
        return found

    def _contexts(self, context: str) -> list[list[int]]:
        """The token ids that are continued, of every held-out prompt."""
        if context == NATURAL:
            return tokens_of(self.model, self.held_out)
        made = [
            self.model.encode(
                set_up(prompt.text, self.settings.repeats), f"prompt {prompt.id!r}, a sentence of it repeated"
            ).whole
            for prompt in self.held_out
        ]
        self.model.report("sentences that are repeated")
        self._check_window(made)
        return [list(ids) for ids in made]

    def _check_window(self, made: Sequence[Sequence[int]]) -> None:
        """Refuse repeated sentences that leave no room for a continuation in the window of the model.

        Raises:
            UsageError: names the prompt and the setting.
        """
        from harness.models import loading

        window = loading.context_window(loading.load_config(self.model.path))
        new = smoke_length(self.config, self.config.generation.max_new_tokens)
        for prompt, ids in zip(self.held_out, made, strict=True):
            if window is not None and len(ids) + new > window:
                raise UsageError(
                    f"experiments.causes.repeats: prompt {prompt.id!r}: a sentence of it {self.settings.repeats} times "
                    f"and {new} new tokens are {len(ids) + new} tokens; the window of {self.model.name!r} is {window}; "
                    "lower repeats or generation.max_new_tokens"
                )


def _plain(layers: Any) -> Any:
    return layers if layers == "all" else list(layers)


def _prompt_settings(prompt: Prompt, ids: Sequence[int]) -> dict[str, Any]:
    about = {"id": prompt.id, "kind": prompt.kind, "split": prompt.split, "group": prompt.group}
    return {**about, "tokens_sha256": canonical_hash(list(ids))}
