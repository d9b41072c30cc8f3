"""`tbcluster chat`: a conversation in the terminal."""

from typing import TYPE_CHECKING

import typer

from tbcluster.cli.loading import console, running_cluster
from tbcluster.cli.options import MaxTokens, Model, Seed, Stages, System, Temperature, TopP
from tbcluster.errors import RequestError, TbclusterError

if TYPE_CHECKING:
    # It takes a second to import, which commands that load no model should not wait for.
    from tbcluster.cluster.cluster import Cluster

DEFAULT_CHAT_TOKENS = 1024
HELP = "/new starts over, /quit ends; Ctrl-C stops an answer, and at the prompt it ends"


def chat(
    model: Model = None,
    stages: Stages = None,
    max_tokens: MaxTokens = DEFAULT_CHAT_TOKENS,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    system: System = None,
) -> None:
    """Chat with a model on this machine alone; answers stream as they are generated."""
    opening = [{"role": "system", "content": system}] if system else []
    with running_cluster(model, stages) as cluster:
        if not cluster.tokenizer.has_chat_template:
            raise RequestError(f"{cluster.model_name} has no chat template: use `generate --raw`")
        console.print(f"[bold]{cluster.model_name}[/bold]: {HELP}")
        turns = list(opening)
        while (said := ask()) is not None:
            if said == "/new":
                turns = list(opening)
                console.print("[dim](a new conversation)[/dim]")
            elif said.startswith("/"):
                console.print(f"there is no {said}: {HELP}", style="yellow", markup=False)
            elif said:
                turns.append({"role": "user", "content": said})
                answer = reply(
                    cluster,
                    turns,
                    max_tokens=max_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    seed=seed,
                )
                if answer is None:
                    turns.pop()
                else:
                    turns.append({"role": "assistant", "content": answer})


def ask() -> str | None:
    """What the user types next; None when they are done."""
    try:
        said = console.input("[bold cyan]> [/bold cyan]").strip()
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None
    return None if said == "/quit" else said


def reply(
    cluster: "Cluster",
    turns: list[dict[str, str]],
    *,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
) -> str | None:
    """Stream one answer to the terminal and return it: what has come so far after Ctrl-C, None
    after an error."""
    from tbcluster.api import stream_generate
    from tbcluster.generation import chat_prompt

    answer = ""
    try:
        prompt = chat_prompt(cluster.tokenizer, turns)
        for response in stream_generate(
            cluster,
            cluster.tokenizer,
            prompt,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        ):
            answer += response.text
            typer.echo(response.text, nl=False)
    except KeyboardInterrupt:
        console.print(" [dim](stopped)[/dim]")
    except TbclusterError as error:
        console.print(f"\n{error}", style="red", markup=False)
        return None
    typer.echo()
    return answer
