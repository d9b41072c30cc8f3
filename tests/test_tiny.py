"""The whole thing in one look: the bundled model, two stages, one right answer."""

import tbcluster


def test_tiny() -> None:
    model, tokenizer = tbcluster.load(stages=2)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    with model:
        prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
        assert "Paris" in tbcluster.generate(model, tokenizer, prompt, max_tokens=30)
