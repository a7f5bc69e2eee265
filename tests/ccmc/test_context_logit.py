"""The context logit against its definition written out, the paper's chain, and autograd."""

from __future__ import annotations

import numpy as np
import plain_logit
import pytest
from scipy import stats

from ccmc import CCMC, BaseTransition, ContextLogit, context_rows, fit_context_logit
from ccmc.base import Factors, exponents, tail_scale
from ccmc.context_logit import STATISTICS, statistics_weights

V = 12
NAMES = (
    "present", "log-count", "recency", "longest-match", "log-longest-match", "followed-by-1", "followed-by-2",
    "log-followed-by-2", "shrunk-followed-by-1", "latest-after-3", "recent-8", "suffix", "log-suffix",
    "recency-squared", "match-squared", "unigram", "base-by-match", "base-inside",
    "followed-by-1-in-match-2", "log-followed-by-2-in-match-4", "log-suffix-in-match-3", "base-by-match-in-match-2",
)  # fmt: skip


@pytest.fixture(scope="module")
def transition():
    p = np.random.default_rng(1).dirichlet(np.full(V, 0.5), V) + 1e-4
    return p / p.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def weights():
    rng = np.random.default_rng(2)
    return {"base": 0.8, **{name: float(rng.normal() / 2) for name in NAMES}}


@pytest.fixture(scope="module", params=[4, 9])
def text(request):
    """Long matches in few types, and few matches in many."""
    return np.random.default_rng(request.param).integers(0, request.param, 60)


@pytest.mark.parametrize("top", [None, 4])
@pytest.mark.parametrize(
    ("closed", "offset"),
    [(False, "none"), (True, "none"), (True, "counts"), (True, "followed-by-1"), (False, "counts")],
)
def test_next_token_is_its_definition(transition, weights, text, top, closed, offset):
    base = BaseTransition.from_rows(np.arange(0, V, 2), transition[::2], top=top)  # odd queries have the unigram
    model = ContextLogit(weights, base, closed, offset)
    contexts = [text[:n] for n in (1, 2, 3, 7, 31, 60)]
    found = model.next_token(contexts)
    expected = [
        plain_logit.next_token(weights, base.log_row(c[-1]), c, closed, offset, base.log_unigram) for c in contexts
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_log_probabilities_are_those_of_next_token(transition, weights, text):
    base = BaseTransition.from_rows(np.arange(0, V, 2), transition[::2], top=3)
    model = ContextLogit(weights, base)
    found = model.log_probabilities(text, start=4)
    p = model.next_token([text[:n] for n in range(4, len(text))])
    np.testing.assert_allclose(found, np.log(p[np.arange(len(p)), text[4:]]), atol=1e-12)


def test_closed_with_unit_weights_is_the_papers_chain(transition, text):
    chain, base = CCMC.from_transition(transition), BaseTransition.from_transition(transition)
    contexts = [text[:n] for n in range(1, len(text))]
    counts = np.stack([np.bincount(c, minlength=V) for c in contexts])
    expected = chain.next_token(counts, np.array([c[-1] for c in contexts]))
    weighed = ContextLogit({"base": 1.0, "log-count": 1.0}, base, closed=True).next_token(contexts)
    offset = ContextLogit({}, base, closed=True, offset="counts").next_token(contexts)
    np.testing.assert_allclose(weighed, expected, rtol=1e-13)
    np.testing.assert_allclose(offset, expected, rtol=1e-13)


def test_open_tends_to_the_papers_chain_as_presence_grows(transition, text):
    base = BaseTransition.from_transition(transition)
    closed = ContextLogit({"log-count": 1.0}, base, closed=True).next_token([text])[0]
    far = [
        np.abs(ContextLogit({"log-count": 1.0, "present": b}, base).next_token([text])[0] - closed).sum()
        for b in (0.0, 5.0, 10.0, 20.0)
    ]
    assert far[0] > far[1] > far[2] > far[3]
    assert far[3] < 1e-6
    assert far[1] / far[2] == pytest.approx(np.exp(5.0), rel=0.05)  # what is left shrinks as exp(-b0)


def test_base_alone_is_the_markov_chain(transition, text):
    model = ContextLogit({}, BaseTransition.from_transition(transition))
    np.testing.assert_allclose(model.next_token([text])[0], transition[text[-1]], rtol=1e-12)


def test_closed_induction_has_its_own_offset(transition):
    flat = BaseTransition.flat(V)
    model = ContextLogit({}, flat, closed=True, offset="followed-by-1")
    np.testing.assert_allclose(model.next_token([[3, 1, 3, 1, 3, 2, 3]])[0][[1, 2, 3]], [2 / 3, 1 / 3, 0.0], atol=1e-15)
    np.testing.assert_allclose(model.next_token([[3, 3, 5]])[0][[3, 5]], [2 / 3, 1 / 3])  # nothing followed 5: counts


@pytest.mark.parametrize("closed", [False, True])
def test_gradient_agrees_with_autograd(transition, text, closed):
    torch = pytest.importorskip("torch")
    from ccmc._logit.newton import sums

    base = BaseTransition.from_rows(np.arange(V), transition, top=3)
    inside, p = [], np.random.default_rng(0).dirichlet(np.ones(V), len(text) - 5)
    types = list(dict.fromkeys(text.tolist()))
    known = np.array([[t in text[:n] for t in types] for n in range(5, len(text))])
    inside = np.where(known, p[:, types], 0.0)
    log = np.stack([base.log_row(q) for q in text[4:-1]])
    everything = (p * log).sum(axis=1) - (inside * log[:, types]).sum(axis=1)
    beyond = np.column_stack([1 - inside.sum(axis=1), everything])
    rows = context_rows([text], NAMES, base, 5, closed=closed, targets=[(inside, beyond)])
    w = np.random.default_rng(3).normal(size=1 + len(NAMES)) / 3 + np.eye(1 + len(NAMES))[0]

    x = torch.zeros(len(p), V, len(NAMES), dtype=torch.float64)
    present = torch.zeros(len(p), V, dtype=torch.bool)
    for r in range(len(p)):
        here = [t for t, k in zip(types, known[r], strict=True) if k]
        x[r, here] = torch.as_tensor(rows.features[rows.ptr[r] : rows.ptr[r + 1]])
        present[r, here] = True
    free = torch.tensor(w, requires_grad=True)
    u = free[0] * torch.as_tensor(log) + x @ free[1:]
    target = torch.as_tensor(p)
    if closed:
        u = torch.where(present, u, torch.full_like(u, -1e300))
        target = torch.where(present, target, torch.zeros_like(target))
        target = target / target.sum(1, keepdim=True)
    loss = -(target * torch.log_softmax(u, dim=1)).sum()
    loss.backward()
    found, gradient, hessian = sums(rows.terms, w, curvature=True)
    assert found == pytest.approx(float(loss.detach()), rel=1e-10)
    np.testing.assert_allclose(gradient, free.grad.numpy(), rtol=1e-8, atol=1e-9)
    for d in range(len(w)):  # curvature by differences of the gradient
        step = 1e-5 * np.eye(len(w))[d]
        slope = (sums(rows.terms, w + step, False)[1] - sums(rows.terms, w - step, False)[1]) / 2e-5
        np.testing.assert_allclose(hessian[d], slope, rtol=1e-5, atol=1e-5)


def test_a_fit_finds_the_weights_that_made_the_text(transition):
    base = BaseTransition.from_transition(transition)
    true = {"base": 0.7, "present": -1.0, "log-count": 0.6, "recency": -0.3, "followed-by-1": 1.5}
    prompts = [[k % V] for k in range(120)]
    paths = ContextLogit(true, base).rollout(prompts, 120, seed=5)
    texts = [[*prompt, *path] for prompt, path in zip(prompts, paths, strict=True)]
    rows = context_rows(texts, list(true)[1:], base, dtype=np.float32)
    groups = np.repeat(np.arange(120), [len(t) - 1 for t in texts])
    fit = fit_context_logit(rows, groups)
    assert fit.converged
    assert fit.names == tuple(true)
    z = (fit.weights - np.array(list(true.values()))) / fit.standard_errors()
    assert (np.abs(z) < 4).all(), z
    assert (z**2).sum() < stats.chi2.ppf(0.9999, len(z))


def test_paths_have_the_law_of_next_token(transition, weights):
    base = BaseTransition.from_rows(np.arange(0, V, 2), transition[::2], top=4)
    prompt, paths = [0, 3, 0, 1, 4, 2, 0, 3, 1, 0], 30_000
    for model in (ContextLogit(weights, base), ContextLogit(weights, base, True, "followed-by-1")):
        for temperature in (1.0, 0.6):
            found = np.bincount(model.rollout([prompt] * paths, 1, 3, temperature)[:, 0], minlength=V)
            p = model.next_token([prompt])[0] ** (1 / temperature)
            p /= p.sum()
            held = p > 0
            assert found[~held].sum() == 0
            assert stats.chisquare(found[held], paths * p[held]).pvalue > 1e-4


def test_later_steps_follow_from_the_grown_context(transition, weights):
    base = BaseTransition.from_rows(np.arange(0, V, 2), transition[::2], top=4)
    model, prompt = ContextLogit(weights, base), [1, 2, 1]
    paths = model.rollout([prompt] * 400, 40, 0)
    lasts = [model.next_token([[*prompt, *path[:-1]]])[0] for path in paths]
    # probability integral transform of the 40th token, randomised within its step: uniform if the law is right
    rng = np.random.default_rng(0)
    place = [p[: path[-1]].sum() + rng.random() * p[path[-1]] for p, path in zip(lasts, paths, strict=True)]
    assert stats.kstest(place, "uniform").pvalue > 1e-4
    greedy, text = model.rollout([prompt], 40, 0, None)[0], list(prompt)
    for token in greedy:
        assert (
            token
            == plain_logit.next_token(weights, base.log_row(text[-1]), text, log_unigram=base.log_unigram).argmax()
        )
        text.append(int(token))


def test_a_path_depends_on_its_prompt_and_the_seed_alone(transition, weights):
    model = ContextLogit(weights, BaseTransition.from_transition(transition))
    prompts = [[1, 2], [3], [1, 2], [4, 4, 4]]
    paths = model.rollout(prompts, 30, 9)
    np.testing.assert_array_equal(paths[[0, 2, 3]], model.rollout([[1, 2], [1, 2], [4, 4, 4]], 30, 9))
    np.testing.assert_array_equal(paths[[3, 1]], model.rollout([[4, 4, 4], [3]], 30, 9))
    assert (paths[0] != paths[2]).any()
    assert (paths[0] != model.rollout([[1, 2]], 30, 10)[0]).any()


@pytest.mark.parametrize("logits", [False, True])
def test_paths_of_one_prompt_are_the_same_alone_and_together(transition, weights, logits):
    """What equal prompts in a row share is computed once; a prompt between them takes that away."""
    base = BaseTransition.from_rows(np.arange(0, V, 2), transition[::2], top=4)
    if logits:
        base = as_logits(base, np.random.default_rng(5))
    for model in (ContextLogit(weights, base), ContextLogit(weights, base, True, "followed-by-1")):
        for temperature in (1.0, None):
            together = model.rollout([[1, 2, 1, 7]] * 150, 25, 4, temperature)
            apart = model.rollout([[1, 2, 1, 7], [3]] * 150, 25, 4, temperature)[::2]
            np.testing.assert_array_equal(together, apart)


def as_logits(base, rng):
    """A base whose stored rows are kept as logits of three factors."""
    hidden, keys = rng.normal(size=(V // 2, 3)).astype(np.float32), rng.normal(size=(V, 3)).astype(np.float32)
    logits = hidden.astype(float) @ keys.astype(float).T
    norm = np.log(np.exp(logits).sum(axis=1))
    order = np.argsort(-logits, axis=1, kind="stable")[:, :4]
    log_p = np.take_along_axis(logits - norm[:, None], order, axis=1)
    sums = np.stack([np.log(np.exp(a * (logits - norm[:, None])).sum(axis=1)) for a in exponents()], axis=1)
    factors = Factors(hidden, keys, np.zeros(V), 0.0, norm, sums)
    scale = tail_scale(order, log_p, base.log_unigram)
    return BaseTransition(base.row, order.astype(np.int32), log_p, scale, base.log_unigram, factors)


def test_a_base_weight_of_zero_draws_new_tokens_alike(transition):
    model = ContextLogit({"base": 0.0, "present": -1.0}, BaseTransition.from_transition(transition))
    found = np.bincount(model.rollout([[1, 2]] * 20_000, 1, 0)[:, 0], minlength=V)
    p = model.next_token([[1, 2]])[0]
    assert np.ptp(np.delete(p, [1, 2])) < 1e-12
    assert stats.chisquare(found, 20_000 * p).pvalue > 1e-4


def test_a_gate_opens_in_long_matches_alone():
    """A chance match of three tokens has the weight outside, a loop of five the sum of both."""
    model = ContextLogit({"followed-by-1": 1.0, "followed-by-1-in-match-4": 2.0}, BaseTransition.flat(V))
    chance, loop = model.next_token([[1, 2, 3, 4, 1, 2, 3], [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]])
    assert np.log(chance[4] / chance[5]) == pytest.approx(1.0)
    assert np.log(loop[3] / loop[5]) == pytest.approx(3.0)


def test_similarity_is_the_cosine_with_the_last_tokens(transition, weights, text):
    base = BaseTransition.from_rows(np.arange(0, V, 2), transition[::2], top=4)
    with pytest.raises(ValueError, match="similarity reads embeddings"):
        context_rows([text], ["similarity"], base)
    with pytest.raises(ValueError, match="similarity reads embeddings"):
        ContextLogit({"similarity": 1.0}, base)
    base = as_logits(base, np.random.default_rng(5))
    keys, given = base.factors.keys, {**weights, "similarity": 1.5}
    model, contexts = ContextLogit(given, base), [text[:n] for n in (1, 2, 7, 31, 32, 33, 60)]
    expected = [
        plain_logit.next_token(given, base.log_row(c[-1]), c, log_unigram=base.log_unigram, embeddings=keys)
        for c in contexts
    ]
    np.testing.assert_allclose(model.next_token(contexts), expected, rtol=1e-6)  # P0 has float32 factors
    prompt, steps = list(text[:20]), 40
    greedy = ContextLogit(given, base, closed=True).rollout([prompt], steps, 0, None)[0]
    for token in greedy:
        p = plain_logit.next_token(
            given, base.log_row(prompt[-1]), prompt, closed=True, log_unigram=base.log_unigram, embeddings=keys
        )
        assert token == p.argmax()
        prompt.append(int(token))
    drawn = np.bincount(model.rollout([text] * 20_000, 1, 3)[:, 0], minlength=V)[np.unique(text)]
    p = model.next_token([text])[0][np.unique(text)]
    rest = [20_000 - drawn.sum()], [1 - p.sum()]
    assert stats.chisquare(np.append(drawn, rest[0]), 20_000 * np.append(p, rest[1])).pvalue > 1e-4


def test_wrong_input_is_named(transition):
    base = BaseTransition.from_transition(transition)
    with pytest.raises(ValueError, match="no statistic is called 'colour'"):
        statistics_weights(["counts", "colour"])
    with pytest.raises(ValueError, match="followed-by"):
        ContextLogit({"followed-by": 1.0}, base)
    with pytest.raises(ValueError, match="in matches there are"):
        ContextLogit({"log-count-in-match-8": 1.0}, base)
    with pytest.raises(ValueError, match="needs closed=True"):
        ContextLogit({}, base, offset="followed-by-1")
    with pytest.raises(ValueError, match="text 1 has token 12"):
        context_rows([[1, 2], [1, 12]], ["present"], base)
    with pytest.raises(ValueError, match="text 0 has 1 tokens"):
        context_rows([[1]], ["present"], base)
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        ContextLogit({}, base).rollout([[]], 3, 0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        ContextLogit({}, base).rollout([[1]], 3, 0, 0.0)


def test_statistics_are_listed_with_their_weights():
    for name in STATISTICS:
        assert statistics_weights([name.replace("NAME", "followed-by-2").replace("-K", "-3")])
    assert statistics_weights(["counts", "recency", "followed-by-2"]) == (
        "present", "log-count", "recency", "followed-by-2",
    )  # fmt: skip
