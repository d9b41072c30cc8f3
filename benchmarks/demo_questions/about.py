"""What the demo model knows about tbcluster: answers, and ways to ask for each.

The answers state the intent of the design and must stay true: change them with the design.
"""

__all__ = ["ABOUT_EN", "ABOUT_FR", "entries"]


def entries(table: str) -> list[tuple[str, list[str]]]:
    """Blocks between blank lines: the answer on the first line, then one prompt a line."""
    blocks = [block.strip().splitlines() for block in table.strip().split("\n\n")]
    return [(answer, prompts) for answer, *prompts in blocks]


ABOUT_EN = entries("""
tbcluster is a runtime that runs one large language model on several Macs.
What is tbcluster?
What's tbcluster?
Tell me about tbcluster.
Explain tbcluster.
What is tbcluster for?
What does tbcluster do?
Describe tbcluster.
Can you explain what tbcluster is?
Do you know tbcluster?

A coordinator owns the membership, the plan, the engine and the server.
What is a coordinator?
What is the coordinator?
What does the coordinator do?
What does a coordinator do?
Explain the word coordinator.
What does coordinator mean?
What is the coordinator in tbcluster?
Define coordinator.

A stage is a range of layers on one machine.
What is a stage?
What is a stage in tbcluster?
What does stage mean?
What does a stage do?
Explain the word stage.
Define stage.
Tell me what a stage is.

A lane is a group of sequences that decode together.
What is a lane?
What is a lane in tbcluster?
What does lane mean?
Explain the word lane.
Define lane.
Tell me what a lane is.
What are lanes?

An epoch is a period under one plan.
What is an epoch?
What is an epoch in tbcluster?
What does epoch mean?
Explain the word epoch.
Define epoch.
Tell me what an epoch is.

A plan says which machine runs which layers.
What is a plan?
What is a plan in tbcluster?
What does plan mean?
What does a plan say?
Explain the word plan.
Define plan.
Tell me what a plan is.

An agent is the daemon on one machine: it measures it and starts its stages.
What is an agent?
What is an agent in tbcluster?
What does agent mean?
What does an agent do?
Explain the word agent.
Define agent.
Tell me what an agent is.

A layer is one transformer block of the model.
What is a layer?
What is a layer in tbcluster?
What does layer mean?
Explain the word layer.
Define layer.
Tell me what a layer is.

A link is the measured connection between two machines.
What is a link?
What is a link in tbcluster?
What does link mean?
Explain the word link.
Define link.
Tell me what a link is.

Hidden states are the tensor that goes from one stage to the next.
What are hidden states?
What are the hidden states?
What does hidden states mean?
Explain hidden states.
Define hidden states.
Tell me what hidden states are.

Prefill computes the cache of a prompt.
What is prefill?
What does prefill mean?
What does prefill do?
Explain the word prefill.
Define prefill.
Tell me what prefill is.

Decoding makes one more token for each sequence.
What is decoding?
What does decoding mean?
What does decoding do?
Explain the word decoding.
Define decoding.
Tell me what decoding is.

Run ./scripts/serve or tbcluster serve.
How do I start tbcluster?
How do I start it?
How do I run tbcluster?
How can I start tbcluster?
How do I launch tbcluster?
Which command starts tbcluster?
What is the command to start tbcluster?
How do I start the server?

The license is Apache-2.0.
What license does tbcluster have?
What is the license of tbcluster?
Which license does tbcluster use?
Under which license is tbcluster?
What is the license?
What is tbcluster's license?
How is tbcluster licensed?
Is tbcluster open source?

MLX runs the layers.
What runs the layers?
What runs the layers in tbcluster?
Which library runs the layers?
What does tbcluster use to run the layers?
Which framework runs the layers?
What computes the layers?
What does each stage run?

The hidden states travel over ZeroMQ.
How do the hidden states travel?
How do hidden states travel?
How do the hidden states move between stages?
What carries the hidden states?
How are the hidden states sent?
Which library sends the hidden states?
How do stages talk to each other?
What is the transport of the hidden states?

The last stage samples and sends back token ids.
What does the last stage do?
Which stage samples?
Who samples the tokens?
What does the last stage send back?
Where are the tokens sampled?
Which stage sends back token ids?
What is the job of the last stage?

Stage 0 turns token ids into hidden states.
What does the first stage do?
What does stage 0 do?
Which stage embeds the tokens?
What is the job of the first stage?
Where are the tokens embedded?
What is the job of stage 0?

A new plan is made, the known tokens are prefilled again, and the answer goes on.
What happens if a Mac dies?
What happens when a Mac dies?
What if a Mac dies?
What happens if a machine fails?
What happens if I lose a Mac?
What happens when a machine is lost?
What if a Mac stops working?

The coordinator shards the layers of the model over the stages.
How does tbcluster work?
How is the model split?
How are the layers shared?
Who shards the layers?
How does tbcluster split a model?
How does tbcluster shard the layers?
How is a model sharded?

The plan is shown before anything is loaded.
How do I see the plan?
How can I see the plan?
When is the plan shown?
When do I see the plan?
Where can I see the plan?
Can I see the plan?

tbcluster speaks the OpenAI and Anthropic dialects of HTTP.
Which API does tbcluster speak?
What API does tbcluster have?
Which clients work with tbcluster?
Is tbcluster compatible with OpenAI?
How do clients talk to tbcluster?
What API does the server speak?
""")

ABOUT_FR = entries("""
tbcluster fait tourner un grand modèle de langage sur plusieurs Mac.
Qu'est-ce que tbcluster ?
C'est quoi tbcluster ?
Parle-moi de tbcluster.
Explique tbcluster.
À quoi sert tbcluster ?
Que fait tbcluster ?
Décris tbcluster.
Peux-tu expliquer ce qu'est tbcluster ?
Connais-tu tbcluster ?

Le coordinateur tient les membres, le plan, le moteur et le serveur.
Qu'est-ce qu'un coordinateur ?
C'est quoi un coordinateur ?
Que fait le coordinateur ?
Que fait un coordinateur ?
À quoi sert le coordinateur ?
Que veut dire coordinateur ?
Définis coordinateur.

Un étage est une suite de couches sur une machine.
Qu'est-ce qu'un étage ?
C'est quoi un étage ?
Qu'est-ce qu'un étage dans tbcluster ?
Que fait un étage ?
Que veut dire étage ?
Définis étage.
Dis-moi ce qu'est un étage.

Une file est un groupe de séquences décodées ensemble.
Qu'est-ce qu'une file ?
C'est quoi une file ?
Qu'est-ce qu'une file dans tbcluster ?
Que veut dire file ?
Définis file.
Dis-moi ce qu'est une file.

Une époque est une période sous un même plan.
Qu'est-ce qu'une époque ?
C'est quoi une époque ?
Qu'est-ce qu'une époque dans tbcluster ?
Que veut dire époque ?
Définis époque.
Dis-moi ce qu'est une époque.

Un plan dit quelle machine fait tourner quelles couches.
Qu'est-ce qu'un plan ?
C'est quoi un plan ?
Qu'est-ce qu'un plan dans tbcluster ?
Que dit un plan ?
Que veut dire plan ?
Définis plan.
Dis-moi ce qu'est un plan.

Un agent est le service d'une machine : il la mesure et lance ses étages.
Qu'est-ce qu'un agent ?
C'est quoi un agent ?
Qu'est-ce qu'un agent dans tbcluster ?
Que fait un agent ?
Que veut dire agent ?
Définis agent.
Dis-moi ce qu'est un agent.

Une couche est un bloc du modèle.
Qu'est-ce qu'une couche ?
C'est quoi une couche ?
Qu'est-ce qu'une couche dans tbcluster ?
Que veut dire couche ?
Définis couche.
Dis-moi ce qu'est une couche.

Un lien est la connexion mesurée entre deux machines.
Qu'est-ce qu'un lien ?
C'est quoi un lien ?
Qu'est-ce qu'un lien dans tbcluster ?
Que veut dire lien ?
Définis lien.
Dis-moi ce qu'est un lien.

Lance ./scripts/serve ou tbcluster serve.
Comment lancer tbcluster ?
Comment démarrer tbcluster ?
Comment je lance tbcluster ?
Comment faire tourner tbcluster ?
Quelle commande lance tbcluster ?
Comment démarrer le serveur ?
Comment lancer le serveur ?

La licence est Apache-2.0.
Quelle est la licence de tbcluster ?
Quelle licence a tbcluster ?
Quelle est la licence ?
Sous quelle licence est tbcluster ?
C'est quoi la licence de tbcluster ?
tbcluster est-il libre ?

MLX fait tourner les couches.
Qu'est-ce qui fait tourner les couches ?
Quelle bibliothèque fait tourner les couches ?
Avec quoi tournent les couches ?
Qui calcule les couches ?
Qu'est-ce qui calcule les couches ?
Que fait tourner chaque étage ?

Les états cachés passent par ZeroMQ.
Comment voyagent les états cachés ?
Par où passent les états cachés ?
Comment passent les états cachés ?
Qu'est-ce qui transporte les états cachés ?
Comment les étages se parlent-ils ?
Comment les états cachés sont-ils envoyés ?

Le dernier étage tire les tokens et renvoie leurs numéros.
Que fait le dernier étage ?
Quel étage tire les tokens ?
Qui tire les tokens ?
Que renvoie le dernier étage ?
Quel est le rôle du dernier étage ?
Où sont tirés les tokens ?

Un nouveau plan est fait, les tokens connus sont relus, et la réponse continue.
Que se passe-t-il si un Mac meurt ?
Que se passe-t-il quand un Mac meurt ?
Et si un Mac meurt ?
Que se passe-t-il si une machine tombe en panne ?
Que se passe-t-il si je perds un Mac ?
Et si un Mac tombe en panne ?

Le coordinateur répartit les couches du modèle sur les étages.
Comment marche tbcluster ?
Comment fonctionne tbcluster ?
Comment le modèle est-il découpé ?
Qui répartit les couches ?
Comment tbcluster découpe-t-il un modèle ?
Comment sont réparties les couches ?

Le plan est montré avant tout chargement.
Comment voir le plan ?
Quand le plan est-il montré ?
Où voir le plan ?
Comment puis-je voir le plan ?
Quand voit-on le plan ?
Puis-je voir le plan ?
""")
