"""Does one fit predict an unseen temperature? The table, and the answer in words."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.format import listed, percent
from harness.core.lazy import LazyRows
from harness.core.records import Answer, Cell, Column, Table
from harness.experiments._shared.leading import Leading
from harness.experiments._shared.sentences import beyond, not_found, with_unit
from harness.experiments.repetition.chosen import CHOSEN, short_rung
from harness.experiments.repetition.parts import DIFFERENCES, Paired, Part, paired, prompts_of
from harness.experiments.repetition.sources import DECODED, LOGIT, Source
from harness.experiments.repetition.unseen import NEAREST, SMOOTH
from harness.stats.contest import beyond_chance
from harness.stats.equivalence import judge
from harness.stats.power import FINDABLE, smallest_difference
from harness.stats.proper import recovered

QUESTION = "Does one fit predict an unseen temperature?"
ONE_STEP = "log_loss"
MEASURES = (ONE_STEP, "seq_rep_4", "above_half", "energy_score", "new_tokens")


def judged_unseen(found: Sequence[Part]) -> list[Part]:
    """The models and strategies that a joint fit did not see and is judged at."""
    return [part for part in found if _unseen(part)]


def _unseen(part: Part) -> bool:
    return any(source.name == SMOOTH for _, source in part.samples)


def unseen_table(found: Sequence[Part]) -> Table:
    """One line per unseen strategy, rung and measure.

    Args:
        found: all parts; those without a joint fit are passed over.
    """
    shown = judged_unseen(found)
    lead = Leading(("model", "strategy"), [(part.model, part.strategy) for part in shown])

    def body() -> list[list[Cell]]:
        made: list[list[Cell]] = []
        for part in shown:
            for rung in _shown(part):
                for measure in MEASURES:
                    of = _sources(part, rung, measure)
                    means = [part.sample(measure, of[name]).value for name in (SMOOTH, LOGIT, NEAREST)]
                    gaps = [_apart(part, rung, measure, name).mean().interval() for name in (LOGIT, NEAREST)]
                    least = smallest_difference(gaps[1])
                    made.append([*lead.cells((part.model, part.strategy)), _name(rung), measure, *means, *gaps, least])
        return made

    return Table(
        "repetition.unseen",
        f"{QUESTION} {lead.same}",
        [
            *lead.columns,
            Column("statistics", left=True),
            Column("measure", left=True),
            Column("joint", priority=2),
            Column("direct", priority=3),
            Column("nearest", priority=4),
            Column("joint - direct", signed=True),
            Column("joint - nearest", signed=True),
            Column("findable", priority=1),
        ],
        LazyRows(body),
        f"{prompts_of(shown)}; {LOGIT} with the statistics of each rung, {DECODED} law. joint: weights as a polynomial "
        "in the temperature, greedy being 0, fitted to all other strategies together, to second order. direct: weights "
        "fitted at this temperature. nearest: those of the nearest other temperature as they are; of two equally near, "
        "those that suit training texts of this one better. log_loss (nats per token along the model's text) and "
        f"energy_score: less is better; all but log_loss are figures of walks. {FINDABLE}, of joint - nearest. "
        f"{DIFFERENCES}",
    )


def _shown(part: Part) -> tuple[str, ...]:
    """The rungs, after the chosen one where one was chosen."""
    return (*((CHOSEN,) if part.choice else ()), *part.rungs)


def _name(rung: str) -> str:
    return "chosen rung" if rung == CHOSEN else short_rung(rung)


def _sources(part: Part, rung: str, measure: str) -> dict[str, Source]:
    """The joint, the direct and the nearest fit; one step ahead nothing takes over later."""
    start = 0 if measure == ONE_STEP else part.start
    return {name: Source(name, DECODED, rung, start) for name in (SMOOTH, LOGIT, NEAREST)}


def _apart(part: Part, rung: str, measure: str, other: str) -> Paired:
    """The joint fit's figures beside those of another, prompt by prompt."""
    of = _sources(part, rung, measure)
    return paired(part.sample(measure, of[SMOOTH]), part.sample(measure, of[other]))


def joint_answers(found: Sequence[Part]) -> list[Answer]:
    """One answer for each unseen strategy of each model.

    Args:
        found: all parts; those without a joint fit were seen by it.
    """
    seen = [(part.model, part.strategy) for part in found if not _unseen(part)]
    return [
        predicted(part, [strategy for model, strategy in seen if model == part.model]) for part in judged_unseen(found)
    ]


def predicted(part: Part, seen: Sequence[str]) -> Answer:
    """Whether the joint fit's log loss at an unseen temperature is below that of the nearest seen one's weights.

    Args:
        part: the unseen strategy.
        seen: strategies that the joint fit has seen.
    """
    rung = CHOSEN if part.choice else part.rungs[-1]
    null, direct = (_apart(part, rung, ONE_STEP, name) for name in (NEAREST, LOGIT))
    gain, loss = null.mean().interval(), direct.mean().interval()
    who = f"weights of {LOGIT}, {part.shown_rung}, predicted from {listed(seen)}"
    if gain.value is None or gain.low is None or gain.high is None:
        why = gain.missing or "no prompt has a log loss of both"
        return Answer(QUESTION, f"{part.what}: could not be answered: {why}.", gain, answered=False)
    if gain.high < 0:
        text = f"yes, {who}, lose {beyond(gain, 'nats')} less than those of the nearest seen temperature."
    elif gain.low > 0:
        text = f"no, {who}, lose {beyond(gain, 'nats')} more than those of the nearest seen temperature."
    else:
        text = f"not shown, {who}: {not_found(gain, 'those of the nearest seen temperature', 'nats')}."
    text += (
        f" From a fit at this temperature they differ by {with_unit(loss, 'nats', signed=True)}{_share(part, rung)}."
    )
    return Answer(QUESTION, f"{part.what}: {text}{_rungs(part)}{_walks(part, rung)}", gain)


def _share(part: Part, rung: str) -> str:
    """How much of the way from the nearest weights to those fitted here the joint fit goes, where there is one."""
    of = _sources(part, rung, ONE_STEP)
    three = paired(*(part.sample(ONE_STEP, of[name]) for name in (SMOOTH, NEAREST, LOGIT)))
    joint, null, direct = three.values
    share = recovered(joint, null, direct, three.groups).share
    return "" if share.value is None else f": they recover {percent(share)} of what that fit gains"


def _rungs(part: Part) -> str:
    """At how many rungs the joint fit is better than the null, corrected together."""
    moves = [_apart(part, rung, ONE_STEP, NEAREST).mean() for rung in part.rungs]
    if len(moves) < 2:
        return ""
    clear = beyond_chance([one.p() for one in moves])
    better = sum(beyond_it and (one.value or 0.0) < 0 for one, beyond_it in zip(moves, clear, strict=True))
    return f" It is better than the nearest at {better} of {len(moves)} rungs (Holm)."


def _walks(part: Part, rung: str) -> str:
    """Whether walks of the joint fit repeat as those of the direct fit do."""
    measure = "seq_rep_4"
    both = _apart(part, rung, measure, LOGIT)
    if both.n == 0:
        return ""
    verdict = judge(both.differences, both.groups, part.margin(measure))
    shown = f"{measure} differs by {with_unit(verdict.interval, signed=True)}"
    said = {
        "agrees": f"repeat as much as those of a fit at this temperature, within {verdict.margin:g}",
        "differs": "do not repeat as much as those of a fit at this temperature",
        "undecided": f"are neither shown to differ from those of a fit at this temperature nor to agree within "
        f"{verdict.margin:g}",
    }
    return f" Its walks {said[verdict.word]}: {shown}."
