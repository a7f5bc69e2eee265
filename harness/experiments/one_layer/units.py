"""Experiment `one-layer`: train an attention model on a teacher chain, read a chain off it, fit another to its samples.

Each repetition draws its own teacher, data and embeddings; a unit is one repetition. Figures are pooled over
repetitions when a table is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from ccmc import CCMC, Contexts, NoMaximumLikelihoodEstimate, Observations, chain_from_attention, fit_mle, simulate
from harness.core.rows import Rows
from harness.core.seeds import derive_seed
from harness.experiments._shared.sampling import count_tokens, excess_risk, sample_rows
from harness.experiments.one_layer.settings import OneLayer
from harness.measures.agreement import winner_measures
from harness.measures.winners import winner_set
from harness.models.one_layer import FloatArray, IntArray, OneLayerAttention, Training, continue_prompts, train
from harness.runs.units import Work
from harness.runs.writing import write_parquet

EQUIVALENCE_BOUND = 1e-10


def repetition(work: Work) -> pd.DataFrame:
    """Do one repetition."""
    s = OneLayer.model_validate(
        {"kind": "one-layer", **{k: v for k, v in work.settings.items() if k not in {"seed", "repetition"}}}
    )
    seed = derive_seed(work.settings["seed"], "one-layer", work.settings["repetition"])
    K, d, n = s.vocab_size, s.dimension, s.observations
    rng = np.random.default_rng(seed)
    teacher = CCMC(rng.normal(0.0, s.logit_sd, (K, K)))
    condition = {"K": K, "d": d, "n": n, "prompt_length": s.prompt_length}
    shared = {"experiment": "one-layer", "model": "one-layer", "split": "held_out"}
    rows = Rows(**shared, condition=condition, seed=work.settings["repetition"])

    prompts = rng.integers(0, K, (n, s.prompt_length))
    targets = sample_rows(teacher.next_token(count_tokens(prompts, K), prompts[:, -1]), rng)
    embeddings = torch.as_tensor(rng.normal(0.0, d**-0.5, (K, d)))
    model = OneLayerAttention(embeddings, s.train_embeddings)
    training = train(model, prompts, targets, progress=lambda share, what: work.progress(0.5 * share, what))
    E, W = model.E.detach(), model.W.detach()
    save_file({"E": E.contiguous(), "W": W.contiguous()}, work.folder / "model.safetensors")
    pd.DataFrame({"step": range(len(training.losses)), "loss": training.losses}).to_csv(
        work.folder / "loss.csv", index=False
    )

    _training_gap(rows, training, Observations(Contexts(count_tokens(prompts, K), prompts[:, -1]), targets))

    work.progress(0.55, "comparing with the chain read off the weights")
    held_out = rng.integers(0, K, (s.held_out_prompts, s.prompt_length))
    counts, query = count_tokens(held_out, K), held_out[:, -1]
    truth = teacher.next_token(counts, query)
    of_model, lost = (t.numpy() for t in model.tied_output(torch.as_tensor(held_out)))
    rows.add("lost_mass", float(lost.mean()), surrogate="model", n=len(held_out))
    chain = chain_from_attention(E.numpy(), W.numpy())
    of_chain = chain.next_token(counts, query)
    _equivalence(rows, of_model, of_chain, claimed=d >= K)
    _save(chain, work, "ccmc-weights")

    work.progress(0.6, "fitting a chain to tokens sampled from the model")
    observations = _samples_of(model, rng.integers(0, K, (n, s.prompt_length)), rng)
    parameters = K * (K - 1) / 2
    _risk(rows, "model", truth, of_model, parameters / n, len(held_out))
    _risk(rows, "ccmc-weights", truth, of_chain, parameters / n, len(held_out))
    try:
        fitted = fit_mle(observations).chain
    except NoMaximumLikelihoodEstimate as error:
        reason = f"no maximum likelihood estimate: {error}"
        rows.add("excess_risk", None, missing=reason, surrogate="ccmc-fit")
        return rows.frame()
    of_fit = fitted.next_token(counts, query)
    # its data come from the trained model, so the errors of model and fit add up
    _risk(rows, "ccmc-fit", truth, of_fit, 2 * parameters / n, len(held_out))
    over = excess_risk(of_model, of_fit)
    rows.add("excess_risk_over_model", over, surrogate="ccmc-fit", n=len(held_out), prediction=parameters / n)
    _save(fitted, work, "ccmc-fit")
    _winners(rows, work, s, model, {"ccmc-weights": chain, "ccmc-fit": fitted}, held_out, seed)
    return rows.frame()


def _samples_of(model: OneLayerAttention, prompts: IntArray, rng: np.random.Generator) -> Observations:
    """Prompts [n, L] with one next token each, sampled from the trained model."""
    with torch.inference_mode():
        probabilities = model.tied_output(torch.as_tensor(prompts))[0].numpy()  # [n, K]
    counts = count_tokens(prompts, probabilities.shape[1])
    return Observations(Contexts(counts, prompts[:, -1]), sample_rows(probabilities, rng))


def _equivalence(rows: Rows, of_model: FloatArray, of_chain: FloatArray, claimed: bool) -> None:
    """The largest difference of a probability between the model and the chain read off its weights."""
    error = float(np.abs(of_model - of_chain).max())
    holds = "holds" if error <= EQUIVALENCE_BOUND else "does not hold"
    verdict = holds if claimed else "not claimed: d < K"
    rows.add("equivalence_error", error, surrogate="ccmc-weights", n=len(of_model), prediction=0.0, verdict=verdict)


def _training_gap(rows: Rows, training: Training, observations: Observations) -> None:
    """How far training stayed from the maximum likelihood of its own data, in nats per observation."""
    columns: dict[str, Any] = {"surrogate": "model", "split": "train", "n": len(observations), "prediction": 0.0}
    try:
        best = fit_mle(observations).log_likelihood
    except NoMaximumLikelihoodEstimate as error:
        rows.add("training_gap", None, missing=f"no maximum likelihood estimate: {error}", **columns)
    else:
        rows.add("training_gap", training.losses[-1] + best / len(observations), **columns)


def _risk(rows: Rows, surrogate: str, truth: FloatArray, other: FloatArray, prediction: float, n: int) -> None:
    if bool(np.any((other <= 0) & (truth > 0))):
        rows.add("excess_risk", None, missing="gives probability 0 to a token of the context", surrogate=surrogate)
    else:
        rows.add("excess_risk", excess_risk(truth, other), surrogate=surrogate, n=n, prediction=prediction)


def _save(chain: CCMC, work: Work, name: str) -> None:
    folder = work.folder / "chains"
    folder.mkdir(exist_ok=True)
    chain.save(folder / f"{name}.safetensors")


def _winners(
    rows: Rows,
    work: Work,
    s: OneLayer,
    model: OneLayerAttention,
    chains: dict[str, CCMC],
    held_out: IntArray,
    seed: int,
) -> None:
    """Model and surrogates continue the same held-out prompts; their winner sets are compared prompt by prompt."""
    prompts = held_out[: s.rollout_prompts]
    made: dict[tuple[str, int], IntArray] = {}
    for index in range(s.rollout_seeds):
        work.progress(0.7 + 0.3 * index / s.rollout_seeds, f"continuing prompts, seed {index + 1} of {s.rollout_seeds}")
        made["model", index] = continue_prompts(
            model, prompts, s.rollout_steps, derive_seed(seed, "model", index) % 2**31
        )
        for name, chain in chains.items():
            made[name, index] = simulate(chain, prompts, s.rollout_steps, seed=derive_seed(seed, name, index))
    trajectories = []
    for (name, index), continuations in made.items():
        for prompt, continuation in enumerate(continuations):
            trajectories.append(
                {
                    "experiment": "one-layer",
                    "model": "one-layer",
                    "strategy": "temperature=1",
                    "source": name,
                    "seed": index,
                    "split": "held_out",
                    "prompt": f"r{work.settings['repetition']}-{prompt}",
                    "kind": "iid",
                    "prompt_tokens": prompts[prompt].tolist(),
                    "continuation": continuation.tolist(),
                    "text": None,
                }
            )
    write_parquet(pd.DataFrame(trajectories), work.folder / "trajectories.parquet")
    for prompt in range(len(prompts)):
        name_of_prompt = f"r{work.settings['repetition']}-{prompt}"
        for index in range(s.rollout_seeds):
            real = made["model", index][prompt]
            rows.add("winner_size", len(winner_set(real)), surrogate="model", prompt=name_of_prompt, n=1)
            others = {
                **{name: made[name, index][prompt] for name in chains},
                "model-reseeded": made["model", (index + 1) % s.rollout_seeds][prompt],
                "model-shuffled": made["model", index][(prompt + 1) % len(prompts)],
            }
            for name, other in others.items():
                for metric, found in winner_measures(real, other, prompts[prompt]).items():
                    rows.add(metric, found.value, missing=found.missing, surrogate=name, prompt=name_of_prompt, n=1)
