"""Plans on a network that stays as it is, and a run that ends with the guard's verdict."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import udh_jax
from udh_jax.errors import InputError
from udh_jax.methods import automatic, baseline, defaults, psch, udh_ecc
from udh_jax.methods.registry import make_plan
from udh_jax.methods.run import train
from udh_jax.retrieval.agreement import DEFINITION


def folder_config(method, **trained):
  config = method.default_config("folder")
  automatic.on_any_pictures(config)
  config.rounds = 1
  for section, value in trained.items():
    config[section].trained = value
  return automatic.resolve(config, automatic.Collection(3000, 224))[0]


def names(config):
  return [stage.name for stage in make_plan(config).stages]


def test_codes_come_from_features_where_the_network_stays():
  found = names(folder_config(psch))
  assert found[-2:] == ["psch_32bits", "guard_32bits"]
  assert found[4:8] == ["views", "partitions", "discriminant", "adapt"]
  found = names(folder_config(udh_ecc))
  assert "tuned_baselines_32bits" not in found and "encode_32bits" not in found
  assert make_plan(folder_config(udh_ecc)).network == "guard_32bits"


@pytest.mark.parametrize("method", [psch, udh_ecc])
def test_all_that_is_learned_is_on_the_adapted_network_and_held_to_the_untouched(method):
  stages = {stage.name: stage for stage in make_plan(folder_config(method)).stages}
  found = list(stages)
  assert found.index("discriminant") < found.index("adapt") < found.index("features_2")
  roles = {"teacher": "teacher", "clustering": "cluster_1", "views": "views"}
  assert stages["adapt"].inputs == roles
  for name, before in {
    "features_2": "features_1",
    "cluster_2": "cluster_1",
    **{f"adapted_{name}": name for name in ("views", "partitions", "discriminant")},
  }.items():
    assert stages[name].inputs["adapted"] == "adapt" and stages[name].inputs["before"] == before
  assert stages["adapted_partitions"].inputs["views"] == "views"  # the untouched network's
  first = stages["psch_32bits" if method is psch else "finetune_1"].inputs
  assert first["teacher"] == "adapt" and first["clustering"] == "cluster_2"
  assert first["views"] == "adapted_views"
  of_guard = stages["guard_32bits"].inputs
  assert of_guard["untouched"] == stages["baselines_32bits"].inputs["features"] == "features_1"
  assert of_guard["partitions"] == "partitions" and of_guard["features"] == "features_2"
  assert make_plan(folder_config(method)).clusters == ("cluster_2",)  # that codes are learned from


@pytest.mark.parametrize("method", [psch, udh_ecc])
def test_a_network_that_is_not_adapted_has_one_round(method):
  config = folder_config(method)
  config.adapt.steps = 0
  found = make_plan(config)
  stages = {stage.name: stage for stage in found.stages}
  assert not {"adapt", "features_2", "adapted_views", "adapted_baselines_32bits"} & stages.keys()
  assert stages["partitions"].inputs == {"views": "views", "features": "features_1"}
  assert "adapted" not in stages["guard_32bits"].inputs
  assert found.clusters == ("cluster_1",)


def test_what_is_adapted_is_a_mobile_network_whose_codes_are_learned_on_features():
  config = psch.default_config("folder")
  automatic.on_any_pictures(config)
  for backbone, trained, pictures, adapts in [
    ("mobilenetv2_100", "auto", 2000, True),
    ("mobilenetv2_100", "auto", 1999, False),
    ("tf_efficientnet_lite0", "head", 2000, True),
    ("efficientnet_b0", "head", 2000, False),
    ("mobilenetv2_100", "last", 2000, False),
    ("vit_small_patch14_dinov2", "auto", 2000, False),
  ]:
    config.teacher.backbone, config.psch.trained = backbone, trained
    chosen = automatic.resolve(config, automatic.Collection(pictures, 224))[0]
    assert (chosen.adapt.steps > 0) == adapts
  config.teacher.update(backbone="mobilenetv2_100", weights="")
  config.psch.trained = "auto"
  assert automatic.resolve(config, automatic.Collection(2000, 224))[0].adapt.steps == 0


def test_the_graph_of_neighbours_is_made_again_where_the_network_was_adapted():
  config = folder_config(psch)
  config.cluster.space = "neighbours"
  stages = {stage.name: stage for stage in make_plan(config).stages}
  assert stages["embedding_2"].inputs["before"] == "embedding_1"
  assert stages["cluster_2"].inputs["features"] == "embedding_2"


def test_a_run_of_a_version_without_adaptation_has_the_plan_that_it_had():
  config = folder_config(psch)
  del config["adapt"]
  found = names(config)
  assert "adapt" not in found and found[4:8] == [
    "views", "partitions", "discriminant", "start_32bits",
  ]  # fmt: skip


def test_what_adapts_a_network_has_to_train_it_alone():
  config = folder_config(psch)
  config.psch.trained = "last"
  with pytest.raises(InputError, match=r"adapt\.steps is 563, but psch\.trained is 'last'"):
    make_plan(config)
  config = folder_config(psch)
  config.adapt.trained = "head"
  with pytest.raises(InputError, match=r"adapt\.trained is 'head', which leaves the network"):
    make_plan(config)


def test_a_trained_network_is_guarded_by_a_verdict_alone():
  found = make_plan(folder_config(udh_ecc, finetune="last", distill="all"))
  stages = [stage.name for stage in found.stages]
  assert stages[-2:] == ["encode_32bits", "guard_32bits"] and "start_32bits" not in stages
  assert found.network == "distill_32bits"


def test_without_views_nothing_is_guarded():
  config = psch.default_config("cifar10")
  assert names(config)[-1] == "encode_32bits" and "views" not in names(config)


def test_what_cannot_be_is_refused():
  with pytest.raises(InputError, match=r"finetune\.trained is 'head' and distill\.trained is"):
    make_plan(folder_config(udh_ecc, distill="last"))
  config = folder_config(psch)
  config.views.number = 1
  with pytest.raises(InputError, match=r"views\.number is 1, but with trained='head'"):
    make_plan(config)
  config = folder_config(udh_ecc)
  config.rounds = 2
  with pytest.raises(InputError, match=r"rounds is 2, but finetune\.trained is 'head'"):
    make_plan(config)


@pytest.mark.parametrize(
  ("method", "field", "given", "words"),
  [
    (psch, "psch.hash_start", "random", r"psch\.hash_start is 'random', but psch\.trained is"),
    (psch, "psch.classifier", "features", r"psch\.classifier is 'features', but psch\.trained is"),
    (udh_ecc, "student.start", "random", r"student\.start is 'random', but distill\.trained is"),
    (psch, "bits", 2048, "bits is 2048, but .* has only 1280 features"),
    (psch, "features.image_sizes", (224, 96), r"features\.image_sizes is \(224, 96\), but psch"),
  ],
)
def test_what_does_not_fit_such_a_network_is_refused(method, field, given, words):
  config = folder_config(method)
  with config.unlocked():
    config.update_from_flattened_dict({field: given})
  with pytest.raises(InputError, match=words):
    make_plan(config)


@pytest.mark.parametrize("section", ["finetune", "distill"])
def test_an_augmentation_that_no_view_has_is_refused(section):
  config = folder_config(udh_ecc)
  config[section].augment.flip = False
  with pytest.raises(InputError, match=rf"{section}\.augment is changed, .* set views\.augment"):
    make_plan(config)
  config.views.augment.flip = False
  make_plan(config)


def test_a_guard_needs_itq_whatever_is_trained():
  config = folder_config(psch, psch="last")
  config.psch.hash_start = "random"
  config.bits = 2048
  with pytest.raises(InputError, match=r"bits is 2048, but .* has only 1280 features"):
    make_plan(config)


def test_a_baseline_reads_one_side():
  config = baseline.default_config("cifar10")
  assert len(config.features.image_sizes) == 1
  make_plan(config)
  config.features.image_sizes = (224, 96)
  with pytest.raises(InputError, match=r"image_sizes is \(224, 96\), but a baseline"):
    make_plan(config)


@pytest.mark.slow
@pytest.mark.parametrize(
  "case", ["head", "adapted", "left alone", pytest.param("all", marks=pytest.mark.long)]
)
def test_a_run_ends_with_a_verdict_and_an_encoder_that_makes_its_codes(
  tmp_path, case, small_weights, capsys
):
  trained, may_adapt = ("all" if case == "all" else "head"), case in ("adapted", "left alone")
  rng = np.random.default_rng(0)
  pictures = tmp_path / "pictures"
  for number in range(60):
    color = ((200, 60, 20), (30, 90, 200), (60, 180, 60))[number % 3]
    noise = rng.integers(-60, 60, (12, 12, 3)) + color
    path = pictures / "abc"[number % 3] / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
  config = psch.default_config("folder", path=str(pictures), image_size=12, num_queries=6)
  automatic.on_any_pictures(config)
  config.bits = 12
  config.teacher.update(backbone="small_convnet", weights=small_weights)
  views = defaults.augmentation(flip=False)
  config.psch.update(batch_size=20, steps=6, trained=trained)
  config.views.augment = views
  if may_adapt:
    config.adapt.update(
      steps=3, batch_size=20, invariance=1.0 if case == "adapted" else -1.0, trained="all"
    )
  workdir = tmp_path / "run"
  scores = train(config, workdir, devices=jax.devices()[:1])
  record = json.loads((workdir / "guard_12bits.json").read_text())
  rows = list(record["agreement"])
  assert f"Without labels: {DEFINITION} of the codes" in record["definition"]
  assert "ties averaged over all orders" in DEFINITION
  assert record["kept"] in rows and rows[-1] == "ITQ"
  assert len(rows) == (3 if trained == "head" else 2)
  assert record["clusters"] == [5, 10, 11, 11]  # 47 images are trained on, four a cluster
  assert all(len(values) == 4 for values in record["agreement"].values())
  assert ("Discriminant ITQ" in scores) == (trained == "head")
  if trained == "head":
    settings = r"its start, discriminant ITQ \(\d+ clusters, power [.\d]+, flatness [.\d]+\)"
    assert re.fullmatch(settings, rows[1])
  assert "Are the learned codes better?" in (workdir / "report_12bits.html").read_text()
  printed = capsys.readouterr().out
  assert ("it is adapted to these pictures" in printed) == (case == "adapted")
  assert ("knows such pictures and stays as it is" in printed) == (case == "left alone")
  assert ("ITQ, adapted network" in scores) == (case == "adapted")
  if case == "left alone":
    assert "[guard] To the published network two views" in printed
  encoder = udh_jax.load_encoder(workdir / "encoder_12bits")
  images = np.stack([np.asarray(Image.open(path)) for path in sorted(pictures.rglob("*.png"))])
  codes = np.unpackbits(encoder(images), axis=1)
  assert len(np.unique(codes, axis=0)) > 1
