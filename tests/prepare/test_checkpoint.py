from __future__ import annotations

import fnmatch
import hashlib
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import save_file

from harness.errors import UnknownName, UnusableCheckpoint
from harness.prepare.checkpoint import load_encoder, weights_origin
from harness.prepare.configurations import config_digest, known_archs, require_arch
from harness.prepare.vendor_log import import_quietly, quiet_to
from harness.records.spec import EncoderSpec


def small_model(arch="small-clip", seed=7):
    open_clip = import_quietly("open_clip", to="test")
    with quiet_to(None), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Frozen as the encoder is: torch takes another attention kernel, and rounds differently, where gradients are wanted.
        return open_clip.create_model(arch).eval().requires_grad_(False)


def example(encoder):
    shape = (2, *encoder.row_shape)
    return torch.rand(shape, generator=torch.manual_seed(0)) if len(shape) == 4 else torch.arange(1, 155).reshape(shape)


def refusal(weights, arch="small-clip"):
    with pytest.raises(UnusableCheckpoint) as caught:
        load_encoder(EncoderSpec(arch=arch, tower=EncoderSpec.parse("x/image").tower, weights=str(weights)))
    return str(caught.value)


class TestNames:
    def test_known_architectures_are_those_of_open_clip(self):
        assert set(known_archs()) == {*import_quietly("open_clip", to="test").list_models(), "emoji-clip"}

    def test_naming_and_describing_load_no_heavy_library(self):
        script = (
            "import sys; from harness.prepare import attention, checkpoint, configurations, encoder_onnx, export, inputs;"
            "from harness.prepare import onnx_edit, quantize, repair, tidy, vendor_log;"
            "from harness.records.spec import EncoderSpec;"
            "configurations.require_arch('ViT-B-32'); configurations.config_digest('ViT-B-32');"
            "checkpoint.weights_origin(EncoderSpec.parse('ViT-B-32/image'));"
            "inputs.split_source(inputs.Split.EVALUATION, 64);"
            "print(sorted({'torch', 'open_clip', 'modelopt', 'onnx', 'PIL', 'torchvision'} & sys.modules.keys()))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_an_unknown_architecture_is_refused_with_near_names(self):
        with pytest.raises(UnknownName, match="ViT-B-32"):
            require_arch("ViT-B32")

    def test_a_folder_of_configurations_adds_to_those_of_open_clip(self, tmp_path, monkeypatch):
        (tmp_path / "our-own.json").write_text("{}")
        monkeypatch.setenv("ENGINEGATE_MODEL_CONFIGS", str(tmp_path))
        require_arch("our-own")
        require_arch("ViT-B-32")
        before = config_digest("our-own")
        (tmp_path / "our-own.json").write_text('{"embed_dim": 1}')
        assert config_digest("our-own") != before

    def test_a_folder_of_configurations_that_is_not_there_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ENGINEGATE_MODEL_CONFIGS", str(tmp_path / "absent"))
        with pytest.raises(UnknownName, match="is no folder"):
            known_archs()


class TestOrigin:
    def test_a_seed_and_a_tag_are_their_own_origin(self):
        assert weights_origin(EncoderSpec.parse("ViT-B-32/image", weights="seeded:3")) == "seeded:3"
        assert weights_origin(EncoderSpec.parse("ViT-B-32/image", weights="laion2b_s34b_b79k")) == "laion2b_s34b_b79k"

    def test_a_file_is_known_by_its_digest_and_not_by_its_path(self, tmp_path):
        file = tmp_path / "weights.safetensors"
        file.write_bytes(b"abc")
        assert weights_origin(EncoderSpec.parse("ViT-B-32/image", weights=str(file))) == f"sha256:{hashlib.sha256(b'abc').hexdigest()}"

    @pytest.mark.parametrize("weights", ["missing.pt", "folder/tag", "missing.safetensors"])
    def test_what_looks_like_a_file_and_is_not_there_is_refused(self, weights):
        with pytest.raises(UnusableCheckpoint, match="does not exist"):
            weights_origin(EncoderSpec.parse("ViT-B-32/image", weights=weights))

    def test_a_folder_is_refused_as_a_folder(self, tmp_path):
        with pytest.raises(UnusableCheckpoint, match="is a folder"):
            weights_origin(EncoderSpec.parse("ViT-B-32/image", weights=str(tmp_path)))


class TestSeeded:
    def test_a_seed_gives_the_same_weights_again_and_another_seed_others(self, small):
        again, other = (EncoderSpec(arch=small.arch, tower=small.tower, weights=f"seeded:{seed}") for seed in (0, 1))
        rows = [encoder(example(encoder)) for encoder in map(load_encoder, (small, again, other))]
        assert torch.equal(rows[0], rows[1])
        assert not torch.allclose(rows[0], rows[2])

    def test_the_random_state_of_the_process_is_left_alone(self, small):
        before = torch.random.get_rng_state()
        load_encoder(small)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_the_encoder_is_open_clips_own_and_gives_what_open_clip_gives(self):
        model = small_model(seed=0)
        image, text = (load_encoder(EncoderSpec.parse(f"small-clip/{tower}")) for tower in ("image", "text"))
        with torch.inference_mode():
            assert torch.equal(image(example(image)), model.encode_image(example(image)))
            assert torch.equal(text(example(text)), model.encode_text(example(text)))

    @pytest.mark.parametrize("arch", ["small-clip", "small-custom", "small-resnet", "small-timm"])
    @pytest.mark.parametrize("tower", ["image", "text"])
    def test_every_kind_of_configuration_gives_fp32_rows_of_its_dimension(self, arch, tower):
        encoder = load_encoder(EncoderSpec.parse(f"{arch}/{tower}"))
        rows = encoder(example(encoder))
        assert (tuple(rows.shape), rows.dtype, encoder.training, rows.requires_grad) == ((2, 32), torch.float32, False, False)
        assert encoder.dim == 32

    def test_the_other_tower_is_dropped(self):
        def names(tower):
            return {name for name, _ in load_encoder(EncoderSpec.parse(f"small-clip/{tower}")).named_parameters()}

        assert not any("token_embedding" in name for name in names("image"))
        assert not any("conv1" in name for name in names("text"))

    @pytest.mark.parametrize("arch", ["small-clip", "small-custom", "small-resnet", "small-timm"])
    @pytest.mark.parametrize("tower", ["image", "text"])
    def test_no_module_has_a_name_that_the_preset_switches_off(self, arch, tower):
        mtq = import_quietly("modelopt.torch.quantization", to="test")
        off = [entry["quantizer_name"] for entry in mtq.FP8_DEFAULT_CFG["quant_cfg"] if entry.get("enable") is False]
        patterns = [pattern for pattern in off if pattern != "*"]
        paths = [f"{path}.weight_quantizer" for path, _ in load_encoder(EncoderSpec.parse(f"{arch}/{tower}")).named_modules()]
        assert "*visual*" in patterns
        assert [path for path in paths for pattern in patterns if fnmatch.fnmatch(path, pattern)] == []


class TestFiles:
    @pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
    def test_a_saved_model_gives_its_own_embeddings(self, tmp_path, suffix):
        model, file = small_model(), tmp_path / f"weights{suffix}"
        save_file(model.state_dict(), file) if suffix == ".safetensors" else torch.save(model.state_dict(), file)
        encoder = load_encoder(EncoderSpec.parse("small-clip/image", weights=str(file)))
        assert torch.equal(encoder(example(encoder)), model.encode_image(example(encoder)))

    def test_a_training_checkpoint_of_several_processes_is_understood(self, tmp_path):
        model, file = small_model(), tmp_path / "epoch_32.pt"
        torch.save({"epoch": 32, "state_dict": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}}, file)
        encoder = load_encoder(EncoderSpec.parse("small-clip/text", weights=str(file)))
        assert torch.equal(encoder(example(encoder)), model.encode_text(example(encoder)))

    def test_a_plain_clip_checkpoint_fits_a_configuration_with_a_text_module(self, tmp_path):
        model, file = small_model(), tmp_path / "weights.pt"
        torch.save(model.state_dict(), file)
        encoder = load_encoder(EncoderSpec.parse("small-custom/text", weights=str(file)))
        assert torch.equal(encoder(example(encoder)), model.encode_text(example(encoder)))

    def test_another_architecture_is_refused_with_two_of_the_weights_that_differ(self, tmp_path):
        file = tmp_path / "weights.safetensors"
        save_file(small_model("small-wider").state_dict(), file)
        message = refusal(file)
        assert "visual.class_embedding: found [96], expected [64]" in message
        assert "visual.positional_embedding: found [5, 96], expected [5, 64]" in message

    def test_a_checkpoint_of_one_tower_alone_is_refused(self, tmp_path):
        file = tmp_path / "weights.safetensors"
        save_file(small_model().visual.state_dict(), file)
        assert "found nothing, expected" in refusal(file)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    @pytest.mark.parametrize("kept", [0, 100, 100_000])
    def test_a_truncated_file_is_refused_with_its_size(self, tmp_path, suffix, kept):
        whole, file = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
        state = small_model().state_dict()
        save_file(state, whole) if suffix == ".safetensors" else torch.save(state, whole)
        file.write_bytes(whole.read_bytes()[:kept])
        assert f"of {kept} bytes is truncated" in refusal(file)

    def test_a_pickle_that_would_run_code_is_refused_and_does_not_run_it(self, tmp_path):
        class Payload:
            def __reduce__(self):
                return (open, (str(tmp_path / "was-run"), "w"))

        file = tmp_path / "weights.bin"
        torch.save({"state_dict": {"a": torch.zeros(1)}, "extra": Payload()}, file)
        assert "more than plain tensors" in refusal(file)
        assert not (tmp_path / "was-run").exists()

    def test_a_bare_pickle_is_refused(self, tmp_path):
        file = tmp_path / "weights.pt"
        file.write_bytes(pickle.dumps({"a": hashlib.sha256}))
        assert str(file) in refusal(file)

    def test_a_torchscript_archive_is_refused_by_name(self, tmp_path):
        file = tmp_path / "ViT-B-32.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
        assert "TorchScript archive" in refusal(file)

    def test_values_that_are_no_tensors_are_refused(self, tmp_path):
        file = tmp_path / "weights.pt"
        torch.save({"visual.proj": torch.zeros(1), "epoch": 3}, file)
        assert "'epoch'" in refusal(file)

    def test_a_file_of_another_format_is_refused_by_its_suffix(self, tmp_path):
        file = tmp_path / "weights.npz"
        file.write_bytes(b"")
        assert ".safetensors, .pt, .pth, .bin" in refusal(file)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_are_refused_by_name(self, tmp_path, bad):
        file, state = tmp_path / "weights.pt", small_model().state_dict()
        state["ln_final.bias"][3] = bad
        torch.save(state, file)
        assert "first ln_final.bias" in refusal(file)


class TestTags:
    def test_an_unknown_tag_is_refused_with_near_ones(self):
        assert "laion2b_s34b_b79k" in refusal("laion2b_s34b_b79", arch="ViT-B-32")

    def test_a_hub_out_of_reach_is_told_with_the_way_around_it(self, monkeypatch):
        def unreachable(*_, **__):
            raise OSError("Temporary failure in name resolution")

        monkeypatch.setattr("open_clip.factory.download_pretrained", unreachable)
        message = refusal("laion2b_s34b_b79k", arch="ViT-B-32")
        assert "hub could not be reached" in message
        assert "name resolution" in message
        assert "give its path" in message
