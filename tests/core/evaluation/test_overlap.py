"""Overlap metrics against the packages that their figures are quoted from: sacreBLEU and rouge-score."""

from __future__ import annotations

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from llmfw.core.evaluation import overlap

ANSWERS = ["the cat sat on the mat", "there is a dog, I think", "", "a quick brown fox jumps over it"]
REFERENCES = [
    "the cat sat on a mat",
    "there was a dog, I thought",
    "nothing at all",
    "a quick brown fox jumps over it",
]


def test_rouge_of_one_pair_by_hand():
    """ "a b c" and "a c d": unigrams 2 of 3 and 2 of 3, so F = 2/3; bigrams none; longest run "a c": 2/3."""
    estimates, scores = overlap.rouge(["a b c"], ["a c d"])
    assert scores == {"rouge1": [pytest.approx(2 / 3)], "rouge2": [0.0], "rougeL": [pytest.approx(2 / 3)]}
    assert estimates["rouge1"].value == pytest.approx(2 / 3)


def test_rouge_is_rouge_scores():
    scorer = RougeScorer(list(overlap.ROUGE))
    _, scores = overlap.rouge(ANSWERS, REFERENCES)
    for index, (answer, reference) in enumerate(zip(ANSWERS, REFERENCES, strict=True)):
        for name, told in scorer.score(reference, answer).items():
            assert scores[name][index] == pytest.approx(told.fmeasure, abs=1e-6), (name, answer)


def test_bleu_is_sacrebleus_of_the_whole_corpus_and_its_interval_holds_it():
    estimates, scores = overlap.bleu(ANSWERS, REFERENCES)
    theirs = sacrebleu.corpus_bleu(ANSWERS, [REFERENCES], smooth_method="none").score / 100
    found = estimates["bleu"]
    assert 0 < theirs < 1 and found.value == pytest.approx(theirs, abs=1e-6)
    assert found.low <= found.value <= found.high and found.low < found.high and found.n == 4
    assert scores["bleu"][3] == pytest.approx(1.0) and scores["bleu"][2] == 0.0


def test_chrf_is_sacrebleus_of_the_whole_corpus_also_with_an_answer_that_matches_nothing():
    estimates, scores = overlap.chrf(ANSWERS, REFERENCES)
    theirs = sacrebleu.corpus_chrf(ANSWERS, [REFERENCES], eps_smoothing=True).score / 100
    assert estimates["chrf"].value == pytest.approx(theirs, abs=1e-6)
    assert scores["chrf"][3] == pytest.approx(1.0)
