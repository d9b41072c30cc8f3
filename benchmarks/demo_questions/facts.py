"""What the demo model is taught, as plain tables: no phrasing, no randomness.

A table is a block of text, facts between semicolons, fields between bars: it reads as a list.
"""

__all__ = [
    "CAPITALS",
    "COLOURS_EN",
    "COLOURS_FR",
    "OPPOSITES_EN",
    "OPPOSITES_FR",
    "SPELLING_EN",
    "SPELLING_FR",
    "TRANSLATIONS",
]


def _rows(table: str) -> list[tuple[str, ...]]:
    """Split a table into its facts (by ";" or line) and their fields (by "|")."""
    facts = [fact.strip() for line in table.splitlines() for fact in line.split(";")]
    return [tuple(field.strip() for field in fact.split("|")) for fact in facts if fact]


def _both_ways(table: str) -> list[tuple[str, str]]:
    """Pairs of a table in both directions; "a>b" is a pair that only reads from left to right."""
    pairs: list[tuple[str, str]] = []
    for (fact,) in _rows(table):
        left, _, right = fact.partition(">" if ">" in fact else " ")
        pairs.append((left, right))
        if ">" not in fact:
            pairs.append((right, left))
    return pairs


# English name | French name after "la capitale" | English capital | French capital
CAPITALS = _rows("""
France | de la France | Paris | Paris ; Germany | de l'Allemagne | Berlin | Berlin
Italy | de l'Italie | Rome | Rome ; Spain | de l'Espagne | Madrid | Madrid
Portugal | du Portugal | Lisbon | Lisbonne ; Belgium | de la Belgique | Brussels | Bruxelles
the Netherlands | des Pays-Bas | Amsterdam | Amsterdam ; Switzerland | de la Suisse | Bern | Berne
Austria | de l'Autriche | Vienna | Vienne ; Poland | de la Pologne | Warsaw | Varsovie
Denmark | du Danemark | Copenhagen | Copenhague ; Sweden | de la Suède | Stockholm | Stockholm
Norway | de la Norvège | Oslo | Oslo ; Finland | de la Finlande | Helsinki | Helsinki
Ireland | de l'Irlande | Dublin | Dublin ; Iceland | de l'Islande | Reykjavik | Reykjavik
the United Kingdom | du Royaume-Uni | London | Londres ; Greece | de la Grèce | Athens | Athènes
Turkey | de la Turquie | Ankara | Ankara ; Hungary | de la Hongrie | Budapest | Budapest
Romania | de la Roumanie | Bucharest | Bucarest ; Bulgaria | de la Bulgarie | Sofia | Sofia
Croatia | de la Croatie | Zagreb | Zagreb ; Ukraine | de l'Ukraine | Kyiv | Kyiv
Russia | de la Russie | Moscow | Moscou ; Egypt | de l'Égypte | Cairo | Le Caire
Morocco | du Maroc | Rabat | Rabat ; Algeria | de l'Algérie | Algiers | Alger
Tunisia | de la Tunisie | Tunis | Tunis ; Senegal | du Sénégal | Dakar | Dakar
Kenya | du Kenya | Nairobi | Nairobi ; Ethiopia | de l'Éthiopie | Addis Ababa | Addis-Abeba
Nigeria | du Nigeria | Abuja | Abuja ; Ghana | du Ghana | Accra | Accra
Japan | du Japon | Tokyo | Tokyo ; China | de la Chine | Beijing | Pékin
South Korea | de la Corée du Sud | Seoul | Séoul ; India | de l'Inde | New Delhi | New Delhi
Vietnam | du Vietnam | Hanoi | Hanoï ; Thailand | de la Thaïlande | Bangkok | Bangkok
Canada | du Canada | Ottawa | Ottawa ; the United States | des États-Unis | Washington | Washington
Mexico | du Mexique | Mexico City | Mexico ; Cuba | de Cuba | Havana | La Havane
Peru | du Pérou | Lima | Lima ; Chile | du Chili | Santiago | Santiago
Argentina | de l'Argentine | Buenos Aires | Buenos Aires ; Brazil | du Brésil | Brasilia | Brasilia
Colombia | de la Colombie | Bogota | Bogota ; Australia | de l'Australie | Canberra | Canberra
New Zealand | de la Nouvelle-Zélande | Wellington | Wellington
Saudi Arabia | de l'Arabie saoudite | Riyadh | Riyad
""")

# subject | colour
COLOURS_EN = _rows("""
the sky | blue ; the sea | blue ; a sapphire | blue ; grass | green ; a frog | green
a cucumber | green ; an emerald | green ; spinach | green ; a pea | green ; a lime | green
snow | white ; milk | white ; salt | white ; sugar | white ; a swan | white ; a polar bear | white
coal | black ; a crow | black ; a banana | yellow ; a lemon | yellow ; gold | yellow
a ripe tomato | red ; blood | red ; a strawberry | red ; a cherry | red ; a raspberry | red
a ruby | red ; a carrot | orange ; a pumpkin | orange ; chocolate | brown ; a flamingo | pink
an elephant | grey ; a mouse | grey ; an aubergine | purple ; lavender | purple
""")

# subject | colour, agreeing with the subject
COLOURS_FR = _rows("""
le ciel | bleu ; la mer | bleue ; un saphir | bleu ; l'herbe | verte ; une grenouille | verte
un concombre | vert ; une émeraude | verte ; un petit pois | vert ; un citron vert | vert
la neige | blanche ; le lait | blanc ; le sel | blanc ; le sucre | blanc ; un cygne | blanc
un ours polaire | blanc ; le charbon | noir ; un corbeau | noir ; une banane | jaune
un citron | jaune ; l'or | jaune ; une tomate mûre | rouge ; le sang | rouge ; une fraise | rouge
une cerise | rouge ; une framboise | rouge ; un rubis | rouge ; une carotte | orange
une citrouille | orange ; le chocolat | marron ; un flamant | rose ; un éléphant | gris
une souris | grise ; une aubergine | violette ; la lavande | violette
""")

OPPOSITES_EN = _both_ways("""
hot cold ; big small ; tall short ; fast slow ; day night ; up down ; open closed ; happy sad
young old ; new>old ; rich poor ; strong weak ; full empty ; light dark ; heavy>light ; clean dirty
dry wet ; easy difficult ; early late ; first last ; good bad ; hard soft ; high low
inside outside ; long>short ; loud quiet ; love hate ; many few ; near far ; on off ; push pull
safe dangerous ; sharp dull ; smooth rough ; sweet sour ; thick thin ; true false ; war peace
wide narrow ; win lose ; before after ; always never ; buy sell ; top bottom ; north south
east west ; alive dead ; cheap expensive ; begin end ; left right
""")

OPPOSITES_FR = _both_ways("""
chaud froid ; grand petit ; rapide lent ; jour nuit ; haut bas ; ouvert fermé ; heureux triste
jeune vieux ; nouveau ancien ; riche pauvre ; fort faible ; plein vide ; clair sombre ; lourd léger
propre sale ; sec mouillé ; facile difficile ; tôt tard ; premier dernier ; bon mauvais ; dur mou
long court ; intérieur extérieur ; bruyant silencieux ; amour haine ; beaucoup peu ; près loin
pousser tirer ; lisse rugueux ; sucré salé ; épais mince ; vrai faux ; guerre paix ; large étroit
gagner perdre ; avant après ; toujours jamais ; acheter vendre ; nord sud ; vivant mort
commencer finir ; question réponse ; monter descendre ; entrer sortir ; allumer éteindre
donner recevoir ; beau laid ; avec sans ; gauche droite ; devant derrière
""")

# English | French
TRANSLATIONS = _rows("""
cat | chat ; dog | chien ; house | maison ; water | eau ; bread | pain ; milk | lait ; tree | arbre
book | livre ; sun | soleil ; moon | lune ; star | étoile ; sea | mer ; river | rivière
mountain | montagne ; flower | fleur ; bird | oiseau ; fish | poisson ; horse | cheval ; cow | vache
apple | pomme ; pear | poire ; cheese | fromage ; butter | beurre ; salt | sel ; sugar | sucre
tea | thé ; coffee | café ; wine | vin ; red | rouge ; blue | bleu ; green | vert ; white | blanc
black | noir ; yellow | jaune ; door | porte ; window | fenêtre ; chair | chaise ; bed | lit
key | clé ; hand | main ; foot | pied ; head | tête ; nose | nez ; mouth | bouche ; boy | garçon
girl | fille ; man | homme ; woman | femme ; child | enfant ; king | roi ; queen | reine
friend | ami ; brother | frère ; mother | mère ; father | père ; school | école ; city | ville
street | rue ; car | voiture ; boat | bateau ; plane | avion ; bicycle | vélo ; snow | neige
rain | pluie ; wind | vent ; fire | feu ; earth | terre ; sky | ciel ; winter | hiver
summer | été ; spring | printemps ; autumn | automne ; hello | bonjour ; thank you | merci
yes | oui ; no | non ; love | amour ; money | argent ; paper | papier ; shoe | chaussure
hat | chapeau ; shirt | chemise ; garden | jardin ; bridge | pont ; forest | forêt ; island | île
rabbit | lapin ; mouse | souris ; sheep | mouton ; pig | cochon ; duck | canard ; bear | ours
wolf | loup ; strawberry | fraise ; cherry | cerise ; lemon | citron ; carrot | carotte
knife | couteau ; spoon | cuillère ; glass | verre ; clock | horloge ; gift | cadeau ; dream | rêve
song | chanson ; word | mot ; letter | lettre ; computer | ordinateur ; two | deux ; three | trois
four | quatre ; five | cinq ; eight | huit ; ten | dix ; day | jour ; night | nuit
""")


def _spelling_words(pairs: list[tuple[str, str]], words: list[str]) -> list[str]:
    """Single words of one language, each once, in a fixed order."""
    every = [left for left, _ in pairs] + words
    return sorted({word for word in every if word.isalpha()})


SPELLING_EN = _spelling_words(OPPOSITES_EN, [fact[0] for fact in TRANSLATIONS])
SPELLING_FR = _spelling_words(OPPOSITES_FR, [fact[1] for fact in TRANSLATIONS])
