"""The configuration of a run: YAML with `include`, overrides `a.b=c`, checked before anything is loaded or written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import Field, ValidationError, field_validator, model_validator

from harness.config.decoding import Generation
from harness.config.forms import Called, spelled
from harness.config.inline import FilePath, InlinePrompt
from harness.config.messages import describe, shortened
from harness.config.models import ModelNames, Models, entered, join_models
from harness.config.reading import DEEPEST, is_file, parse_yaml, plain, read_yaml
from harness.config.strict import Growing
from harness.config.texts import Dataset
from harness.core import registry
from harness.core.errors import UsageError, nearest
from harness.core.notes import Notes


class DatasetPrompts(Dataset):
    """Prompts out of a dataset."""

    called: ClassVar[Called] = Called("a dataset {dataset: ...}", "datasets {dataset: ...}")

    kind_column: str | None = Field(
        default=None, description="the column that holds the kind of a prompt, by which splits are stratified"
    )
    limit: int | None = Field(default=None, ge=2, description="rows that are read, at most")


class PromptFiles(Growing):
    """Prompts out of files, less some kinds."""

    called: ClassVar[Called] = Called("{files: ..., leave_out: [...]}", "{files: ..., leave_out: [...]}")

    files: FilePath | tuple[FilePath, ...] | tuple[InlinePrompt, ...] = Field(
        description="a file of {id, kind, text}, a list of such files, or the list itself"
    )
    leave_out: tuple[str, ...] = Field(
        default=(),
        description="kinds of prompts that are not read; `chat` also stands for all that are a turn of a chat",
    )


def _settings_of_experiments() -> Any:
    """The settings of every declared experiment, distinguished by their kind; those of a broken plugin are left out."""
    found = []
    for kind in registry.experiments():
        with suppress(UsageError):  # said where a config names it
            found.append(registry.experiment(kind).Settings)
    return Annotated[Union[tuple(found)], Field(discriminator="kind")]  # noqa: UP007 - known at run time only


MOST_INCLUDES = 100  # files; two that include each other's parts several times would grow without end
Experiment: Any = _settings_of_experiments()


class Config(Growing):
    """One run: which models, which prompts, which experiments."""

    harmless: ClassVar[frozenset[str]] = frozenset({"held_out", "folds", "judged", "limit"})
    rounding: ClassVar[frozenset[str]] = frozenset({"device", "device_map", "threads"})
    later: ClassVar[frozenset[str]] = frozenset({"threads", "folds", "judged", "dtype", "device_map"})
    apart: ClassVar[frozenset[str]] = frozenset({"name", "seed", "models", "prompts", "generation", "experiments"})

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=80,
        description="of the run; the run directory is named after it",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="all random numbers of the run derive from it")
    models: Models = Field(
        default=ModelNames(),
        description="aliases, hub ids `owner/name[@revision]`, or folders that `save_pretrained` wrote; or "
        "`{names: [...], allow_mismatch: true}` to go on with models whose files and config do not agree",
    )
    prompts: FilePath | tuple[FilePath, ...] | tuple[InlinePrompt, ...] | DatasetPrompts | PromptFiles | None = Field(
        default=None,
        description="a file of {id, kind, text}, a list of such files, the list itself, or a dataset; or "
        "`{files: ..., leave_out: [kinds]}`. Turns of a chat are left out, with a note, where a model has no chat "
        "template",
    )
    held_out: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="share of the prompts that surrogates are judged on; the others are fitted to. Split by group, "
        "stratified by kind",
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        le=20,
        description="in the place of `held_out`: prompts are split into this many folds, by group, stratified by kind, "
        "and each is judged once, by surrogates fitted to the other folds; for experiments that cross-fit",
    )
    judged: FilePath | tuple[FilePath, ...] | None = Field(
        default=None,
        description="in the place of `held_out`: a file of prompts, or several, that surrogates are judged on; all "
        "prompts of `prompts` are fitted to. For confirming on prompts that no choice has seen",
    )
    generation: Generation = Field(default=Generation(), description="how models continue prompts")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(default="auto", description="where models run")
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        default=None,
        description="in the place of `device`: spread the layers of a model that one GPU does not hold over all GPUs, "
        "as `device_map` of transformers does; on a machine without one, all is on the CPU",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="numbers that the weights of language models are kept and multiplied in, halves for models that "
        "memory does not hold otherwise; what is computed from attention and logits stays in float32 or better",
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="threads that a unit with a language model computes with, on any machine; results depend on it by "
        "rounding, which is why it is not the number of cores. Several units at once, `--workers N`, need less for the "
        "same speed; raise it for large models",
    )
    limit: int | None = Field(
        default=None,
        ge=1,
        description="a smoke run: at most this many prompts per split or fold and repetitions per condition; also "
        "`--limit N`",
    )
    experiments: tuple[Experiment, ...] = Field(min_length=1, description="what is computed; each kind at most once")

    @field_validator("experiments", mode="before")
    @classmethod
    def _kinds(cls, value: Any) -> Any:
        for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
            if not isinstance(item, dict):
                continue
            if "kind" not in item:
                raise ValueError(f"experiment {index} lacks its kind, one of {', '.join(registry.experiments())}")
            kind = item["kind"]
            if not isinstance(kind, str) or kind not in registry.experiments():
                hint = registry.unknown(str(kind)[:80], registry.experiments())
                raise ValueError(f"experiment {index} has kind {spelled(kind)}{hint}")
            try:
                registry.experiment(kind)
            except UsageError as error:
                raise ValueError(str(error)) from None
        return value

    def replaced(self) -> frozenset[str]:
        """`held_out` where there are `folds`, or prompts of their own that are judged."""
        return frozenset() if self.folds is None and self.judged is None else frozenset({"held_out"})

    @model_validator(mode="after")
    def _one_way_to_judge(self) -> Config:
        if self.judged is not None:
            for other in ("held_out", "folds"):
                if other in self.model_fields_set:
                    raise ValueError(
                        f"both judged and {other}: {getattr(self, other)} are given; with judged all other prompts are "
                        f"fitted to: remove {other}"
                    )
            if self.judged == ():
                raise ValueError("judged: the list is empty")
            if self.prompts is None:
                raise ValueError("judged: there are no `prompts` that surrogates could be fitted to")
        if self.folds is None:
            return self
        if "held_out" in self.model_fields_set:
            raise ValueError(
                f"both held_out: {self.held_out} and folds: {self.folds} are given; remove held_out to judge every "
                "prompt once, or folds to judge a share of them"
            )
        for experiment in self.experiments:
            if not registry.experiment(experiment.kind).cross_fits:
                default = type(self).model_fields["held_out"].default
                raise ValueError(
                    f"experiment {experiment.kind!r} does not cross-fit: write held_out, such as held_out: {default}, "
                    f"in the place of folds: {self.folds}"
                )
        return self

    @model_validator(mode="after")
    def _one_place(self) -> Config:
        if self.device_map is not None and self.device != "auto":
            raise ValueError(
                f"both device: {self.device} and device_map: {self.device_map} are given; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _complete(self) -> Config:
        kinds = [e.kind for e in self.experiments]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"an experiment kind is listed twice: {kinds}")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"a model is listed twice: {list(self.models)}")
        if self.prompts == () or (isinstance(self.prompts, PromptFiles) and self.prompts.files == ()):
            raise ValueError("prompts: the list is empty")
        for experiment in self.experiments:
            needs = registry.experiment(experiment.kind).needs(experiment)
            if needs.models and not self.models:
                raise ValueError(f"experiment {experiment.kind!r} needs `models`, such as [smollm2-135m]")
            if needs.prompts and self.prompts is None:
                more = f", or {needs.prompts_or}" if needs.prompts_or else ""
                raise ValueError(f"experiment {experiment.kind!r} needs `prompts`, a file of {{id, kind, text}}{more}")
        return self


class LoadedConfig:
    """A checked config, with what the run needs to find its files and to record what it was.

    Attributes:
        config: the resolved settings.
        given: the mapping as written, after includes and overrides.
        base: the folder that relative paths in the config count from.
        notes: what was decided about models, tokenizers and data while they were read.
        left_out: ids of texts that were left out: `empty`, a list, and `duplicates`, by the id that was kept.
    """

    def __init__(self, config: Config, given: dict[str, Any], base: Path) -> None:
        self.config = config
        self.given = given
        self.base = base
        self.notes = Notes()
        self.left_out: dict[str, Any] = {}


def shipped_configs() -> Path:
    """The folder of the configs that come with the project, in a checkout and in an installed wheel."""
    checkout = Path(__file__).resolve().parents[2] / "configs"
    return checkout if (checkout / "quickstart.yaml").is_file() else Path(str(resources.files("harness"))) / "configs"


def config_names() -> list[str]:
    root = shipped_configs()
    files = (p.relative_to(root).with_suffix("") for p in root.rglob("*.yaml"))
    return sorted(p.as_posix() for p in files if p.parts[0] not in {"parts", "prompts"})


def find_config(name: str | Path) -> Path:
    """The file of a config given as a path, or as the name of a shipped one such as `quickstart`.

    Raises:
        UsageError: where there is no such file; names the nearest shipped config.
    """
    path = Path(name)
    if is_file(path):
        return path
    if path.name in {"", ".."} or (len(path.name) < 256 and "\0" not in str(path) and path.is_dir()):
        raise UsageError(f"config {str(name)!r} is a folder; give a YAML file")
    if not path.is_absolute():
        shipped = shipped_configs() / (
            path if path.suffix in {".yaml", ".yml"} else path.with_name(path.name + ".yaml")
        )
        if is_file(shipped):
            return shipped
    asked = "/".join(path.with_suffix("").parts[-2:]).removeprefix("configs/")
    raise UsageError(f"config {spelled(str(name))}: no such file{nearest(asked, config_names())} (shipped configs)")


def _merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        joined = join_models(merged.get(key), value) if key == "models" else value
        merged[key] = _merge(merged[key], value) if both else joined
    return merged


def _read_with_includes(path: Path, above: tuple[Path, ...] = (), left: list[int] | None = None) -> dict[str, Any]:
    left = [MOST_INCLUDES] if left is None else left
    here = path.resolve()
    if here in above:
        raise UsageError(f"{path}: includes itself")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a config is a mapping of keys, this is {spelled(data)}")
    data = plain(data, str(path))
    includes = data.pop("include", [])
    merged: dict[str, Any] = {}
    for name in includes if isinstance(includes, list) else [includes]:
        part = path.parent / name if isinstance(name, str) else None
        if part is None or not is_file(part):
            raise UsageError(f"{path}: include {spelled(name)}: no such file beside it")
        left[0] -= 1
        if left[0] < 0:
            raise UsageError(f"{path}: more than {MOST_INCLUDES} files are included")
        merged = _merge(merged, _read_with_includes(part, (*above, here), left))
    return _merge(merged, data)


def apply_override(data: dict[str, Any], text: str) -> None:
    """Set one value in place: `generation.seeds=3`, `experiments.heads.layers=[0, 5]`, `experiments.0.layers=all`.

    A list is entered by index, or by the `kind` of its element. The value is read as YAML.

    Raises:
        UsageError: where the text is not `path=value` or the path leads nowhere.
    """
    path, equals, raw = text.partition("=")
    keys = path.strip().split(".")
    what = f"--set {spelled(text)}"
    if not equals or not all(keys) or len(keys) > DEEPEST:
        raise UsageError(f"{what}: write it as a.b=value")
    value = plain(parse_yaml(raw, f"{what}:"), what)
    node: Any = data
    keys = entered(data, keys)
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(node, list):
            kinds = [item.get("kind") if isinstance(item, dict) else None for item in node]
            if key in kinds:
                index = kinds.index(key)
            elif re.fullmatch(r"[0-9]{1,9}", key) and int(key) < len(node):
                index = int(key)
            else:
                known = [str(k) for k in kinds if k] + [str(i) for i in range(len(node))]
                raise UsageError(shortened(f"{what}: no element {spelled(key)}{nearest(key[:80], known)}"))
            if last:
                node[index] = value
            else:
                node = node[index]
        elif isinstance(node, dict):
            if last:
                node[key] = join_models(node.get(key), value) if keys == ["models"] else value
            else:
                node = node.setdefault(key, {})
        else:
            raise UsageError(f"{what}: {spelled('.'.join(keys[:depth]))} is a value, it has no {spelled(key)}")


def load_config(
    source: str | Path | dict[str, Any] | Config, overrides: Iterable[str] = (), limit: int | None = None
) -> LoadedConfig:
    """Read, merge, override and check a config.

    Args:
        source: a YAML file, the name of a shipped config, a mapping, or a `Config`.
        overrides: texts such as `generation.seeds=3`; they win over the file.
        limit: at most this many prompts per split and repetitions per cell.

    Raises:
        UsageError: one line that names the file, the key, the value and the nearest right name.
    """
    if isinstance(source, Config):
        data, base, where = source.model_dump(mode="json", exclude_unset=True), Path(), "config"
    elif isinstance(source, dict):
        data, base, where = plain(source), Path(), "config"
        if "include" in data:
            raise UsageError("config: `include` works in a file, not in a mapping")
    else:
        path = find_config(source)
        data, base, where = _read_with_includes(path), path.parent, str(source)
    for text in overrides:
        apply_override(data, text)
    if limit is not None:
        data["limit"] = limit
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise UsageError(describe(error, Config, data, where)) from None
    return LoadedConfig(config, data, base)
