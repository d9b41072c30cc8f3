"""Prompts that the demo model cannot answer, so that it says so instead of making something up."""

import random

from .phrasings import PHRASINGS
from .question import Language

__all__ = [
    "LIMIT_REPLIES",
    "UNKNOWN_REPLIES",
    "beyond_limits_prompt",
    "invented_name",
    "unknown_prompt",
]

LIMIT_REPLIES: dict[Language, str] = {
    "en": "That is beyond me: I only know small sums, differences and products.",
    "fr": "C'est trop pour moi : je ne connais que de petits calculs.",
}

UNKNOWN_REPLIES: dict[Language, str] = {
    "en": "I do not know: I am a tiny demo model.",
    "fr": "Je ne sais pas : je suis un tout petit modèle.",
}


def _listed(text: str) -> list[str]:
    return text.split(",")


_TEMPLATES: dict[Language, list[str]] = {
    "en": [
        "Write a poem about {t}.",
        "Write a story about {t}.",
        "Write a short essay about {t}.",
        "Write a Python function for {t}.",
        "Tell me a joke about {t}.",
        "Tell me a story about {t}.",
        "Tell me more about {t}.",
        "Who invented {t}?",
        "Who wrote about {t}?",
        "What is {t}?",
        "What do you think of {t}?",
        "Why is {t} important?",
        "When was {t} invented?",
        "Where can I find {t}?",
        "How does {t} work?",
        "How do I make {t}?",
        "Explain {t}.",
        "Explain {t} to a child.",
        "Summarize the history of {t}.",
        "Give me ten ideas about {t}.",
        "Can you help me with {t}?",
        "Do you like {t}?",
        "Is {t} dangerous?",
        "How much does {t} cost?",
        "What is the best book about {t}?",
        "What is the capital of {n}?",
        "Capital of {n}?",
        "What is the opposite of {n}?",
        "How do you say {n} in French?",
        "Who is {n}?",
        "Where is {n}?",
        "What does {n} mean?",
        "What colour is {n}?",
    ],
    "fr": [
        "Écris un poème sur {t}.",
        "Écris une histoire sur {t}.",
        "Raconte-moi une blague sur {t}.",
        "Raconte-moi une histoire sur {t}.",
        "Parle-moi de {t}.",
        "Qui a inventé {t} ?",
        "Que penses-tu de {t} ?",
        "Pourquoi {t} ?",
        "Comment marche {t} ?",
        "Comment faire {t} ?",
        "Explique {t}.",
        "Explique {t} à un enfant.",
        "Résume l'histoire de {t}.",
        "Aimes-tu {t} ?",
        "Où trouver {t} ?",
        "Combien coûte {t} ?",
        "Donne-moi dix idées sur {t}.",
        "Quelle est la capitale de {n} ?",
        "Capitale de {n} ?",
        "Quel est le contraire de {n} ?",
        "Comment dit-on {n} en anglais ?",
        "Qui est {n} ?",
        "Où est {n} ?",
        "Que veut dire {n} ?",
        "De quelle couleur est {n} ?",
    ],
}

_TOPICS: dict[Language, list[str]] = {
    "en": _listed(
        "football,the internet,gravity,music theory,quantum physics,cooking,pizza,the weather,"
        "history,the stock market,electric cars,philosophy,love letters,dinosaurs,space travel,"
        "a black hole,climate change,chess,the Roman Empire,photosynthesis,machine learning,"
        "neural networks,the human brain,vaccines,a bicycle trip,painting,the guitar,poetry,"
        "the ocean floor,volcanoes,sorting a list,a web server,databases,Python,JavaScript,Rust,"
        "my homework,a birthday party,wedding speeches,politics,religion,bitcoin,novels,movies,"
        "the news,tomorrow's weather,the meaning of life,robots,artificial intelligence,bees,"
        "penguins,coral reefs,bread baking,gardening,yoga,running,swimming,tennis,the moon landing"
    ),
    "fr": _listed(
        "le football,l'internet,la gravité,la physique,la cuisine,la pizza,la météo,l'histoire,"
        "la bourse,les voitures électriques,la philosophie,les dinosaures,les trous noirs,"
        "le climat,les échecs,l'Empire romain,la photosynthèse,l'intelligence artificielle,"
        "le cerveau,les vaccins,la peinture,la guitare,la poésie,les volcans,les bases de données,"
        "Python,mes devoirs,un anniversaire,la politique,la religion,les romans,les films,"
        "les nouvelles,le sens de la vie,les robots,les abeilles,les pingouins,le jardinage,"
        "la course,la natation,le tennis,le cinéma,la danse,les mathématiques,la chimie"
    ),
}

_ONSETS = _listed("b,br,c,ch,d,dr,f,g,gl,gr,h,j,k,kr,l,m,n,p,pl,qu,r,s,st,t,tr,v,w,x,y,z")
_VOWELS = _listed("a,e,i,o,u,ai,ou,ea,an,en,on,or")


def unknown_prompt(rng: random.Random, language: Language) -> str:
    """A prompt about a topic outside the corpus, or about a name that does not exist."""
    template = rng.choice(_TEMPLATES[language])
    return template.format(t=rng.choice(_TOPICS[language]), n=invented_name(rng))


def invented_name(rng: random.Random) -> str:
    """A word made of random syllables, half of the time with a capital letter."""
    num_syllables = rng.choice((2, 2, 3, 3, 4))
    name = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(num_syllables))
    return name.capitalize() if rng.random() < 0.5 else name


def beyond_limits_prompt(rng: random.Random, language: Language) -> str:
    """A calculation with too large a number, or with a result below zero."""
    task = rng.choice(("addition", "subtraction", "times"))
    if task == "subtraction" and rng.random() < 0.6:
        b = rng.randint(1, 99)
        numbers = [rng.randint(0, b - 1), b]
    elif task == "times" and rng.random() < 0.6:
        numbers = [rng.randint(2, 99), rng.randint(11, 99)]
        rng.shuffle(numbers)
    else:
        numbers = [rng.randint(100, 10 ** rng.randint(3, 5)), rng.randint(1, 999)]
        rng.shuffle(numbers)
    return rng.choice(PHRASINGS[task, language]).format(a=numbers[0], b=numbers[1])
