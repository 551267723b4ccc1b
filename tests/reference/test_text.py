"""From tokens to text: stop strings, and the end of the context."""

import pytest

from served import CONTEXT, Refused, at_once

PROMPT = "The king said to the queen: I will go to the"
# The model continues to copy, so its tokens are parts of characters.
MANY_BYTES = "水の流れは絶えず。🌊🌊 水の流れは絶えず。🌊🌊 水の流れは絶えず。🌊🌊 水の流れは"
TOKENS = 24


@pytest.mark.parametrize("text", [PROMPT, MANY_BYTES])
def test_text_is_what_the_tokens_spell(served, text):
    [choice] = served.complete(served.tokens(text), temperature=0, max_tokens=TOKENS)
    # A character that the limit cuts isn't shown.
    assert choice.text == served.text(choice.tokens).decode(errors="ignore")


@pytest.mark.parametrize("text", [PROMPT, MANY_BYTES])
def test_stop_strings(served, figures, text):
    """Wherever a stop string occurs, within a token or across several, the text ends before its first occurrence."""
    prompt = served.tokens(text)
    # More tokens where a character takes several.
    limit = TOKENS if text == PROMPT else 3 * TOKENS
    [whole] = served.complete(prompt, temperature=0, max_tokens=limit)
    said = whole.text
    assert len(said) > 20
    stops = {said[at : at + length] for at in (1, 4, 9, 13) for length in (1, 3, 7)}
    lists = [[stop] for stop in stops] + [[said[9:13], said[3:9]], ["never said", said[12:15], "x" * 90]]

    def ask(stop):
        return served.complete(prompt, temperature=0, max_tokens=limit, stop=stop)[0]

    across = 0
    for stop, choice in zip(lists, at_once(ask, lists), strict=True):
        # The stop string that is complete first counts; of several that end there, the longest.
        end = min(said.find(string) + len(string) for string in stop if string in said)
        begin = min(said.find(string) for string in stop if string in said and said.find(string) + len(string) == end)
        assert (choice.text, choice.finish) == (said[:begin], "stop"), stop
        across += not any(string.encode() in served.texts[token] for string in stop for token in whole.tokens)
    figures(stop_lists=len(lists), across_tokens=across)
    assert across >= 3


def test_a_stop_string_that_never_comes_changes_nothing(served):
    prompt = served.tokens(PROMPT)
    [whole] = served.complete(prompt, temperature=0, max_tokens=TOKENS)
    almost = whole.text[-6:] + "\0"
    [choice] = served.complete(prompt, temperature=0, max_tokens=TOKENS, stop=[almost, whole.text[5:9] + "\0"])
    assert (choice.text, choice.finish, choice.tokens) == (whole.text, whole.finish, whole.tokens)


def test_completions_end_at_the_context(served):
    prompt = served.tokens(PROMPT) * 100
    no_end = {token: -100 for token in served.ends}
    room = 6
    full = prompt[: CONTEXT - room]
    [choice] = served.complete(full, max_tokens=room, temperature=0, logit_bias=no_end)
    assert len(choice.tokens) == room and choice.finish == "length"
    for body in ({"prompt": full, "max_tokens": room + 1}, {"prompt": prompt[: CONTEXT + 1], "max_tokens": 1}):
        with pytest.raises(Refused) as refused:
            served.complete(**body)
        error = refused.value.error
        assert refused.value.status == 400 and error["error"]["code"] == "context_length_exceeded"
        assert error["message"].startswith(f"This model's maximum context length is {CONTEXT}")


def test_chats_end_at_the_context(served):
    """A chat may ask for more tokens than fit the context; a prompt may not."""
    if served.name != "smollm2":
        pytest.skip("the model has no chat template")

    def ask(words, **more):
        messages = [{"role": "user", "content": "river " * words}]
        return served.chat(messages=messages, temperature=0, logit_bias={token: -100 for token in served.ends}, **more)

    for more in ({}, {"max_tokens": CONTEXT}):
        usage = ask(CONTEXT - 60, **more)["usage"]
        assert usage["total_tokens"] == CONTEXT
    assert ask(CONTEXT - 60, max_tokens=3)["usage"]["completion_tokens"] == 3
    with pytest.raises(Refused) as refused:
        ask(CONTEXT)
    assert refused.value.status == 400 and refused.value.error["error"]["code"] == "context_length_exceeded"


def test_several_prompts(served):
    """Each prompt has n choices, numbered prompt by prompt. Prompts as texts and as tokens give the same."""
    texts = [" the river", " the sea and the"]
    tokens = [[*served.start, served.ids[b" the"], served.ids[b" river"]]]
    tokens += [[*served.start, *(served.ids[word.encode()] for word in (" the", " sea", " and", " the"))]]
    greedy = {"n": 2, "temperature": 0, "max_tokens": 6}
    by_text, by_token = (served.complete(prompts, **greedy) for prompts in (texts, tokens))
    assert [choice.index for choice in by_text] == [0, 1, 2, 3]
    assert [choice.tokens for choice in by_text] == [choice.tokens for choice in by_token]
    alone = [choice.tokens for prompt in tokens for choice in served.complete(prompt, **greedy)]
    assert alone == [choice.tokens for choice in by_text] and alone[0] != alone[2]
    sampled = served.complete(tokens, n=2, seed=3, max_tokens=6)
    assert len({tuple(choice.tokens) for choice in sampled}) == 4
