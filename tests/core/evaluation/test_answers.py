from __future__ import annotations

import pytest

from llmfw.core.errors import DataError
from llmfw.core.evaluation.answers import Question, answered, compared, fitting, questions
from llmfw.core.records import Completion


def completion(text: str, finish: str = "stop") -> Completion:
    return Completion(text=text, ids=(1, 2), prompt_tokens=3, finish=finish)  # type: ignore[arg-type]


def test_each_form_of_row_has_its_reference():
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    found = questions(
        [
            {"id": "a", "prompt": "1+1", "completion": "2"},
            {"id": "b", "prompt": "1+2", "chosen": "3", "rejected": "4"},
            {"id": "c", "messages": said},
            {"id": "d", "prompt": "2+2", "answer": "4", "solution": ["two and two"]},
            {"id": "e", "prompt": [said[0]], "completion": [said[1]]},
            {"id": "f", "prompt": "1+1", "completion": "two"},
        ]
    )
    assert [(one.id, one.reference, one.final) for one in found] == [
        ("a", "2", None),
        ("b", "3", None),
        ("c", "ho", None),
        ("d", "two and two\nAnswer: 4", "4"),
    ]  # e asks what c asks, f what a asks
    assert found[2].prompt == [said[0]]


def test_rows_of_text_ask_nothing():
    with pytest.raises(DataError, match="NO-PROMPT"):
        questions([{"id": "a", "text": "once upon a time"}])


def test_exact_match_of_problems_compares_final_answers_and_of_others_the_whole():
    asked = [
        Question(id="a", prompt="p", reference="long\nAnswer: 1/2", final="1/2"),
        Question(id="b", prompt="q", reference="it is 7"),
        Question(id="c", prompt="r", reference="it is 8"),
    ]
    told = [completion("so\nAnswer: 0.5"), completion("It is 7"), completion("Answer: it is 8", "length")]
    found = compared(("exact_match", "rouge"), asked, told)
    exact = found.metrics["exact_match"]
    assert exact.value == pytest.approx(2 / 3) and exact.n == 3  # type: ignore[union-attr]
    # Wilson's interval of 2 of 3
    assert (exact.low, exact.high) == (pytest.approx(0.2077, abs=1e-3), pytest.approx(0.9385, abs=1e-3))  # type: ignore[union-attr]
    assert found.metrics["answers_unfinished"] == pytest.approx(1 / 3) and found.metrics["answer_tokens"] == 2
    rows = found.tables["answers"]
    assert [row["exact_match"] for row in rows] == [1.0, 1.0, 0.0] and rows[0]["reference"] == "1/2"
    assert rows[1]["rougeL"] == pytest.approx(1.0) and list(rows[0])[:4] == [
        "id",
        "prompt",
        "reference",
        "answer",
    ]


def test_answers_come_in_the_order_of_the_questions_and_are_greedy(opened):
    policy = opened("generation.max_new_tokens=5", "generation.batch_size=2").policy
    asked = [Question(id=str(n), prompt="x" * n, reference="") for n in (3, 9, 1, 5, 7)]
    told = answered(policy, asked)
    alone = [policy.generate([question.prompt])[0].text for question in asked]
    assert [one.text for one in told] == alone


def test_prompts_longer_than_the_models_context_are_left_out_and_counted(opened, capsys):
    policy = opened().policy
    long, short = (
        Question(id=name, prompt=name * size, reference="") for name, size in (("l", 9000), ("s", 3))
    )
    assert fitting(policy, [long, short], 2) == [short]
    assert "1 held-out prompts are longer" in capsys.readouterr().err
    with pytest.raises(DataError, match="NOTHING-TO-EVALUATE"):
        fitting(policy, [long], 2)
