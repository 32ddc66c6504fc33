"""``python model.py FOLDER``: makes a tiny model without weights, within a second.

Runs in the engine's own environment, which has the libraries, so it imports nothing of the project.
A word is a token (``w17 w4000``): prompts of known lengths can be written as text. The weights are
made up by the server (``--load-format dummy``).
"""

import sys

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, PreTrainedTokenizerFast

WORDS = 4096
CONTEXT_TOKENS = 4096


def main(folder: str) -> None:
    """Write the configuration and the tokenizer into a folder."""
    words = {"<end>": 0, "<unknown>": 1} | {f"w{i}": i for i in range(2, WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    marks = {"eos_token": "<end>", "pad_token": "<end>", "unk_token": "<unknown>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    LlamaConfig(
        vocab_size=WORDS,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=0,
        eos_token_id=0,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
