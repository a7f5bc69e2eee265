"""A small random model of every architecture whose heads the harness reads, every parameter perturbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from small_models import VOCAB_SIZE, perturb
from transformers import AutoModelForCausalLM

SHARED: dict[str, Any] = {"vocab_size": VOCAB_SIZE, "bos_token_id": None, "eos_token_id": 1}
SIZES: dict[str, Any] = {
    **SHARED, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 6,
    "max_position_embeddings": 128, "pad_token_id": 1,
}  # fmt: skip
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2}
LOCAL_AND_GLOBAL = ["sliding_attention", "full_attention", "sliding_attention"]


def _config(kind: str, **settings: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, kind)(**settings)


FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": _config("GPT2Config", **SHARED, n_positions=128, n_embd=48, n_layer=3, n_head=6),
    "gpt_neox": _config("GPTNeoXConfig", **SIZES, rotary_pct=0.5),
    "opt": _config(
        "OPTConfig",
        **SHARED,
        pad_token_id=1,
        hidden_size=48,
        ffn_dim=64,
        num_hidden_layers=3,
        num_attention_heads=6,
        max_position_embeddings=128,
        word_embed_proj_dim=48,
    ),
    "llama": _config("LlamaConfig", **GROUPED),
    "llama-multi-query": _config("LlamaConfig", **{**SIZES, "num_key_value_heads": 1}),
    "mistral": _config("MistralConfig", **GROUPED, sliding_window=16, head_dim=8),
    "qwen2": _config("Qwen2Config", **GROUPED),
    "qwen3": _config("Qwen3Config", **GROUPED, head_dim=8),
    "phi": _config("PhiConfig", **SIZES, partial_rotary_factor=0.5),
    "phi3": _config("Phi3Config", **GROUPED),
    "stablelm": _config("StableLmConfig", **GROUPED, partial_rotary_factor=0.5, qk_layernorm=True),
    "olmo2": _config("Olmo2Config", **GROUPED),
    "gemma2": _config(
        "Gemma2Config",
        **GROUPED,
        head_dim=8,
        sliding_window=16,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=2.0,
        layer_types=LOCAL_AND_GLOBAL,
    ),
    "gemma3": _config(
        "Gemma3TextConfig",
        **GROUPED,
        head_dim=8,
        sliding_window=16,
        query_pre_attn_scalar=8,
        layer_types=LOCAL_AND_GLOBAL,
    ),
    "cohere2": _config(  # its last layer neither turns nor hides anything
        "Cohere2Config", **GROUPED, sliding_window=16, layer_types=["sliding_attention"] * 2 + ["full_attention"]
    ),
    "gpt2-scaled": _config(
        "GPT2Config", **SHARED, n_positions=128, n_embd=48, n_layer=3, n_head=6, scale_attn_by_inverse_layer_idx=True
    ),
    "deepseek_v2": _config(  # keys behind a bottleneck; rotation in complex numbers
        "DeepseekV2Config",
        **{**SIZES, "num_key_value_heads": 6},
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
        first_k_dense_replace=3,
    ),
    "gpt_neo": _config(
        "GPTNeoConfig",
        **SHARED,
        hidden_size=48,
        num_layers=4,
        num_heads=6,
        attention_types=[[["local", "global"], 2]],
        window_size=16,
        max_position_embeddings=128,
    ),
    "gptj": _config("GPTJConfig", **SHARED, n_positions=128, n_embd=48, n_layer=3, n_head=6, rotary_dim=4),
    "falcon": _config("FalconConfig", **SHARED, hidden_size=48, num_hidden_layers=3, num_attention_heads=6),
    "falcon-grouped": _config(
        "FalconConfig",
        **SHARED,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_kv_heads=2,
        new_decoder_architecture=True,
    ),
}
REFUSED: dict[str, Callable[[], Any]] = {
    "bart": _config(  # its decoder alone: modules without a number attend too
        "BartConfig",
        **SHARED,
        d_model=48,
        decoder_layers=2,
        decoder_attention_heads=6,
        decoder_ffn_dim=64,
        is_decoder=True,
        is_encoder_decoder=False,
    ),
    "gemma3n_text": _config(  # its last layers take the keys of earlier ones
        "Gemma3nTextConfig",
        **{**GROUPED, "num_hidden_layers": 4},
        head_dim=8,
        vocab_size_per_layer_input=VOCAB_SIZE,
        hidden_size_per_layer_input=8,
        laurel_rank=4,
        num_kv_shared_layers=2,
        altup_num_inputs=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 4,
    ),
    "ctrl": _config("CTRLConfig", **SHARED, n_positions=128, n_embd=48, dff=64, n_layer=2, n_head=6),
    "bloom": _config("BloomConfig", **SHARED, hidden_size=48, n_layer=2, n_head=6),
    "mpt": _config("MptConfig", **SHARED, d_model=48, n_layers=2, n_heads=6, max_seq_len=128),
    "mamba": _config("MambaConfig", **SHARED, hidden_size=48, num_hidden_layers=2, state_size=4),
    "falcon": _config("FalconConfig", **SHARED, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, alibi=True),
    "gpt_oss": _config(  # a learned score beside the keys
        "GptOssConfig", **{**GROUPED, "intermediate_size": 48}, head_dim=8, num_local_experts=2
    ),
    "recurrent_gemma": _config(
        "RecurrentGemmaConfig",
        **SHARED,
        pad_token_id=1,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=6,
        lru_width=48,
        attention_window_size=16,
    ),
}


def build(make: Callable[[], Any], scale: float = 0.3) -> Any:
    """A model of a config of its own (two models of one config object share it), perturbed and ready."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(make())
    perturb(model, scale)
    return model.eval().requires_grad_(False)
