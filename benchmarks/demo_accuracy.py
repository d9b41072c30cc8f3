"""Whether the bundled model answers right what it was not trained on, through two stages."""

from collections import Counter
from typing import Any

import tbcluster
from benchmarks.demo_questions import Question, held_out_questions
from benchmarks.harness import Bar, Report, note
from tbcluster import Cluster

NUM_STAGES = 2
MAX_TOKENS = 64
BAR = Bar(">=", 90, "%")


def run() -> Report:
    """Ask every held-out question once, greedily."""
    report = Report("demo-accuracy")
    asked, right = Counter[str](), Counter[str]()
    model, tokenizer = tbcluster.load(stages=NUM_STAGES)
    with model:
        for question in held_out_questions():
            group = f"{question.task} ({question.language})"
            asked[group] += 1
            right[group] += _is_answered(model, tokenizer, question)
    for group, count in asked.items():
        report.add(f"{group}, {count} questions", 100 * right[group] / count, "%")
    total = asked.total()
    report.add(f"all, {total} questions", 100 * right.total() / total, "%", BAR)
    return report


def _is_answered(model: Cluster, tokenizer: Any, question: Question) -> bool:
    messages = [{"role": "user", "content": question.prompt}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    text = tbcluster.generate(model, tokenizer, prompt, max_tokens=MAX_TOKENS)
    if question.is_right(text):
        return True
    note(f"{question.task}: {question.prompt!r} -> {text!r}, not {question.answer!r}")
    return False
