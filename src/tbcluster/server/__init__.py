"""HTTP: the OpenAI dialect over a running cluster."""
