"""Small open_clip configurations, so that a test takes a second and not a minute."""

import json

import pytest

from harness.prepare.vendor_log import import_quietly
from harness.records.spec import EncoderSpec

_VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}

_TIMM = {"timm_model_name": "test_vit", "timm_model_pretrained": False, "image_size": 160}

_CONFIGS = {
    "small-clip": {"embed_dim": 32, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "small-custom": {"embed_dim": 32, "custom_text": True, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "small-wider": {"embed_dim": 32, "vision_cfg": _VISION | {"width": 96}, "text_cfg": _TEXT},
    "small-resnet": {"embed_dim": 32, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": _TEXT},
    "small-timm": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": _TIMM | {"timm_pool": "", "timm_proj": "linear"},
        "text_cfg": _TEXT,
    },
    "small-siglip": {
        "embed_dim": 64,
        "custom_text": True,
        "vision_cfg": _TIMM | {"timm_pool": "map", "timm_proj": "none"},
        "text_cfg": _TEXT,
    },
}


@pytest.fixture(scope="session", autouse=True)
def small_configs(tmp_path_factory):
    """Registered for the whole session; open_clip has no way to take one back."""
    folder = tmp_path_factory.mktemp("configs")
    for name, config in _CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    import_quietly("open_clip", to="test with small encoders").add_model_config(folder)


@pytest.fixture(params=["image", "text"])
def small(request) -> EncoderSpec:
    """Both towers of a small CLIP."""
    return EncoderSpec.parse(f"small-clip/{request.param}")
