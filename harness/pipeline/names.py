"""Backends, recipes and weights by the names people give them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UnknownName, UsageError
from harness.records.spec import BuildOptions, EncoderSpec, Recipe

if TYPE_CHECKING:
    from harness.contracts import Backend


def backend_of(name: str) -> Backend:
    """The backend of that name, with the loader that only this room may hand to it.

    Raises:
        UnknownName: there is none.
    """
    from harness.backends.registry import get_backend
    from harness.prepare.checkpoint import load_encoder

    return get_backend(name, load=load_encoder)


def recipe_of(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in set(Recipe):
        close = difflib.get_close_matches(name, list(Recipe), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UnknownName(f"recipe {name!r} is unknown; expected one of {', '.join(Recipe)}{hint}")
    return Recipe(name)


def taken_options(backend: Backend, options: BuildOptions) -> BuildOptions:
    """Those of the options that the backend has a use for."""
    from harness.contracts import Capability

    if Capability.BUILD_OPTIONS not in backend.capabilities:
        return BuildOptions()
    return options if Capability.TIMES_KERNELS in backend.capabilities else replace(options, timing_cache=None)


def require_takes_options(backends: Iterable[str], options: BuildOptions) -> None:
    """Refuse an option that none of the backends has a use for: its owner would believe that it counted.

    Raises:
        UsageError: with the backends that take it.
    """
    from harness.backends.registry import backend_names

    chosen = tuple(backends)
    for option in options.names:
        able = [name for name in backend_names() if option in taken_options(backend_of(name), options).names]
        if not set(able) & set(chosen):
            raise UsageError(f"{option} has no use for {', '.join(chosen)}; it is for backend {' or '.join(able)}; leave it out")


def weights_by_arch(values: Iterable[str], archs: tuple[str, ...]) -> dict[str, str]:
    """Configuration name to weights, from `ARCH=WEIGHTS` and `WEIGHTS`; the empty name is every other encoder's.

    Raises:
        UnknownName: there is no such configuration.
        UsageError: one is given two.
    """
    found: dict[str, str] = {}
    for value in values:
        arch, separator, weights = value.partition("=")
        if separator and arch not in archs and not Path(value).exists():
            close = difflib.get_close_matches(arch, archs, n=3)
            raise UnknownName(f"--weights {value}: there is no configuration {arch!r}; did you mean {', '.join(close) or 'another'}?")
        key, chosen = (arch, weights) if separator and arch in archs else ("", value)
        if found.setdefault(key, chosen) != chosen:
            raise UsageError(f"--weights names {found[key]!r} and {chosen!r} for {key or 'every encoder'}; expected one of them")
    return found


def encoders_named(names: Iterable[str], weights: Iterable[str], usual: Iterable[str]) -> tuple[EncoderSpec, ...]:
    """Encoders, each once, with the weights chosen for their configurations; others have the usual ones, or are seeded.

    Args:
        weights: as the option has them, `ARCH=WEIGHTS` or `WEIGHTS`.
        usual: likewise, those of gate.toml's defaults.

    Raises:
        UnknownName: a configuration that does not exist.
        UsageError: weights that no encoder takes or that are not there.
    """
    from harness.prepare.checkpoint import weights_origin
    from harness.prepare.configurations import known_archs, require_arch

    given, defaults = (weights_by_arch(values, known_archs()) for values in (weights, usual))
    found: list[EncoderSpec] = []
    for name in names:
        plain = EncoderSpec.parse(name)
        require_arch(plain.arch)
        chosen = given.get(plain.arch) or given.get("") or defaults.get(plain.arch) or plain.weights
        found.append(EncoderSpec.parse(name, weights=chosen))
        weights_origin(found[-1])  # a checkpoint file that is not there is told before anything is made
    require_used(given, found)
    return tuple(dict.fromkeys(found))


def require_used(weights: Mapping[str, str], encoders: Iterable[EncoderSpec]) -> None:
    """Refuse weights for an encoder that is not chosen: their owner would believe they were.

    Raises:
        UsageError: with the encoder to add.
    """
    archs = {encoder.arch for encoder in encoders}
    unused = sorted(set(weights) - {""} - archs)
    if unused:
        chosen = ", ".join(sorted(archs))
        raise UsageError(
            f"--weights names {unused[0]}={weights[unused[0]]}, and only {chosen} are chosen; add --encoders {unused[0]}/image"
        )
