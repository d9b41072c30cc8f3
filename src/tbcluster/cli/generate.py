"""`tbcluster generate`: one prompt, one answer."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tbcluster.cli.loading import console, running_cluster
from tbcluster.cli.options import (
    MaxTokens,
    MinP,
    Model,
    Seed,
    Stages,
    System,
    Temperature,
    TopK,
    TopP,
)
from tbcluster.core import DEFAULT_MAX_TOKENS, TokenId
from tbcluster.errors import RequestError

if TYPE_CHECKING:
    # It takes a second to import, which commands that load no model should not wait for.
    from tbcluster.cluster.cluster import Cluster


def generate(
    model: Model = None,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="What to say; - reads standard input.")
    ] = "What is tbcluster?",
    stages: Stages = None,
    max_tokens: MaxTokens = DEFAULT_MAX_TOKENS,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    seed: Seed = None,
    system: System = None,
    raw: Annotated[
        bool, typer.Option(help="Use the prompt as it is, without chat template.")
    ] = False,
) -> None:
    """Print a model's answer to a prompt as it is generated, on this machine alone."""
    from tbcluster.api import stream_generate

    text = read_prompt() if prompt == "-" else prompt
    with running_cluster(model, stages) as cluster:
        response = None
        for response in stream_generate(
            cluster,
            cluster.tokenizer,
            prompt_tokens(cluster, text, system, raw=raw),
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            seed=seed,
        ):
            typer.echo(response.text, nl=False)
        typer.echo()
        if response is not None:
            console.print(
                f"[dim]{response.prompt_tokens} prompt tokens at {response.prompt_tps:.1f}/s, "
                f"{response.generation_tokens} tokens at {response.generation_tps:.1f}/s[/dim]"
            )


def read_prompt() -> str:
    """Standard input without the newline that ends it."""
    text = sys.stdin.read().removesuffix("\n")
    if not text:
        raise RequestError("--prompt - was given, and standard input is empty", "prompt")
    return text


def prompt_tokens(cluster: "Cluster", text: str, system: str | None, *, raw: bool) -> list[TokenId]:
    """The prompt as the model's chat template has it, or as it is."""
    from tbcluster.generation import chat_prompt, encode_prompt

    tokenizer = cluster.tokenizer
    if raw or not tokenizer.has_chat_template:
        return encode_prompt(tokenizer, text)
    turns = [{"role": "system", "content": system}] if system else []
    return chat_prompt(tokenizer, [*turns, {"role": "user", "content": text}])
