"""TFDS builders of the image-text sets whose files have to be fetched by hand.

They store what the readers of the official layouts list, with each picture as the file it was. The
data sets `mirflickr25k` and `nus_wide` read the result where data.path is the directory that it was
prepared in. To prepare one:

  import tensorflow_datasets as tfds
  from udh_jax.data.builders import NusWide

  NusWide(config="tc21", data_dir="DATA", file_format="array_record").download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir="FOLDER")
  )

Importing this module loads TensorFlow as soon as something is prepared; nothing else imports it.
"""

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from udh_jax.data.pictures import open_pictures
from udh_jax.data.readers.flickr25k import list_mirflickr25k
from udh_jax.data.readers.listing import Listing
from udh_jax.data.readers.nus_wide import NUS_WIDE_SELECTIONS, list_nus_wide

_CHECK_SIZE = 32  # a picture's end is reached at any size, and a small one costs least


class _Pairs(tfds.core.GeneratorBasedBuilder):
  """What both sets have in common: one split of image, tags, labels and id."""

  VERSION = tfds.core.Version("1.0.0")

  @abc.abstractmethod
  def _list(self, folder: str) -> Listing:
    """The pictures, by the parser of the official layout."""

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
      description=type(self).__doc__,
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          "image": tfds.features.Image(shape=(None, None, 3)),
          "tags": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
          "labels": tfds.features.Tensor(shape=(None,), dtype=np.bool_),
        }
      ),
      metadata=tfds.core.MetadataDict(),
      disable_shuffling=True,  # the order decides the splits of a seed
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    listing = self._list(str(dl_manager.manual_dir))
    self.info.metadata.update(
      words=list(listing.words), class_names=list(listing.class_names), settings=listing.settings
    )
    return {"train": self._generate_examples(listing)}

  def _generate_examples(self, listing: Listing) -> Iterator[tuple[int, dict[str, Any]]]:
    pictures = open_pictures(
      listing.folder,
      listing.files,
      size=_CHECK_SIZE,
      on_unreadable="skip",
      progress=lambda done, total: None,
    )
    listing = listing.take(pictures.kept)
    texts = listing.texts
    assert texts is not None  # a listing of pairs
    for row, name in enumerate(listing.files):
      yield (
        row,
        {
          "id": name,
          "image": str(listing.folder / name),
          "tags": texts[row],
          "labels": np.zeros(0, bool) if listing.labels is None else listing.labels[row],
        },
      )


class Mirflickr25k(_Pairs):
  """MIRFLICKR-25K: pictures with their tags and 24 labels, those that have both."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  Fetch mirflickr25k.zip and mirflickr25k_annotations_v080.zip from press.liacs.nl/mirflickr.
  Unpack the first into the manual folder, so that it holds mirflickr/im1.jpg and
  mirflickr/meta/tags/tags1.txt, and the second into its subfolder annotations_v080, so that it
  holds annotations_v080/animals.txt.
  """

  def _list(self, folder: str) -> Listing:
    return list_mirflickr25k(folder, min_tag_count=20, on_unpaired="skip")


class NusWide(_Pairs):
  """NUS-WIDE: pictures of its most frequent concepts, with 1,000 tags."""

  BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS reads it from the class)
    tfds.core.BuilderConfig(name=name, description=f"The {count} most frequent concepts.")
    for name, count in NUS_WIDE_SELECTIONS.items()
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = """
  Fetch ImageList.zip, Groundtruth.zip, ConceptsList.zip and NUS_WID_Tags.zip from the NUS-WIDE page
  of the National University of Singapore, and the pictures from its authors. Unpack them so that
  the manual folder holds ImageList/Imagelist.txt, Groundtruth/AllLabels/Labels_airport.txt,
  ConceptsList/Concepts81.txt, NUS_WID_Tags/AllTags1k.txt, NUS_WID_Tags/TagList1k.txt and the
  pictures as Flickr/actor/0001_2124494179.jpg.
  """

  def _list(self, folder: str) -> Listing:
    return list_nus_wide(folder, selection=self.builder_config.name, on_unpaired="keep")
