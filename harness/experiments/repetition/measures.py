"""Declarations of the measures that only the experiment `repetition` computes."""

from harness.core.registry import register

register.measure(
    "log_loss",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="log loss",
    about="minus the log-probability that a law gives to the tokens that came, nats per token",
)

register.measure(
    "new_share",
    unit="share",
    absolute=0.0001,
    label="probability of new tokens",
    about="probability that a law gives to tokens that are not in the context",
)

register.measure(
    "energy_score",
    unit="standard deviations",
    better="lower",
    headline_of="repetition",
    absolute=0.0001,
    label="energy score",
    about="energy score of seven figures of a continuation, each in its standard deviations over training texts",
    source="Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, 2007",
)

register.measure(
    "crps_seq_rep_1",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of repeated tokens",
    about="continuous ranked probability score of seq_rep_1",
)

register.measure(
    "crps_seq_rep_2",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of repeated 2-grams",
    about="continuous ranked probability score of seq_rep_2",
)

register.measure(
    "crps_seq_rep_3",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of repeated 3-grams",
    about="continuous ranked probability score of seq_rep_3",
)

register.measure(
    "crps_seq_rep_4",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of repeated 4-grams",
    about="continuous ranked probability score of seq_rep_4",
)

register.measure(
    "crps_rep_32",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of repeats within 32",
    about="continuous ranked probability score of rep_32",
)

register.measure(
    "crps_loop_share",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of share in a loop",
    about="continuous ranked probability score of loop_share",
)

register.measure(
    "crps_new_tokens",
    unit="share",
    better="lower",
    absolute=0.0001,
    label="CRPS of new tokens",
    about="continuous ranked probability score of new_tokens",
)

register.measure(
    "window_energy",
    unit="distance",
    better="lower",
    absolute=0.0001,
    label="energy of windows",
    about="energy score of the trailing windows, compared as weighted sets of tokens",
)

register.measure(
    "winner_energy",
    unit="distance",
    better="lower",
    absolute=0.0001,
    label="energy of winners",
    about="energy score of the winner sets, compared by their overlap",
)

register.measure(
    "above_half",
    unit="share",
    absolute=0.0001,
    label="mostly repeated",
    about="share of continuations of which more than half of the 4-grams are repeated",
)

register.measure(
    "new_tokens",
    unit="share",
    absolute=0.0001,
    label="new tokens",
    about="share of tokens of a continuation that are new in prompt and continuation",
)

register.measure(
    "training_loss",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="loss on training texts",
    about="log loss of a fit on its own training texts, nats per token",
)

register.measure(
    "training_energy",
    unit="standard deviations",
    better="lower",
    absolute=0.0001,
    label="energy score, training",
    about="energy score of walks from a training prompt, by a fit that saw its text: rungs are chosen by it",
)

register.measure(
    "chosen_rung",
    unit="place",
    label="chosen rung",
    about="place in the ladder, from 1, of the rung that a fold chose on its training prompts for all strategies",
)

register.measure(
    "choice_energy",
    unit="standard deviations",
    better="lower",
    absolute=0.0001,
    label="energy score of a choice",
    about="energy score on training prompts, summed over strategies: what a fold chooses its rung by",
)

register.measure(
    "choice_loss",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="log loss of a choice",
    about="log loss on training texts, summed over strategies: it decides between rungs of equal energy score",
)

register.measure(
    "choice_p",
    unit="probability",
    absolute=0.0001,
    label="p-value of a choice",
    about="corrected p-value of a rung's energy score on training prompts against the chosen one",
)

register.measure(
    "weight",
    unit="logits",
    absolute=0.0001,
    label="fitted weight",
    about="fitted weight of one statistic; of interpolating surrogates, a share",
)

register.measure(
    "weight_error",
    unit="logits",
    absolute=0.0001,
    label="error of a fitted weight",
    about="standard error of a fitted weight over groups of prompts",
)

register.measure(
    "base_loss",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="loss of base transitions",
    about="cross-entropy of base transitions alone to the model's distributions along training texts, nats per token",
)

register.measure(
    "base_chosen",
    unit="share",
    absolute=0.0001,
    label="base transitions chosen",
    about="1 where base transitions have the least loss on training texts of a fold, and are fitted with",
)

register.measure(
    "regime_share",
    unit="share",
    absolute=0.0001,
    label="share of the second regime",
    about="mean probability of the second state of a context logit with two regimes, along training texts",
)

register.measure(
    "regime_stay",
    unit="probability",
    absolute=0.0001,
    label="stays in its regime",
    about="probability that a context logit with two regimes stays in a state from one token to the next",
)

register.measure(
    "kept_mass",
    unit="probability",
    absolute=0.0001,
    label="kept mass",
    about="probability that the rows of base transitions keep, mean over tokens",
)

register.measure(
    "brier_reuse",
    unit="score",
    better="lower",
    absolute=0.0001,
    label="Brier score of re-use",
    about="squared error of the forecast that the next token is in the context, mean over the steps of a text",
    source="Brier, Verification of Forecasts Expressed in Terms of Probability, 1950",
)

register.measure(
    "log_reuse",
    unit="nats",
    better="lower",
    absolute=1e-05,
    label="log score of re-use",
    about="minus the log-probability that a forecast gave to whether the next token is in the context",
)

register.measure(
    "brier_which",
    unit="score",
    better="lower",
    absolute=0.0001,
    label="Brier score of the choice",
    about="squared error over the types of the context, of which of them comes, given that one does; 0 to 2",
)

register.measure(
    "brier_loop",
    unit="score",
    better="lower",
    absolute=0.0001,
    label="Brier score of loop starts",
    about="squared error of the forecast that a loop starts within 16 tokens, at every eighth step outside a loop",
)

register.measure(
    "brier_leave",
    unit="score",
    better="lower",
    absolute=0.0001,
    label="Brier score of loop ends",
    about="squared error of the forecast that a loop is left within 16 tokens, at every eighth step inside one",
)

register.measure(
    "calibration_forecast",
    unit="probability",
    absolute=0.0001,
    label="forecast of a bin",
    about="mean forecast of the steps in one bin of forecasts",
)

register.measure(
    "calibration_event",
    unit="share",
    absolute=0.0001,
    label="events of a bin",
    about="share of the steps in one bin of forecasts at which the event came",
)

register.measure(
    "margin_seq_rep_1",
    unit="share",
    label="margin of seq_rep_1",
    about="difference in the share of repeated tokens within which equivalence is tested, as the config names it",
)


register.measure(
    "margin_above_half",
    unit="share",
    label="margin of above_half",
    about="difference in the share of texts above .5 within which equivalence is tested, as the config names it",
)


register.measure(
    "margin_loop_share",
    unit="share",
    label="margin of loop_share",
    about="difference in the share of tokens in loops within which equivalence is tested, as the config names it",
)


register.measure(
    "margin_new_tokens",
    unit="share",
    label="margin of new_tokens",
    about="difference in the share of new tokens within which equivalence is tested, as the config names it",
)


register.measure(
    "margin_loop_onset",
    unit="tokens",
    label="margin of loop_onset",
    about="difference in the onset of loops within which equivalence is tested, as the config names it",
)


register.measure(
    "margin_loop_period",
    unit="tokens",
    label="margin of loop_period",
    about="difference in the period of loops within which equivalence is tested, as the config names it",
)
