"""Text that the Hugging Face `datasets` library opens; an optional extra."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from redline.data.corpus import check_words, needed
from redline.errors import UserError

_HUB_ANSWERS_WITHIN = 4.0  # seconds


class HuggingFace:
    """One text column of one split of a dataset; each row is a document.

    Args:
        path: what `datasets.load_dataset` takes (a name on the Hub, a folder, a format such as ``json``), or
            a folder that `save_to_disk` wrote.
        name: the dataset's configuration.
        split: of a dataset that has several; slices such as ``train[:10%]`` where `load_dataset` opens it.
        text_column: the column that holds the text.
        data_files: handed to `load_dataset`.
    """

    def __init__(
        self,
        path: str | None,
        name: str | None = None,
        split: str = "train",
        text_column: str = "text",
        data_files: Any = None,
    ) -> None:
        self.path = path
        self.name = name
        self.split = split
        self.text_column = text_column
        self.data_files = data_files

    def documents(self) -> Iterator[str]:
        """Raises: UserError naming the key, for what cannot be opened and for a column that is not text."""
        row = 0
        for batch in self._dataset.iter(batch_size=1000):
            for text in batch[self.text_column]:
                if not isinstance(text, str):
                    raise UserError(
                        f"data.source.text_column={self.text_column}: row {row} of data.path={self.path} is"
                        " not text; allowed: a column of strings without nulls"
                    )
                check_words(text, f"data.path={self.path}: row {row}")
                yield text
                row += 1

    def identity(self) -> str:
        # The library's own key: it depends on the commit, the files' times, or what was saved,
        # and spares a pass over what may be many gigabytes.
        return f"{self._dataset._fingerprint}-{self.text_column}"

    @functools.cached_property
    def _dataset(self) -> Any:
        datasets = needed("datasets", "data=huggingface", "huggingface")
        if self.path is None:
            raise UserError(
                "data.path=null: no dataset; allowed: what datasets.load_dataset opens, or save_to_disk wrote"
            )
        path = str(self.path)
        if not (datasets.config.HF_HUB_OFFLINE or _hub_answers(path)):
            # The library would try again for half a minute; so it looks at once for what it has downloaded.
            datasets.config.HF_HUB_OFFLINE = True
        try:
            if _is_saved(Path(path)):
                dataset = datasets.load_from_disk(path)
            else:
                dataset = datasets.load_dataset(path, self.name, data_files=self.data_files, split=self.split)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"data.path={path}: `datasets` cannot open it with data.source.name={self.name or 'null'},"
                f" data.source.split={self.split} ({why}); allowed: what datasets.load_dataset opens"
            ) from error
        if isinstance(dataset, datasets.DatasetDict):
            dataset = self._pick_split(dataset)
        if self.text_column not in dataset.column_names:
            raise UserError(
                f"data.source.text_column={self.text_column}: no such column in data.path={path};"
                f" allowed: {', '.join(dataset.column_names)}"
            )
        return dataset.select_columns(self.text_column)

    def _pick_split(self, splits: Any) -> Any:
        if self.split not in splits:
            raise UserError(
                f"data.source.split={self.split}: no such split in data.path={self.path};"
                f" allowed: {', '.join(splits)}"
            )
        return splits[self.split]


def _hub_answers(path: str) -> bool:
    """Whether the place that ``path`` is downloaded from is there; a folder is not downloaded."""
    if Path(path).exists():
        return True
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urlopen(host, timeout=_HUB_ANSWERS_WITHIN):
            return True
    except HTTPError:  # an answer too
        return True
    except (OSError, ValueError):
        return False


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()
