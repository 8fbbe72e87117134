"""Pictures and captions that belong together, and the rows that either tower's engine makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import UnusableInputs
from harness.prepare.configurations import open_clip_library, read_config, require_arch, tokenizer_settings
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.observations import EncoderInputs
from harness.records.spec import EncoderSpec, Tower
from harness.records.task import Pairing

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_HALF_BYTES = 2
_DEFAULT_PIXELS = 224  # open_clip's size of a picture where a configuration gives none


class Dataset(Protocol):
    """Different pictures and different captions, and which belong together."""

    @property
    def pairing(self) -> Pairing:
        """Rows of both, and the name of the data."""
        ...

    @property
    def picture_ids(self) -> Sequence[str]:
        """What each picture is called, one a row."""
        ...

    @property
    def caption_ids(self) -> Sequence[str]:
        """What each caption is called, one a row."""
        ...

    @property
    def captions(self) -> Sequence[str]:
        """What the text tower reads, one a row."""
        ...

    def source(self) -> Mapping[str, str]:
        """What the data is made of, for a cache key. Decodes nothing."""
        ...

    def pictures(self) -> Iterator[Image]:
        """RGB pictures in the order of `picture_ids`, one in memory at a time.

        Raises:
            UnusableInputs: one of them cannot be read.
        """
        ...


def encoder_inputs(spec: EncoderSpec, data: Dataset) -> EncoderInputs:
    """All pictures, or all captions, as the encoder's engine takes them.

    Returns:
        `image`: float16 [pictures, 3, H, W] through open_clip's inference preprocessing for these weights; or
        `tokens`: int64 [captions, context], through open_clip's tokenizer of this configuration.
    Raises:
        UnknownName: open_clip has no such configuration.
        UnusableInputs: a picture cannot be read, the tokenizer cannot be had, or it makes the same tokens of two captions.
    """
    require_arch(spec.arch)
    if spec.tower is Tower.IMAGE:
        return _inputs("image", _images(spec, data), data.picture_ids)
    rows, notes = _tokens(spec.arch, data.captions)
    return _inputs("tokens", rows, data.caption_ids, notes)


def rows_in_words(spec: EncoderSpec, data: Dataset) -> str:
    """How many rows `encoder_inputs` will make, and the memory they will need. Neither opens a picture nor imports open_clip."""
    if spec.tower is Tower.TEXT:
        return f"{counted(data.pairing.captions, 'caption')} of {data.pairing.source}"
    size = read_config(spec.arch)["vision_cfg"].get("image_size", _DEFAULT_PIXELS)
    height, width = (size, size) if isinstance(size, int) else size
    megabytes = data.pairing.pictures * 3 * height * width * _HALF_BYTES / 1e6
    return f"{counted(data.pairing.pictures, 'picture')} of {data.pairing.source}, {megabytes:,.0f} MB"


def inputs_digest(name: str, rows: NDArray[np.generic]) -> str:
    """sha256, in hexadecimal, of name, dtype, shape and bytes."""
    digest = hashlib.sha256(f"{name} {rows.dtype.str} {list(rows.shape)} ".encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


def image_transform(spec: EncoderSpec) -> Callable[[Any], Tensor]:
    """open_clip's inference preprocessing of a picture for these weights, without building the model."""
    transform = import_quietly("open_clip.transform", to="preprocess pictures")
    with quiet_to(None):
        return transform.image_transform_v2(_preprocessing(spec), is_train=False)


def _preprocessing(spec: EncoderSpec) -> Any:
    open_clip = open_clip_library(to="preprocess pictures")
    from open_clip.model import CLIPVisionCfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    # Pretrained tags carry their own mean, deviation and interpolation; the picture's size is always the model's.
    own = open_clip.get_pretrained_cfg(spec.arch, spec.weights) if spec.seed is None else {}
    config: Any = open_clip.get_model_config(spec.arch)
    settings: dict[str, Any] = merge_preprocess_dict(PreprocessCfg(), own or {})
    settings["size"] = CLIPVisionCfg(**config["vision_cfg"]).image_size
    return PreprocessCfg(**settings)


def _images(spec: EncoderSpec, data: Dataset) -> NDArray[np.float16]:
    preprocess = image_transform(spec)
    rows: NDArray[np.float16] | None = None
    for index, picture in enumerate(data.pictures()):
        row = preprocess(picture).numpy()
        if rows is None:
            rows = _room_for(data.pairing, row.shape)
        rows[index] = row
    return rows if rows is not None else np.empty((0,), np.float16)


def _room_for(pairing: Pairing, row_shape: tuple[int, ...]) -> NDArray[np.float16]:
    shape = (pairing.pictures, *row_shape)
    try:
        return np.empty(shape, np.float16)
    except MemoryError as error:
        gigabytes = np.prod(shape, dtype=float) * _HALF_BYTES / 1e9
        raise UnusableInputs(
            f"{pairing.source}: {pairing.pictures:,} pictures of shape {list(row_shape)} need {gigabytes:,.1f} GB in half precision, "
            "and this process cannot have so much; judge fewer pictures, or on a machine with more memory"
        ) from error


def _tokens(arch: str, captions: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The tokens, and what is to be said of captions that did not fit."""
    open_clip, settings = open_clip_library(to="tokenize captions"), tokenizer_settings(arch)
    try:
        with quiet_to(None):
            tokenizer = open_clip.get_tokenizer(arch, **settings)
            rows = tokenizer(list(captions)).numpy().astype(np.int64)
            # Two positions more show what a shorter context leaves out: at least one of them holds a token that is no end.
            longer = tokenizer(["", *captions], context_length=rows.shape[1] + 2).numpy()
    except Exception as error:  # tokenizers from the hub fail in the words of four different network libraries
        raise UnusableInputs(
            f"the tokenizer of {arch} cannot be had: {type(error).__name__}: {str(error)[:200]}; expected one that ships with "
            "open_clip, or one from the hub in the local cache; install what it names, fill the cache on a connected machine, "
            "or choose another text tower"
        ) from error
    cut = _rows_cut(rows, longer)
    _require_different(rows, captions, cut)
    return rows, _words_on_cut(cut, captions, rows.shape[1])


def _rows_cut(rows: NDArray[np.int64], longer: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which captions have more tokens than the context: bool [captions]. `longer` has the empty caption's row before all others."""
    values, counts = np.unique(longer[0], return_counts=True)
    filler = values[counts.argmax()]
    return (longer[1:] != filler).sum(axis=1) > (rows != filler).sum(axis=1)


def _require_different(rows: NDArray[np.int64], captions: Sequence[str], cut: NDArray[np.bool_]) -> None:
    first_with: dict[bytes, int] = {}
    for index, row in enumerate(rows):
        other = first_with.setdefault(row.tobytes(), index)
        if other != index:
            where = f"once cut after {rows.shape[1]} tokens" if cut[[other, index]].any() else "in this tokenizer"
            raise UnusableInputs(
                f"captions {shown(captions[other])} and {shown(captions[index])} are the same {where}, so that no answer could tell them "
                "apart; expected captions that differ in what the text tower reads; shorten or merge them"
            )


def _words_on_cut(cut: NDArray[np.bool_], captions: Sequence[str], context: int) -> tuple[str, ...]:
    if not cut.any():
        return ()
    first = shown(captions[int(cut.argmax())])
    return (
        f"{cut.sum():,} of {counted(len(captions), 'caption')} did not fit the context of {context} tokens and were cut, first {first}",
    )


def counted(number: int, what: str) -> str:
    """Such as `1 picture` and `1,382 pictures`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def shown(text: str) -> str:
    """A text of the caller's data, short enough for a message, with what a terminal would obey made visible."""
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def _inputs(name: str, rows: NDArray[np.generic], ids: Sequence[str], notes: tuple[str, ...] = ()) -> EncoderInputs:
    return EncoderInputs(name=name, rows=rows, ids=tuple(ids), digest=inputs_digest(name, rows), notes=notes)
