"""The units of the experiment `in-the-loop`: texts, fits of layers, losses of each arm, and continuations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.decoding import has_one_continuation, strategy_options
from harness.config.model_defaults import resolve
from harness.core.errors import UsageError
from harness.experiments._shared.continuations import (
    Model,
    local,
    prompt_settings,
    real_units,
    smoke_length,
    tokens_of,
)
from harness.experiments._shared.loop_rules import MEAN_OUTPUT, REAL, UNIFORM, used
from harness.experiments._shared.loop_units import fit_units
from harness.experiments.experiment import Request
from harness.runs.units import Unit

ROOM = "harness.experiments.in_the_loop"


def plan(request: Request) -> list[Unit]:
    """Of every model: continuations, fits, losses arm by arm, continuations with heads replaced."""
    beams = [way for way in request.config.generation.strategies if "beams" in strategy_options(way)]
    if beams:
        raise UsageError("generation.strategies: in-the-loop replaces heads in no beam search; leave beams out")
    return [unit for model in request.models for unit in _Planned(request, model).units()]


class _Planned:
    """The units of one model."""

    def __init__(self, request: Request, model: Model) -> None:
        self.request, self.model, self.settings = request, model, request.settings
        self.config, self.device = request.config, request.device
        limit = self.config.limit
        size = max(1, model.layers // (2 * limit)) if limit is not None else 1
        every = list(range(0, model.layers, size))
        self.layers = every if self.settings.layers == "all" else list(self.settings.layers)
        self.length = smoke_length(self.config, self.settings.max_length)
        new = smoke_length(self.config, self.config.generation.max_new_tokens)
        prompts = max((len(model.tokens[prompt.id]) for prompt in request.prompts), default=1)
        self.longest = max(self.length, prompts + new)
        self.alone_texts = self.settings.alone_texts if limit is None else min(self.settings.alone_texts, limit)
        self.written = self.settings.generate if limit is None else self.settings.generate[:limit]
        shares = self.settings.shares if limit is None else self.settings.shares[: 2 * limit]
        self.shares = sorted({*shares, *self.written})

    def shared(self, **more: Any) -> dict[str, Any]:
        return {
            **self.model.settings(),
            "max_length": self.length,
            "longest": self.longest,
            "first_position": self.settings.first_position,
            "choosing": self.settings.choosing,
            "seed": self.config.seed,
            **more,
        }

    def unit(
        self, task: str, label: str, settings: dict[str, Any], needs: Sequence[Unit], names: Sequence[str]
    ) -> Unit:
        return Unit(
            f"{ROOM}.{task}",
            f"{self.model.name}: {label}",
            settings,
            tuple(needs),
            local(self.model, self.device),
            self.config.threads,
            uses=used(names),
        )

    def units(self) -> list[Unit]:
        s, config = self.settings, self.config
        prompts = self.request.prompts
        strategies = config.generation.strategies
        texts = [u for way in strategies for u in real_units(config, self.model, prompts, way, self.device)]
        size = s.layers_per_unit
        groups = [self.layers[first : first + size] for first in range(0, len(self.layers), size)]
        fitted = self.shared(experiment="in-the-loop", surrogates=list(s.fitted))
        fits = fit_units(self.model, self.layers, size, fitted, texts, device=self.device, threads=config.threads)
        found = [*texts, *fits]
        for leader in s.surrogates:
            found += self._of_order(leader, texts, fits, groups)
        if s.generate:
            settings = {**self.model.settings(), "ignore_eos": config.generation.ignore_eos, "margin": s.margin}
            found.append(self.unit("writing:own", "measuring its continuations", settings, texts, []))
        return found

    def _of_order(self, leader: str, texts: list[Unit], fits: list[Unit], groups: list[list[int]]) -> list[Unit]:
        """The units of the sets that one surrogate's order makes."""
        s, found, needs = self.settings, [], [*fits, *texts]
        leads = leader in s.leaders
        alone: list[Unit] = []
        if leads and ("alone" in s.sets or s.alone_map):
            for group in groups:
                settings = self.shared(order=leader, layers=group, alone_texts=self.alone_texts)
                label = f"heads of layers {', '.join(map(str, group))} alone as {leader}"
                alone.append(self.unit("alone:measure", label, settings, needs, [leader]))
            found += alone
            if "alone" in s.sets:
                needs = [*needs, *alone]
            else:
                alone = []  # no set waits for them
        families = list(s.sets) if leads else [name for name in s.sets if name == "share"]
        if "greedy" in families:
            settings = self.shared(order=leader, greedy=s.greedy.model_dump())
            label = f"greedy selection of heads for {leader}"
            selected = self.unit("selection:select", label, settings, needs, [leader])
            found.append(selected)
            needs = [*needs, selected]
        arms = list(dict.fromkeys([leader, *(s.nulls if leads else ()), *(s.controls if leads else ())]))
        for arm in arms if families else []:
            null, own = arm in s.nulls and leads, arm == leader
            rules = [s.first_position]
            if s.real_first_position and leads and arm not in {UNIFORM, MEAN_OUTPUT}:
                rules.append(REAL)
            settings = self.shared(
                arm=arm,
                order=leader,
                families=families if own else [name for name in families if name != "random"],
                shares=self.shares,
                random_draws=s.random_draws,
                layer_0=[False, True],
                rules=rules,
                training_texts=s.training_texts if null else 0,
                held_out_texts=s.held_out_texts,
            )
            label = f"nats lost with {arm}" + ("" if own else f" in the heads of {leader}")
            found.append(self.unit("losses:measure", label, settings, needs, [leader, arm]))
        if leads and s.generate:
            found += self._continuations(leader, [*fits, *texts, *alone])
        return found

    def _continuations(self, leader: str, needs: list[Unit]) -> list[Unit]:
        """The units that continue held-out prompts with heads replaced."""
        s, config, found = self.settings, self.config, []
        held_out = [prompt for prompt in self.request.prompts if prompt.split == "held_out"]
        best = "alone" if "alone" in s.sets and "share" not in s.sets else "share"
        for arm in dict.fromkeys([leader, *(s.nulls if s.generate_nulls else ())]):
            for strategy in config.generation.strategies:
                resolved = resolve(strategy, self.model.defaults)
                seeds = 1 if has_one_continuation(strategy) else config.generation.seeds
                settings = self.shared(
                    arm=arm,
                    order=leader,
                    shares=list(self.written),
                    random_draws=1,
                    families=[best, "random"] if arm == leader else [best],
                    layer_0=[False],
                    prompts=[prompt_settings(self.model, prompt) for prompt in held_out],
                    strategy=resolved.name,
                    temperature=resolved.temperature,
                    options=resolved.options,
                    defaults=dict(resolved.fields or {}),
                    max_new_tokens=smoke_length(config, config.generation.max_new_tokens),
                    batch_size=config.generation.batch_size,
                    ignore_eos=config.generation.ignore_eos,
                    seeds=seeds,
                )
                label = f"continuing {len(held_out)} prompts with {arm} in the heads of {leader}, {resolved.name}"
                unit = self.unit("writing:write", label, settings, needs, [leader, arm])
                unit.local["tokens"] = tokens_of(self.model, held_out)
                found.append(unit)
        return found
