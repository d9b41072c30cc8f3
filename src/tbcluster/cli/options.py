"""Arguments that several commands share."""

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Argument(
        help="A model folder or a Hugging Face id; the bundled model if left out.",
        show_default=False,
    ),
]
Stages = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut the model into this many stage processes (two, where its layers allow).",
        show_default=False,
    ),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Most tokens to generate.")]
Temperature = Annotated[
    float, typer.Option("--temp", "--temperature", min=0.0, help="0 is greedy.")
]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Nucleus sampling; 1 keeps all.")]
TopK = Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all.")]
MinP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Drop tokens below this share of the likeliest.")
]
Seed = Annotated[int | None, typer.Option(help="Equal seeds give equal text.", show_default=False)]
System = Annotated[str | None, typer.Option(help="System message of the chat.", show_default=False)]
