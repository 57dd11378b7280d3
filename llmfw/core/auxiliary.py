"""Auxiliary models: what ``models.NAME`` means, what it depends on, and the policy behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from llmfw.core.errors import LlmfwError, UsageError
from llmfw.core.schema import AuxiliaryConfig, ModelConfig, Root

if TYPE_CHECKING:
    from llmfw.core.assemble import Assembled, Settled
    from llmfw.core.records import Policy

Kind = Literal["weights", "recipe", "script", "endpoint"]
_LOADED = ("dtype", "attention", "quantization", "trust_remote_code")
"""How weights are loaded, also a recipe's."""
_MEANT: Mapping[Kind, tuple[str, ...]] = {
    "weights": tuple(item.name for item in fields(ModelConfig)),
    "recipe": ("fit", *_LOADED),
    "script": ("script",),
    "endpoint": ("name", "endpoint", "api_key_env", "timeout", "retries"),
}
"""Keys that mean something to each kind; another that was set is an error."""
_NOT_OF_A_RECIPE = {"run": "its folder is in the cache", "tracking": "it is tracked as this run is"}


def kind_of(name: str, settings: AuxiliaryConfig) -> Kind:
    """Weights, a recipe, a script or an endpoint.

    Raises:
        UsageError: two of them at once, none, or a key that has no effect on this kind.
    """
    said: dict[Kind, object] = {
        "recipe": settings.fit,
        "script": settings.script,
        "endpoint": settings.endpoint,
    }
    given = [kind for kind, value in said.items() if value]
    if len(given) > 1:
        raise UsageError(
            "AUXILIARY", f"it is {given[0]} and {given[1]} at once", mend="keep one of them",
            key=f"models.{name}",
        )  # fmt: skip
    kind: Kind = given[0] if given else "weights"
    for item in fields(AuxiliaryConfig):
        default = getattr(AuxiliaryConfig(), item.name)
        if item.name not in _MEANT[kind] and getattr(settings, item.name) != default:
            raise UsageError(
                "AUXILIARY", f"{item.name} has no effect on {_an(kind)}", mend="remove it",
                key=f"models.{name}.{item.name}",
            )  # fmt: skip
    if kind == "weights" and not settings.name and not settings.config:
        raise UsageError(
            "AUXILIARY", "nothing says which model this is",
            mend="set name (or config, fit, script, endpoint)", key=f"models.{name}",
        )  # fmt: skip
    return kind


def facts_of(root: Root) -> dict[str, dict[str, Any]]:
    """For each auxiliary model its kind and ``identity``: what its answers depend on. For the plan.

    The identity is the hash of the weights' tensors (a repository's commit), of a recipe its plan's
    fingerprint, of a script its source's hash, of an endpoint its URL and model. Reads no weights that were
    hashed before.

    Raises:
        UsageError: a model that can't be had; the message names the key.
    """
    return {name: _facts(root, name) for name in root.models}


def _facts(root: Root, name: str) -> dict[str, Any]:
    from llmfw.core.models import resolve_model, source_facts

    settings = root.models[name]
    kind = kind_of(name, settings)
    if kind == "script":
        from llmfw.core.generation import script_hash

        return {"kind": kind, "identity": script_hash(str(settings.script), f"models.{name}.script")}
    if kind == "endpoint":
        endpoint = endpoint_of(name, settings)
        endpoint.check()
        return {"kind": kind, "identity": endpoint.identity}
    if kind == "recipe":
        from llmfw.core.recipes import recipe_plan

        return {"kind": kind, "identity": recipe_plan(root, name).fingerprint, "dtype": settings.dtype}
    with_key = f"models.{name}"
    try:
        found = source_facts(resolve_model(weights_of(settings), uri=root.tracking.uri))
    except LlmfwError as error:
        raise within(error, with_key) from error
    return {
        "kind": kind,
        "identity": found["weights"],
        "model_type": found["model_type"],
        "parameters": found["parameters"],
        "dtype": settings.dtype,
    }


def open_auxiliary(assembled: Assembled, name: str) -> Policy:
    """The auxiliary model ``models.NAME``, frozen, with its own tokenizer, or what answers in its place."""
    root = assembled.run.config
    if name not in root.models:
        named = ", ".join(root.models) or "none are named"
        raise UsageError(
            "MODEL-UNKNOWN", f"no auxiliary model {name!r} ({named})", mend=f"set models.{name}.name",
            key=f"models.{name}",
        )  # fmt: skip
    settings = root.models[name]
    kind = kind_of(name, settings)
    if kind == "script":
        from llmfw.core.generation import ScriptedPolicy, load_script

        answer = load_script(str(settings.script), f"models.{name}.script")
        return ScriptedPolicy(answer, assembled.tokenizer)
    if kind == "endpoint":
        from llmfw.core.generation import EndpointPolicy, Sampling

        generation = root.generation
        sampling = Sampling(
            max_new_tokens=generation.max_new_tokens,
            temperature=generation.temperature,
            top_p=generation.top_p,
            top_k=generation.top_k,
            stop=tuple(generation.stop),
            seed=root.seed,
        )
        return EndpointPolicy(endpoint_of(name, settings), sampling)
    model = weights_of(settings)
    if kind == "recipe":
        from llmfw.core.recipes import trained

        model = replace(model, name=str(trained(assembled, name)))
    return _open_weights(root, name, model)


def endpoint_of(name: str, settings: AuxiliaryConfig) -> Any:
    """The server that ``models.NAME`` names."""
    from llmfw.core.generation import Endpoint

    return Endpoint(
        url=str(settings.endpoint),
        model=settings.name,
        api_key_env=settings.api_key_env,
        timeout=settings.timeout,
        retries=settings.retries,
        key=f"models.{name}",
    )


def weights_of(settings: AuxiliaryConfig) -> ModelConfig:
    """The settings that ``model`` would have."""
    return ModelConfig(**{item.name: getattr(settings, item.name) for item in fields(ModelConfig)})


def settle_recipe(root: Root, name: str, **more: Any) -> Settled:
    """The configuration of the run that ``models.NAME.fit`` describes; its seed is this run's unless it says.

    Raises:
        UsageError: whatever is wrong with it, its key below ``models.NAME.fit``.
    """
    from llmfw.core.assemble import settle

    recipe = dict(root.models[name].fit)
    for key, why in _NOT_OF_A_RECIPE.items():
        if key in recipe:
            raise UsageError(
                "RECIPE", f"{key} can't be set: {why}", mend="remove it", key=f"models.{name}.fit.{key}"
            )
    recipe.setdefault("seed", root.seed)
    try:
        return settle(base={**recipe, "tracking": asdict(root.tracking), **more})
    except LlmfwError as error:
        raise within(error, f"models.{name}.fit") from error


def within(error: LlmfwError, key: str) -> LlmfwError:
    """The same error, its key below ``key``."""
    inner = error.key.removeprefix("model.") if error.key else None
    place = f"{key}.{inner}" if inner else key
    return type(error)(error.code, error.what, mend=error.mend, file=error.file, line=error.line, key=place)


def _open_weights(root: Root, name: str, model: ModelConfig) -> Policy:
    """A model as ``llmfw generate model=...`` would open it: its plugins, tokenizer and template its own."""
    from llmfw.core.assemble import assemble, settle
    from llmfw.core.models import resolve_model
    from llmfw.core.open import open_policy

    default = ModelConfig()
    said = {key: value for key, value in asdict(model).items() if value != getattr(default, key)}
    try:
        source = resolve_model(model, uri=root.tracking.uri)
        base = {
            **dict(source.settings or {}),
            "model": {**said, "name": model.name or name},
            "seed": root.seed,
            "generation": asdict(root.generation),
        }
        policy = open_policy(assemble(settle(plugins=source.plugins, base=base), "generate")).policy
    except LlmfwError as error:
        raise within(error, f"models.{name}") from error
    policy.module.to(_device(root))
    for companion in policy.companions.values():
        companion.to(_device(root))
    return policy


def _device(root: Root) -> Any:
    """Where training happens: this process's GPU, or the CPU."""
    import os

    import torch

    wanted = root.trainer.accelerator
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def _an(kind: Kind) -> str:
    return {"weights": "weights", "recipe": "a recipe", "script": "a script", "endpoint": "an endpoint"}[kind]
