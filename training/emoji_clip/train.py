"""Trains `emoji-clip`, a small CLIP of emoji and their names: one studio's drawings to learn from, another's to judge by.

    python training/emoji_clip/train.py --out DIR

Two CPU cores suffice, and `--device cuda` has a GPU do the products; every 25 steps a JSON line says how far it is. It leaves
`emoji-clip.safetensors`, the weights in FP16, and `training.json`: seed, versions, time, and the zero-shot scores of the weights as
stored. The same seed and versions on the same kind of processor give the same weights; elsewhere the last digits of sums differ, and
with them the scores, by a point or so.

Every number below was chosen by runs of 384,000 drawings on a GPU, which ended at 30 to 32 % top-1 on the other studio's drawings
whatever was varied. The run on two CPU cores that made the weights that ship, with --bfloat16, ended at 34.8 % after 37 minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import platform
import time
import zipfile
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

DATA = Path(__file__).resolve().parents[2] / "harness" / "data"
MODEL = "emoji-clip"
REPORT_EVERY = 25
SCORED_AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast: AdamW, a linear warm-up, then a cosine to zero. Decay spares vectors, as open_clip's training does."""

    steps: int = 750
    batch: int = 512
    peak_rate: float = 1.5e-3
    warm_up: int = 100
    weight_decay: float = 0.1
    gradient_norm: float = 1.0

    def rate(self, step: int) -> float:
        """The learning rate of one step, counted from 0."""
        if step < self.warm_up:
            return self.peak_rate * (step + 1) / self.warm_up
        return self.peak_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Distortion:
    """How a drawing may be changed and still show the same thing: two studios differ in place, size, colour, shading and outline.

    Attributes:
        degrees, shear_degrees: largest turn and slant, either way.
        log_scale, log_aspect, log_gain, log_gamma: largest logarithm of a factor, either way.
        shift: largest move, as a share of half the picture.
        hue: largest turn of the colour circle, as a share of half of it, of `hue_share` of the drawings.
        grey, blurred, flattened: share of drawings that lose their colour, their fine lines, or their shading.
    """

    degrees: float = 15.0
    shear_degrees: float = 8.0
    log_scale: float = 0.2
    log_aspect: float = 0.1
    shift: float = 0.1
    hue: float = 0.3
    hue_share: float = 0.8
    log_gain: float = 0.4
    log_gamma: float = 0.4
    grey: float = 0.3
    blurred: float = 0.3
    flattened: float = 0.3


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True, warn_only=options.device != "cpu")  # a GPU has none of some gradients
    schedule = Schedule(steps=options.steps, batch=options.batch)
    captions = json.loads((DATA / "emoji" / "captions.json").read_text(encoding="utf-8"))
    model, tokenizer = make_model()
    tokens = tokenizer([pair["caption"] for pair in captions])
    began = time.monotonic()
    precision = torch.bfloat16 if options.bfloat16 else torch.float32
    model.to(options.device)
    train(model, drawings("noto.zip", captions), tokens, schedule, Distortion(), precision, began)
    model.to("cpu")
    seconds = time.monotonic() - began

    stored = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    model.load_state_dict(stored)  # rounded, so that the scores are those of the file
    scored, names = captions[: options.scored], tokens[: options.scored]
    scores = {studio: zero_shot(model, drawings(f"{studio}.zip", scored), names) for studio in ("noto", "twemoji")}
    _leave(options, stored, {"seconds": round(seconds), "scores": scores, **_provenance(options, schedule)})
    print(json.dumps({"seconds": round(seconds), "scores": scores}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Schedule().steps)
    parser.add_argument("--batch", type=int, default=Schedule().batch, help="drawings a step")
    parser.add_argument("--scored", type=int, help="score the first so many names only, to try the script")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of the towers' products; drawings are made, and chance is drawn, on the CPU")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16: half the time where the processor has AMX")
    return parser.parse_args()


def make_model() -> tuple[Any, Any]:
    """The untrained model and its tokenizer, from the configuration that ships."""
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    config = json.loads((DATA / "models" / f"{MODEL}.json").read_text(encoding="utf-8"))
    text = config["text_cfg"]
    merges = text.pop("tokenizer_kwargs")["bpe_path"]
    tokenizer = SimpleTokenizer(bpe_path=str(DATA / "models" / merges), context_length=text["context_length"])
    if tokenizer.vocab_size != text["vocab_size"]:
        raise SystemExit(f"{merges} makes {tokenizer.vocab_size} tokens, the configuration says {text['vocab_size']}; correct one of them")
    return open_clip.CLIP(**config), tokenizer


def drawings(archive: str, captions: list[dict[str, Any]]) -> Tensor:
    """float32 [n, 3, 64, 64] of 0 to 1, in the captions' order."""
    from PIL import Image

    with zipfile.ZipFile(DATA / "emoji" / archive) as file:
        pictures = [np.asarray(Image.open(io.BytesIO(file.read(f"{pair['id']}.png"))).convert("RGB")) for pair in captions]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def train(
    model: Any, pictures: Tensor, tokens: Tensor, schedule: Schedule, distortion: Distortion, precision: torch.dtype, began: float
) -> None:
    """Train in place with open_clip's contrastive loss. Each pass over the drawings takes them in another order.

    `precision` is that of the towers' products; weights, loss and optimizer are float32. The model's device makes them; what is
    drawn by chance is drawn on the CPU, so that one seed shows every device the same drawings.
    """
    from open_clip.loss import ClipLoss

    loss_of, optimizer, order = ClipLoss(), _optimizer(model, schedule), torch.empty(0, dtype=torch.int64)
    size, device = model.visual.image_size[0], next(model.parameters()).device
    model.train()
    for step in range(schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        if len(order) < schedule.batch:
            order = torch.randperm(len(pictures))
        rows, order = order[: schedule.batch], order[schedule.batch :]
        seen = normalised(distorted(pictures[rows], size, distortion))
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            features = model(seen.to(device), tokens[rows].to(device))[:3]
        loss = loss_of(*(part.float() for part in features))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.gradient_norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))  # CLIP's own limit
        if (step + 1) % REPORT_EVERY == 0:
            print(json.dumps({"step": step + 1, "loss": round(loss.item(), 3), "seconds": round(time.monotonic() - began)}), flush=True)


def _optimizer(model: Any, schedule: Schedule) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.peak_rate, betas=(0.9, 0.98), eps=1e-6)  # open_clip's for ViT


def normalised(pictures: Tensor) -> Tensor:
    """As open_clip's preprocessing leaves pictures, by OpenAI's mean and deviation."""
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pictures - mean) / deviation


@torch.no_grad()
def zero_shot(model: Any, pictures: Tensor, tokens: Tensor) -> dict[str, float]:
    """Share of pictures whose own name is the nearest, or among the five nearest, of all names; 0 to 1."""
    model.eval()
    size = model.visual.image_size
    names = model.encode_text(tokens, normalize=True)
    larger = functional.interpolate(pictures, size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    seen = torch.cat([model.encode_image(normalised(part), normalize=True) for part in larger.split(SCORED_AT_ONCE)])
    similarity = seen @ names.T
    nearer = (similarity > similarity.diagonal()[:, None]).sum(1)
    return {f"top{k}": round((nearer < k).float().mean().item(), 4) for k in (1, 5)}


# -- distortions -------------------------------------------------------------------------------------------------------------------


def distorted(pictures: Tensor, size: int, by: Distortion) -> Tensor:
    """float32 [n, 3, size, size] of 0 to 1: each drawing moved, recoloured and redrawn by chance."""
    moved = _moved(pictures, size, by)
    return _redrawn(_recoloured(moved, by), by).clamp(0, 1)


def _moved(pictures: Tensor, size: int, by: Distortion) -> Tensor:
    n = len(pictures)
    turn, slant = (torch.deg2rad(_either_way(n, degrees)) for degrees in (by.degrees, by.shear_degrees))
    scale, aspect = (torch.exp(_either_way(n, spread)) for spread in (by.log_scale, by.log_aspect))
    across, down = _either_way(n, by.shift), _either_way(n, by.shift)
    first = torch.stack([scale * aspect * torch.cos(turn), -scale * torch.sin(turn + slant), across], dim=1)
    second = torch.stack([scale * torch.sin(turn), scale / aspect * torch.cos(turn + slant), down], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), [n, 3, size, size], align_corners=False)
    return 1 - functional.grid_sample(1 - pictures, grid, align_corners=False)  # what comes in from outside is white


def _recoloured(pictures: Tensor, by: Distortion) -> Tensor:
    n = len(pictures)
    angle = _either_way(n, by.hue * math.pi) * _chosen(n, by.hue_share).flatten()
    turned = torch.einsum("nij,njhw->nihw", _hue_turn(angle), pictures)
    gained = 1 - (1 - turned) * torch.exp(_either_way(n * 3, by.log_gain)).view(n, 3, 1, 1)  # white paper stays white
    curved = gained.clamp(1e-3, 1) ** torch.exp(_either_way(n, by.log_gamma)).view(n, 1, 1, 1)
    return _instead(curved, curved.mean(1, keepdim=True).expand_as(curved), _chosen(n, by.grey))


def _hue_turn(angle: Tensor) -> Tensor:
    """[n, 3, 3]: a rotation about the grey axis, which leaves grey, black and white as they are."""
    cosine, sine = torch.cos(angle), torch.sin(angle) / math.sqrt(3)
    rest = (1 - cosine) / 3
    same, after, before = rest + cosine, rest - sine, rest + sine
    rows = [[same, after, before], [before, same, after], [after, before, same]]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _redrawn(pictures: Tensor, by: Distortion) -> Tensor:
    n = len(pictures)
    softer = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    soft = _instead(pictures, softer, _chosen(n, by.blurred))
    steps = torch.randint(2, 6, (n, 1, 1, 1)).float()
    return _instead(soft, (soft * steps).round() / steps, _chosen(n, by.flattened))


def _either_way(n: int, most: float) -> Tensor:
    return torch.empty(n).uniform_(-most, most)


def _chosen(n: int, share: float) -> Tensor:
    """float32 [n, 1, 1, 1] of 0 and 1."""
    return (torch.rand(n) < share).float().view(n, 1, 1, 1)


def _instead(pictures: Tensor, others: Tensor, chosen: Tensor) -> Tensor:
    return pictures * (1 - chosen) + others * chosen


# -- what is left ------------------------------------------------------------------------------------------------------------------


def _leave(options: argparse.Namespace, stored: dict[str, Tensor], facts: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    options.out.mkdir(parents=True, exist_ok=True)
    save_file(stored, options.out / f"{MODEL}.safetensors")
    (options.out / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _provenance(options: argparse.Namespace, schedule: Schedule) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in ("torch", "open_clip_torch", "numpy")}
    return {
        "seed": options.seed,
        "precision": "bfloat16" if options.bfloat16 else "float32",
        "schedule": asdict(schedule),
        "distortion": asdict(Distortion()),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {options.threads} threads, "
        f"products on {torch.cuda.get_device_name() if options.device.startswith('cuda') else 'the CPU'}",
    }


if __name__ == "__main__":
    main()
