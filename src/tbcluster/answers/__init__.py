"""What an answer's text is made of: text, reasoning and tool calls, in the model's own format."""
