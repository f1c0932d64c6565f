import subprocess
import sys

import numpy as np
import pytest

from annotate import MiniLM
from annotate.minilm import mean_over_tokens

TEXTS = [
    "A dog runs on the beach.",
    "Video labelled as: golden retriever, tennis ball; little motion.",
    "bus",
    "A very long caption " + "about nothing in particular " * 80,
    "Ein Hund läuft am Strand. 犬",
]


@pytest.fixture(scope="module")
def stage(ready):
    return ready(MiniLM())


def test_mean_leaves_padding_out():
    tokens = np.float32([[[3, 0], [0, 4], [99, 99]]])
    assert mean_over_tokens(tokens, np.array([[1, 1, 0]])) == pytest.approx(np.float32([[0.6, 0.8]]))


def test_vectors_are_unit_norm_and_independent_of_their_batch(stage):
    together = stage.embed_texts(TEXTS)
    alone = np.concatenate([stage.embed_texts([text]) for text in TEXTS])
    assert together.shape == (len(TEXTS), 384)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(stage.embed_texts(TEXTS[::-1])[::-1] - together).max() < 1e-5


def test_more_texts_than_one_batch_keep_their_order(stage):
    texts = [f"clip number {i}" for i in range(70)]
    vectors = stage.embed_texts(texts)
    assert vectors.shape == (70, 384)
    assert vectors[69] == pytest.approx(stage.embed_texts(texts[69:])[0], abs=1e-5)


def test_what_is_beyond_256_tokens_is_not_read(stage):
    start = "word " * 254
    long, longer, shorter = stage.embed_texts([start + "elephant", start + "trumpet and more", "word " * 100])
    assert np.abs(long - longer).max() < 1e-5
    assert np.abs(long - shorter).max() > 1e-3


@pytest.mark.parametrize(
    ("query", "expected"),
    [("a bus in the street", 0), ("puppy playing with a ball", 1), ("food", 2), ("an aeroplane at the airport", 3)],
)
def test_search_finds_the_caption_that_means_it(stage, query, expected):
    captions = [
        "Video labelled as: trolleybus, street sign; strong motion.",
        "Video labelled as: golden retriever, tennis ball; little motion.",
        "Video labelled as: pizza, plate; almost no motion.",
        "Video labelled as: airliner, wing; moderate motion.",
    ]
    scores = stage.embed_texts(captions) @ stage.embed_texts([query])[0]
    assert scores.argmax() == expected


@pytest.mark.slow  # imports another framework
def test_same_vectors_as_sentence_transformers(stage):
    """The package's own pipeline, in a process of its own: it brings warnings that are not ours."""
    code = (
        "import sys, numpy as np\n"
        "from sentence_transformers import SentenceTransformer\n"
        "vectors = SentenceTransformer(sys.argv[1], device='cpu').encode(sys.argv[2:])\n"
        "np.savetxt(sys.stdout, vectors, fmt='%.8f')\n"
    )
    pytest.importorskip("sentence_transformers")
    done = subprocess.run(
        [sys.executable, "-c", code, stage.weights, *TEXTS], capture_output=True, text=True, check=True
    )
    theirs = np.loadtxt(done.stdout.splitlines(), dtype=np.float32)
    assert np.abs(stage.embed_texts(TEXTS) - theirs).max() < 1e-5


def test_rows_are_keyed_by_clip(stage, make_clip):
    clips = [make_clip(clip_id=f"c{i}", columns={"caption": text}) for i, text in enumerate(TEXTS)]
    together = {row["clip_id"]: row["embedding"] for row in stage(clips)}
    shuffled = {row["clip_id"]: row["embedding"] for clip in reversed(clips) for row in stage([clip])}
    assert together.keys() == shuffled.keys() == {f"c{i}" for i in range(len(TEXTS))}
    assert all(np.abs(together[clip_id] - shuffled[clip_id]).max() < 1e-5 for clip_id in together)


@pytest.mark.parametrize("columns", [{}, {"caption": None}, {"caption": " "}, {"caption": float("nan")}])
def test_clip_without_caption_says_so(stage, make_clip, columns):
    with pytest.raises(ValueError, match="clip mute has no caption to embed"):
        stage([make_clip(clip_id="mute", columns=columns)])


def test_no_texts_give_no_vectors_and_an_empty_one_is_refused(stage):
    assert stage.embed_texts([]).shape == (0, 384)
    with pytest.raises(ValueError, match="text 1 of 2 is empty"):
        stage.embed_texts(["a", ""])


def test_setup_is_silent(stage, capfd):
    MiniLM(weights=stage.weights).setup()
    assert capfd.readouterr() == ("", "")


def test_stages_import_without_torch():
    heavy = {"torch", "transformers", "torchvision", "onnxruntime", "rapidocr"}
    code = f"import sys, annotate, filters; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_queries_need_no_torch_and_equal_the_torch_model(stage):
    np.testing.assert_allclose(stage.embed_queries(TEXTS), stage.embed_texts(TEXTS), atol=1e-5)
    code = f"import sys; from annotate import MiniLM; MiniLM(weights={stage.weights!r}).embed_queries(['a dog']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    with pytest.raises(ValueError, match="text 1 of 2 is empty"):
        stage.embed_queries(["a", " "])
