"""What a search's runs had in common, in a few words."""

from redline.report.search import Search

_SHAPE = {
    "model/width": "width",
    "model/num_layers": "layers",
    "model/num_heads": "heads",
    "model/vocab_size": "vocabulary",
    "data/sequence_length": "tokens a sequence",
    "data/batch_size": "sequences a batch",
}


def setup_words(search: Search) -> str:
    """Steps, precision and seeds; the model's shape where it was tracked and all variants share it."""
    runs = [next((run for run in variant.runs if run.run_id), None) for variant in search.variants]
    tracked = [run.parameters for run in runs if run is not None]
    words = []
    for key, name in _SHAPE.items():
        values = {parameters.get(key) for parameters in tracked}
        if len(values) == 1 and None not in values:
            words.append(f"{values.pop()} {name}")
    for name, facts in (
        ("steps a run", {variant.max_steps for variant in search.variants}),
        ("", {variant.precision for variant in search.variants}),
    ):
        words.append(f"{' or '.join(map(str, sorted(facts)))} {name}".strip())
    ladder = f"{len(search.ladder)} rungs from {search.ladder[0]:g} to {search.ladder[-1]:g}"
    return ", ".join([*words, ladder, f"{search.seeds} seed(s)"])
