"""The bundled model still says what it should: a small part of the demo-accuracy benchmark."""

from collections import defaultdict

import tbcluster
from benchmarks.demo_questions import Question, held_out_questions
from tbcluster.cluster.cluster import Cluster
from tbcluster.demo import MODEL_PATH

PER_KIND = 2
MIN_RIGHT = 0.85


def test_a_sample_of_held_out_questions_is_answered(demo_cluster: Cluster) -> None:
    kinds: dict[tuple[str, str], list[Question]] = defaultdict(list)
    for question in held_out_questions():
        kinds[question.task, question.language].append(question)
    sample = [question for questions in kinds.values() for question in questions[:PER_KIND]]
    assert len(sample) >= 30
    num_right = sum(question.is_right(answer(demo_cluster, question)) for question in sample)
    assert num_right >= MIN_RIGHT * len(sample)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in MODEL_PATH.iterdir()) < 4 * 2**20


def answer(cluster: Cluster, question: Question) -> str:
    turns = [{"role": "user", "content": question.prompt}]
    prompt = cluster.tokenizer.apply_chat_template(turns, add_generation_prompt=True)
    return tbcluster.generate(cluster, cluster.tokenizer, prompt, max_tokens=60)
