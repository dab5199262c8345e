"""Image-text methods by the functions that train.py and eval.py call, on made and real pairs."""

import json

import numpy as np
import pytest
from PIL import Image
from presets import load, shorten_pairs

import udh_jax
from udh_jax.errors import InputError
from udh_jax.methods.run import score, train


@pytest.mark.parametrize(
  "method",
  [
    "djsrh",
    *(pytest.param(method, marks=pytest.mark.slow) for method in ("dudch", "pair_contrast")),
    pytest.param("ucch", marks=(pytest.mark.slow, pytest.mark.long)),
  ],
)
def test_a_method_learns_scores_and_publishes(method, made, tmp_path):
  config = shorten_pairs(load(method, "wikipedia"), made)
  scores = train(config, tmp_path / "run")
  title = {"pair_contrast": "Pair contrast"}.get(method, method.upper())
  assert scores[f"{title}, text→text"] > 0.5  # chance is 1/3
  assert score(tmp_path / "run") == scores
  (entry,) = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert "mAP@50" in entry["definition"] and "pre-training labels" in entry["definition"]
  assert {p.name for p in (tmp_path / "run").glob("*.png")} >= {"image_to_text_12bits.png"}
  encoder = udh_jax.load_encoder(tmp_path / "run" / "encoder_12bits")
  arrays = np.load(made)
  codes = encoder.images(arrays["image"]), encoder.texts(arrays["text"])
  splits = json.loads((tmp_path / "run" / "splits.json").read_text())
  query, database = splits["query"], splits["database"]
  found = udh_jax.mean_average_precision(
    codes[0][query],
    codes[1][database],
    arrays["label"][query],
    arrays["label"][database],
    at=50,
  )
  assert np.isclose(found, scores[f"{title}, image→text"])


@pytest.mark.slow
def test_learned_codes_and_teacher_have_rows_of_their_own(made, tmp_path):
  config = shorten_pairs(load("dudch", "wikipedia"), made)
  config.djsrh.bits = 16
  scores = train(config, tmp_path / "run")
  methods = {name.rsplit(", ", 1)[0] for name in scores}
  assert methods == {
    "DUDCH",
    "DUDCH, learned codes in the database",
    "DJSRH, its teacher, 16 bits",
  }


@pytest.mark.slow
def test_pairs_without_labels_are_learned(made, tmp_path, capsys):
  config = shorten_pairs(load("dudch", "wikipedia"), made)
  config.data.label = ""
  assert train(config, tmp_path / "run") == {}
  assert "have no labels" in capsys.readouterr().out
  assert (tmp_path / "run" / "text_to_image_12bits.png").exists()


def test_a_data_set_without_texts_is_refused(made, tmp_path):
  config = shorten_pairs(load("dudch", "wikipedia"), made)
  config.data.text = ""
  with pytest.raises(InputError, match="no texts"):
    train(config, tmp_path / "run")


@pytest.mark.slow
def test_the_discrete_step_may_be_left_out(made, tmp_path):
  config = shorten_pairs(load("dudch", "wikipedia"), made)
  config.student.discrete = "sign"
  assert train(config, tmp_path / "run")["DUDCH, text→text"] > 0.5


def write_mirflickr(root, pictures, labels, texts):
  (root / "meta" / "tags").mkdir(parents=True)
  (root / "annotations_v080").mkdir()
  for number, (picture, words) in enumerate(zip(pictures, texts, strict=True), 1):
    picture.save(root / f"im{number}.jpg")
    (root / "meta" / "tags" / f"tags{number}.txt").write_text("\n".join(words))
  for label in set(labels):
    lines = [f"{number}\n" for number, name in enumerate(labels, 1) if name == label]
    (root / "annotations_v080" / f"{label}.txt").write_text("".join(lines))


def write_nus_wide(root, pictures, labels, texts):
  for folder in ("Flickr/some", "ImageList", "Groundtruth/AllLabels", "NUS_WID_Tags"):
    (root / folder).mkdir(parents=True)
  for number, picture in enumerate(pictures):
    picture.save(root / "Flickr" / "some" / f"{number}.jpg")
  lines = [f"some\\{number}.jpg\n" for number in range(len(pictures))]
  (root / "ImageList" / "Imagelist.txt").write_text("".join(lines))
  for concept in [*set(labels), *(f"rare{number}" for number in range(8))]:
    values = "".join(f"{name == concept:d}\n" for name in labels)
    (root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt").write_text(values)
  tags = sorted({word for words in texts for word in words})
  rows = ["\t".join(f"{tag in words:d}" for tag in tags) + "\n" for words in texts]
  (root / "NUS_WID_Tags" / "AllTags1k.txt").write_text("".join(rows))
  (root / "NUS_WID_Tags" / "TagList1k.txt").write_text("\n".join(tags))


def write_table(root, pictures, labels, texts):
  root.mkdir()
  lines = ["image,text,kind"]
  for number, (picture, words) in enumerate(zip(pictures, texts, strict=True)):
    picture.save(root / f"{number}.png")
    lines.append(f'{number}.png,"{", ".join(words).upper()}!",{labels[number]}')
  (root / "pairs.csv").write_text("\n".join(lines))


PAIRS = {"label_column": "kind", "min_word_count": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("preset", "write", "fields"),
  [
    ("pairs", write_table, PAIRS),
    ("pairs", write_table, {**PAIRS, "trained": "all"}),
    ("mirflickr25k", write_mirflickr, {"min_tag_count": 2}),
    ("nus_wide", write_nus_wide, {"selection": "tc10"}),
  ],
)
def test_pictures_with_tags_are_learned(
  preset, write, fields, tmp_path, rng, monkeypatch, small_weights
):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  colors = {"sea": (20, 60, 200), "city": (150, 140, 130)}
  labels = ["sea", "city"] * 20
  pictures = [
    Image.fromarray((rng.integers(-20, 20, (24, 30, 3)) + colors[label]).clip(0, 255).astype("u1"))
    for label in labels
  ]
  root = tmp_path / preset
  write(root, pictures, labels, [[label, f"{label}scape", "picture"] for label in labels])

  config = load("dudch", preset)
  config.bits = 8
  fields = dict(fields)
  if "trained" in fields:
    config.djsrh.trained = config.student.trained = fields.pop("trained")
  path = root / "pairs.csv" if preset == "pairs" else root
  config.data.update(path=str(path), num_queries=8, num_train=0, image_size=16, **fields)
  config.teacher.update(backbone="small_convnet", weights=small_weights)
  config.features.image_sizes = (16,)
  config.djsrh.update(hidden=16, image_size=16, epochs=2, batch_size=8, bits=0)
  config.student.update(hidden=16, image_size=16, rounds=1, sampled_pairs=16, batch_size=8)
  config.score.at = 0
  scores = train(config, tmp_path / "run")
  assert scores["DUDCH, text→text"] > 0.8
  encoder = udh_jax.load_encoder(tmp_path / "run" / "encoder_8bits")
  assert sorted(encoder.about["words"]) == ["city", "cityscape", "picture", "sea", "seascape"]
  assert encoder.texts(["sea seascape", "city"]).shape == (2, 1)
  if preset == "pairs":  # plain strings are cut as the training texts were
    assert (encoder.texts(["The SEA, a seascape!"]) == encoder.texts([["sea", "seascape"]])).all()

  config.teacher.weights = ""
  with pytest.raises(InputError, match=f"is empty, but the images of {preset} are pictures"):
    train(config, tmp_path / "without weights")


@pytest.mark.slow
def test_wikipedia_is_read_and_learned(shared, tmp_path):
  config = load("dudch", "wikipedia")
  config.bits = 16
  config.data.path = str(shared / "data" / "wikipedia")
  config.djsrh.update(hidden=64, epochs=3, bits=0)
  config.student.update(hidden=64, rounds=2, sampled_pairs=300)
  scores = train(config, tmp_path / "run")
  assert 0.3 < scores["DUDCH, text→text"] < 0.8
