"""From what a dialect asks for to requests that the engine runs: chat template, tokens, sampling
defaults, logit rules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tbcluster.answers.format import AnswerFormat
from tbcluster.answers.protected import RESERVED_NAMES, encode_chat
from tbcluster.answers.splitter import AnswerSplitter
from tbcluster.answers.tool_calls import template_messages
from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Grammar, LogitRules, Request, SamplingParams, TokenId
from tbcluster.engine.limits import MAX_INTEGER
from tbcluster.errors import ContextLengthError, RequestError
from tbcluster.generation import encode_prompt, logit_rules, new_seed
from tbcluster.server.ask import Chat, Options, Tool, Tools
from tbcluster.server.constraints import Constraints
from tbcluster.server.token_texts import TokenTexts

MIN_TOP_P = 1e-9
# The dialects' own default, for models whose generation_config.json names none.
DEFAULT_TEMPERATURE = 1.0
# Tokenizers may normalize text (collapse blanks, say) before they cut it.
NORMALIZATION_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Generation:
    """Requests that are ready to run, and how to read what comes of them.

    Attributes:
        requests: `num_choices` for each prompt, prompt by prompt.
        new_splitter: Makes one for each choice; None where all that comes is text.
        max_calls: The answer ends after so many tool calls.
        prompt_param: The request's field that the prompts are made of, for errors.
    """

    requests: tuple[Request, ...]
    num_choices: int
    new_splitter: Callable[[], AnswerSplitter] | None = None
    max_calls: int | None = None
    prompt_param: str = "prompt"

    @property
    def num_prompt_tokens(self) -> int:
        """Each prompt counts once, however many choices it has."""
        return sum(len(request.prompt) for request in self.requests[:: self.num_choices])


class Intake:
    """Makes generations for one cluster. Rendering and encoding take their time: call it outside
    the event loop.

    Attributes:
        name: What clients call the model.
        texts: The texts of its single tokens.
        max_characters: More than any prompt that fits has; None for no limit.
    """

    def __init__(self, cluster: Cluster, name: str | None = None) -> None:
        self.cluster = cluster
        self.name = cluster.model_name if name is None else name
        self.texts = TokenTexts(cluster.tokenizer)
        self.format = AnswerFormat(cluster.tokenizer)
        self._constraints = Constraints(cluster, self.format)
        self._defaults = model_defaults(cluster.folder.generation_config)
        self.max_characters = _max_characters(cluster)

    @cached_property
    def num_ids(self) -> int:
        """Token ids of the vocabulary are below this."""
        ids: Iterable[TokenId] = self.cluster.tokenizer.get_vocab().values()
        return 1 + max(ids)

    def chat(self, chat: Chat, options: Options) -> Generation:
        """Answers to a conversation.

        Raises:
            RequestError: The model or its template cannot do what is asked; `param` names it.
        """
        prompt = self.chat_prompt(chat)
        is_thinking = self.format.starts_thinking(prompt)
        grammar = self._chat_grammar(chat, options, is_thinking)
        tools = _usable(chat.tools)
        return Generation(
            requests=self._requests(
                [prompt], options, grammar, keeps_first_blank=chat.continues_last
            ),
            num_choices=options.num_choices,
            new_splitter=lambda: self.format.splitter(
                list(tools) or None, is_thinking, is_constrained=options.constraint is not None
            ),
            max_calls=None if chat.tools.is_parallel else 1,
            prompt_param=chat.param,
        )

    def completions(
        self, prompts: Sequence[str | Sequence[TokenId]], options: Options
    ) -> Generation:
        """Continuations of texts or token ids.

        Raises:
            RequestError: A prompt or option cannot be served; `param` names it.
        """
        for prompt in prompts:
            if isinstance(prompt, str):
                self.check_length(len(prompt), "prompt")
        tokens = [encode_prompt(self.cluster.tokenizer, prompt) for prompt in prompts]
        grammar = self._constraints.of_text(options.constraint)
        return Generation(
            requests=self._requests(
                tokens, options, Grammar(grammar) if grammar else None, keeps_first_blank=True
            ),
            num_choices=options.num_choices,
        )

    def chat_prompt(self, chat: Chat) -> list[TokenId]:
        """Token ids of a conversation, up to where the assistant goes on.

        Raises:
            RequestError: The model has no chat template, or its template refuses these messages.
        """
        tools = _usable(chat.tools)
        if tools and not self.format.has_tools:
            raise RequestError("this model's chat template knows no tools: leave them out", "tools")
        # What the assistant said may hold reasoning, which templates leave out.
        said = [m.get("content") for m in chat.messages if m.get("role") != "assistant"]
        self.check_length(sum(len(text or "") for text in said), "messages")
        _check_names(chat.template_kwargs)
        kwargs = {**self._effort_kwargs(chat.effort, chat.effort_param), **chat.template_kwargs}
        if chat.continues_last:
            kwargs |= {"continue_final_message": True, "add_generation_prompt": False}
        return encode_chat(
            self.cluster.tokenizer,
            template_messages(list(chat.messages)),
            list(tools),
            check_length=lambda num_characters: self.check_length(num_characters, "messages"),
            **kwargs,
        )

    def check_length(self, num_characters: int, param: str) -> None:
        """Encoding megabytes takes seconds: what cannot possibly fit is refused before that.

        Raises:
            ContextLengthError: It is far longer than any prompt.
        """
        if self.max_characters is not None and num_characters > self.max_characters:
            raise ContextLengthError(
                f"{param} has {num_characters} characters, far more than fit the "
                f"{self.cluster.longest_sequence} tokens that can be served: shorten it",
                param,
            )

    def _effort_kwargs(self, effort: str | None, param: str) -> dict[str, Any]:
        """What chat templates call it; one that knows no effort still knows whether to reason."""
        if effort is None:
            return {}
        if self.format.knows_effort:
            return {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        if self.format.has_reasoning:
            return {"enable_thinking": effort != "none"}
        if effort == "none":
            return {}
        raise RequestError(f"{param} asks for reasoning, this model has none: leave it out", param)

    def _chat_grammar(self, chat: Chat, options: Options, is_thinking: bool) -> Grammar | None:
        text = self._constraints.of_chat(chat.tools, options.constraint)
        budget = options.thinking_budget
        if text is None and budget is None:
            return None
        if chat.effort == "none" and not is_thinking:
            return Grammar(text)  # what was turned off cannot be opened again
        if budget is not None and not self.format.think_end:
            raise RequestError(
                "thinking_budget bounds reasoning, this model has none: leave it out",
                "thinking_budget",
            )
        return Grammar(text, self.format.think_start, self.format.think_end, is_thinking, budget)

    def _requests(
        self,
        prompts: Sequence[Sequence[TokenId]],
        options: Options,
        grammar: Grammar | None,
        *,
        keeps_first_blank: bool,
    ) -> tuple[Request, ...]:
        """`num_choices` requests for each prompt; a seed gives each of them a seed of its own."""
        seed = new_seed() if options.seed is None else options.seed
        rules = _rules(options, grammar)
        # Consecutive numbers for all of them: equal prompts in one request differ too.
        count = range(len(prompts) * options.num_choices)
        requests = (
            self.cluster.make_request(
                prompts[index // options.num_choices],
                max_tokens=options.max_tokens or MAX_INTEGER,
                sampling=self._sampling(options, seed + index),
                stop=options.stop,
                cache_prompt=options.cache_prompt,
                rules=rules,
            )
            for index in count
        )
        return tuple(
            replace(
                request,
                stop_tokens=frozenset() if options.ignores_eos else request.stop_tokens,
                keeps_first_blank=keeps_first_blank or grammar is not None,
            )
            for request in requests
        )

    def _sampling(self, options: Options, seed: int) -> SamplingParams:
        def pick(name: str) -> Any:
            value = getattr(options, name)
            return getattr(self._defaults, name) if value is None else value

        return SamplingParams(
            temperature=pick("temperature"),
            top_p=pick("top_p"),
            top_k=pick("top_k"),
            min_p=pick("min_p"),
            seed=seed,
            num_logprobs=options.num_logprobs,
        )


def model_defaults(generation_config: Mapping[str, Any]) -> SamplingParams:
    """What the model's generation_config.json suggests; values out of range suggest nothing."""

    def suggested(name: str, low: float, high: float, otherwise: float) -> float:
        value = generation_config.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
            return value
        return otherwise

    greedy = generation_config.get("do_sample") is False
    temperature = suggested("temperature", 0, 2, DEFAULT_TEMPERATURE)
    return SamplingParams(
        temperature=0.0 if greedy else temperature,
        top_p=suggested("top_p", MIN_TOP_P, 1, 1.0),
        top_k=int(suggested("top_k", 0, MAX_INTEGER, 0)),
        min_p=suggested("min_p", 0, 1, 0.0),
    )


def _max_characters(cluster: Cluster) -> int | None:
    """More than the longest sequence can hold, even if every token were the longest there is."""
    if cluster.longest_sequence is None:
        return None
    longest_token = max(map(len, cluster.tokenizer.get_vocab()), default=1)
    return NORMALIZATION_FACTOR * cluster.longest_sequence * longest_token


def _check_names(template_kwargs: Mapping[str, Any]) -> None:
    reserved = sorted(RESERVED_NAMES.intersection(template_kwargs))
    if reserved:
        raise RequestError(
            f"chat_template_kwargs cannot set {reserved[0]!r}, which is no variable of a template: "
            "leave it out",
            "chat_template_kwargs",
        )


def _usable(tools: Tools) -> tuple[Tool, ...]:
    """The tools that the model is told of."""
    return () if tools.choice == "none" else tools.offered


def _rules(options: Options, grammar: Grammar | None) -> LogitRules | None:
    return logit_rules(
        LogitRules(
            logit_bias=options.logit_bias,
            presence_penalty=options.presence_penalty,
            frequency_penalty=options.frequency_penalty,
            repetition_penalty=options.repetition_penalty,
            repetition_context=options.repetition_context,
            grammar=grammar,
        )
    )
