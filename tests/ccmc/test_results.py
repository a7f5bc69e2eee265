"""What the results of fits and predictions print, and the tables they give."""

import numpy as np
import pytest

from ccmc import CCMC, Contexts, Observations, fit_mle, winners


@pytest.fixture
def observations():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 3, (400, 4)).astype(float)
    query = rng.integers(0, 3, 400)
    counts[np.arange(400), query] += 1
    p = CCMC(rng.normal(size=(4, 4))).next_token(counts, query)
    return Observations(Contexts(counts, query), (p.cumsum(axis=1) > rng.random((400, 1)) * (1 - 1e-12)).argmax(axis=1))


def test_a_fit_says_how_it_went(observations):
    fit = fit_mle(observations)
    assert repr(fit) == (
        f"Fit(400 observations over 4 tokens, ridge=0, log_likelihood={fit.log_likelihood:.6g}, "
        f"converged after {fit.iterations} passes, not identified)"
    )
    # Query 3 never occurs.
    assert not fit.identifiability.identified
    assert "not converged after" in repr(fit_mle(observations, tol=1e-300))
    assert "ridge=0.5" in repr(fit_mle(observations, ridge=0.5))


def test_the_table_of_a_fit_holds_each_pair_that_occurs(observations):
    fit = fit_mle(observations)
    frame = fit.to_frame()
    assert list(frame.columns) == ["query", "token", "wins", "logit", "probability"]
    assert set(frame["query"]) == {0, 1, 2}
    assert frame["wins"].sum() == 400
    for row in frame.itertuples():
        assert row.logit == fit.chain.logits[row.query, row.token]
        assert row.probability == pytest.approx(fit.chain.transition[row.query, row.token])
    won = np.zeros((4, 4))
    np.add.at(won, (observations.contexts.query, observations.targets), 1)
    np.testing.assert_array_equal(frame["wins"], won[frame["query"], frame["token"]])


def test_winners_say_who_wins_and_how_likely():
    # Two tokens that each stay where they are: whoever leads early wins.
    chain = CCMC.from_transition([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    found = winners(chain, [3, 2, 0], paths=32)
    assert len(found.alternatives) == 1
    odds = f"{found.odds:.3g}"
    assert repr(found) == f"Winners(tokens={found.tokens}, odds={odds}, settled=True, 1 alternative)"
    frame = found.to_frame()
    assert list(frame.columns) == ["set", "odds", "token", "frequency", "winner", "exponent"]
    # Token 2 is not in the prompt, so it has no row.
    assert frame["token"].tolist() == [0, 1, 0, 1]
    assert frame["set"].tolist() == [0, 0, 1, 1]
    first, second = frame[frame["set"] == 0], frame[frame["set"] == 1]
    assert first.loc[first["winner"], "token"].tolist() == found.tokens
    assert second.loc[second["winner"], "token"].tolist() == found.alternatives[0].tokens
    assert frame.groupby("set")["odds"].first().sum() == pytest.approx(1)
    np.testing.assert_array_equal(first["exponent"], found.exponents[:2])
    assert second["exponent"].isna().all()
    np.testing.assert_allclose(frame.groupby("set")["frequency"].sum(), 1)


def test_contexts_and_observations_say_what_they_hold(observations):
    assert repr(observations.contexts) == "Contexts(400 contexts over 4 tokens)"
    assert repr(observations) == "Observations(400 over 4 tokens, targets: tokens)"
    path = Observations.from_sequences([[0, 1, 0, 1, 1]], 2, unseen="drop")
    assert repr(path.contexts) == "PrefixContexts(3 contexts over 2 tokens)"
    wins = Observations.from_wins(Contexts([[1.0, 1.0]], [0]), [[0.5, 0.5], [0, 0]])
    assert repr(wins) == "Observations(1 over 2 tokens, targets: sums of targets)"
    soft = Observations(Contexts([[1.0, 1.0]], [0]), [[0.5, 0.5]])
    assert repr(soft) == "Observations(1 over 2 tokens, targets: distributions)"
