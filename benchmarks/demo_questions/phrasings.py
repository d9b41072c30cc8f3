"""How each task is asked for, in each language.

Fields: a, b are numbers; c a country; s a subject; w a word; l a language; a leading "d" stands
for the French "de" joined to what follows it.
"""

from .question import Language

__all__ = ["PHRASINGS"]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


PHRASINGS: dict[tuple[str, Language], list[str]] = {
    ("addition", "en"): _lines("""
        What is {a} plus {b}?
        What is {a} + {b}?
        What's {a} + {b}?
        {a} + {b}
        {a}+{b}=
        {a} + {b} = ?
        {a} plus {b}
        Add {a} and {b}.
        How much is {a} plus {b}?
        What is the sum of {a} and {b}?
        Calculate {a} + {b}.
        Compute {a}+{b}.
    """),
    ("addition", "fr"): _lines("""
        Combien font {a} plus {b} ?
        Combien font {a} + {b} ?
        Combien fait {a} plus {b} ?
        {a} + {b}
        {a}+{b} ?
        {a} plus {b} ?
        Que font {a} plus {b} ?
        Additionne {a} et {b}.
        Quelle est la somme de {a} et {b} ?
        Calcule {a} + {b}.
        Calcule {a} plus {b}.
        Ça fait combien, {a} plus {b} ?
    """),
    ("subtraction", "en"): _lines("""
        What is {a} minus {b}?
        What is {a} - {b}?
        What's {a} - {b}?
        {a} - {b}
        {a}-{b}=
        {a} - {b} = ?
        {a} minus {b}
        Subtract {b} from {a}.
        How much is {a} minus {b}?
        Take {b} away from {a}.
        Calculate {a} - {b}.
        Compute {a}-{b}.
    """),
    ("subtraction", "fr"): _lines("""
        Combien font {a} moins {b} ?
        Combien font {a} - {b} ?
        Combien fait {a} moins {b} ?
        {a} - {b}
        {a}-{b} ?
        {a} moins {b} ?
        Que font {a} moins {b} ?
        Retire {b} de {a}.
        Soustrais {b} de {a}.
        Calcule {a} - {b}.
        Calcule {a} moins {b}.
        Ça fait combien, {a} moins {b} ?
    """),
    ("times", "en"): _lines("""
        What is {a} times {b}?
        What is {a} x {b}?
        What's {a} * {b}?
        {a} x {b}
        {a}*{b}=
        {a} times {b}
        Multiply {a} by {b}.
        How much is {a} times {b}?
        What is {a} multiplied by {b}?
        What is the product of {a} and {b}?
        Calculate {a} x {b}.
    """),
    ("times", "fr"): _lines("""
        Combien font {a} fois {b} ?
        Combien font {a} x {b} ?
        Combien fait {a} fois {b} ?
        {a} x {b} ?
        {a} fois {b} ?
        Que font {a} fois {b} ?
        Multiplie {a} par {b}.
        Quel est le produit de {a} et {b} ?
        Calcule {a} x {b}.
        Calcule {a} fois {b}.
        Ça fait combien, {a} fois {b} ?
    """),
    ("counting", "en"): _lines("""
        Count from {a} to {b}.
        Can you count from {a} to {b}?
        List the numbers from {a} to {b}.
        Give me the numbers from {a} to {b}.
        Write the numbers from {a} to {b}.
        Say the numbers from {a} to {b}.
        I want you to count from {a} to {b}.
        Numbers from {a} to {b}?
    """),
    ("counting", "fr"): _lines("""
        Compte de {a} à {b}.
        Peux-tu compter de {a} à {b} ?
        Donne-moi les nombres de {a} à {b}.
        Écris les nombres de {a} à {b}.
        Dis les nombres de {a} à {b}.
        Quels sont les nombres de {a} à {b} ?
        Sais-tu compter de {a} à {b} ?
        Les nombres de {a} à {b} ?
    """),
    ("spelling", "en"): _lines("""
        Spell {w}.
        Spell the word {w}.
        How do you spell {w}?
        How is {w} spelled?
        Can you spell {w}?
        Spell out {w}.
        What are the letters of {w}?
        Spell "{w}".
        How do I spell {w}?
    """),
    ("spelling", "fr"): _lines("""
        Épelle {w}.
        Épelle le mot {w}.
        Comment s'écrit {w} ?
        Comment s'épelle {w} ?
        Peux-tu épeler {w} ?
        Comment écrit-on {w} ?
        Quelles sont les lettres de {w} ?
        Épelle "{w}".
        Comment épelle-t-on {w} ?
    """),
    ("capitals", "en"): _lines("""
        What is the capital of {c}?
        What's the capital of {c}?
        Which city is the capital of {c}?
        Name the capital of {c}.
        Tell me the capital of {c}.
        Give me the capital of {c}.
        Capital of {c}?
        Do you know the capital of {c}?
        The capital of {c} is?
        What is the capital city of {c}?
    """),
    ("capitals", "fr"): _lines("""
        Quelle est la capitale {c} ?
        Quelle ville est la capitale {c} ?
        Donne-moi la capitale {c}.
        Dis-moi la capitale {c}.
        Nomme la capitale {c}.
        Connais-tu la capitale {c} ?
        Capitale {c} ?
        C'est quoi la capitale {c} ?
        Dis-moi quelle est la capitale {c}.
        Quel est le nom de la capitale {c} ?
    """),
    ("colours", "en"): _lines("""
        What colour is {s}?
        What color is {s}?
        Which colour is {s}?
        What is the colour of {s}?
        What is the color of {s}?
        Tell me the colour of {s}.
        Colour of {s}?
        Do you know what colour {s} is?
        Give me the colour of {s}.
    """),
    ("colours", "fr"): _lines("""
        De quelle couleur est {s} ?
        Quelle est la couleur {ds} ?
        Dis-moi la couleur {ds}.
        Donne-moi la couleur {ds}.
        Couleur {ds} ?
        C'est quoi la couleur {ds} ?
        Sais-tu de quelle couleur est {s} ?
        Dis-moi de quelle couleur est {s}.
        Connais-tu la couleur {ds} ?
    """),
    ("opposites", "en"): _lines("""
        What is the opposite of {w}?
        What's the opposite of {w}?
        What is the opposite of "{w}"?
        Give me the opposite of {w}.
        Tell me the opposite of {w}.
        Opposite of {w}?
        Which word is the opposite of {w}?
        Name the opposite of {w}.
        Do you know the opposite of {w}?
        The opposite of {w} is?
    """),
    ("opposites", "fr"): _lines("""
        Quel est le contraire {dw} ?
        C'est quoi le contraire {dw} ?
        Donne-moi le contraire {dw}.
        Dis-moi le contraire {dw}.
        Contraire {dw} ?
        Quel mot est le contraire {dw} ?
        Le contraire {dw} ?
        Connais-tu le contraire {dw} ?
        Quel est l'opposé {dw} ?
        Quel est le contraire du mot {w} ?
    """),
    ("translation", "en"): _lines("""
        How do you say {w} in {l}?
        What is {w} in {l}?
        Translate {w} into {l}.
        Translate {w} to {l}.
        What is the {l} word for {w}?
        Translate the word {w} into {l}.
        {w} in {l}?
        How do I say {w} in {l}?
        Say {w} in {l}.
        Tell me how to say {w} in {l}.
    """),
    ("translation", "fr"): _lines("""
        Comment dit-on {w} en {l} ?
        Comment dire {w} en {l} ?
        Traduis {w} en {l}.
        Comment se dit {w} en {l} ?
        {w} en {l} ?
        C'est quoi {w} en {l} ?
        Quel est le mot {l} pour {w} ?
        Traduis le mot {w} en {l}.
        Dis {w} en {l}.
        Comment on dit {w} en {l} ?
    """),
}
