"""guide.py page port: runs the Python programs of the guide on the server at this port, and checks what the guide says of them."""

import functools
import re
import sys
import time

import redis

page, port = sys.argv[1], int(sys.argv[2])
redis.Redis = functools.partial(redis.Redis, port=port)
with open(page, encoding="utf-8") as file:
    slots, tokens = re.findall(r"^```python\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
server = redis.Redis()


def run(program, **names):
    exec(compile(program, page, "exec"), names)
    return names


def leases(key):
    return server.execute_command("RL.LEASES", key)


def lost(guide, check):
    """Whether check() raises Lost, if not at once then in time."""
    for _ in range(6000):
        try:
            check()
        except guide["Lost"]:
            return True
        time.sleep(0.01)
    return False


def a_slot_is_renewed_and_released():
    guide = run(slots)
    assert leases("exports") == []
    guide["TTL"] = 3
    try:
        with guide["slot"]("renewed") as check:
            left = [ms for _, _, ms in leases("renewed")]
            # It only falls, until it is renewed. Were it never, this would end with no lease.
            while (now := [ms for _, _, ms in leases("renewed")]) and now <= left:
                left = now
                time.sleep(0.01)
            assert now > left
            check()
            raise KeyError
    except KeyError:
        pass
    assert leases("renewed") == []


def work_stops_when_renew_says_0():
    guide = run(slots)
    guide["TTL"] = 0.3
    with guide["slot"]("lost") as check:
        server.delete("lost")
        assert lost(guide, check)


def work_stops_when_the_server_cannot_be_reached():
    guide = run(slots)
    guide["TTL"] = 1

    class Away:
        def execute_command(self, *_):
            raise redis.ConnectionError

    with guide["slot"]("away") as check:
        guide["server"] = Away()
        assert lost(guide, check)


def a_slot_is_none_when_all_are_taken():
    guide = run(slots)
    guide["LIMIT"] = 1
    with guide["slot"]("taken") as first, guide["slot"]("taken") as second:
        assert first is not None and second is None
    assert leases("taken") == []


def tokens_are_settled():
    def model(prompt, max_tokens):
        assert len(leases("{a}:slots")) == 1
        if prompt == "fail":
            raise KeyError
        return "text", 1234

    guide = run(tokens, count_tokens=len, call_model=model)

    def used():
        fields = server.execute_command("RL.INFO", "{a}:tokens")
        pairs = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2]))
        return pairs.get(b"used", pairs.get("used"))

    assert guide["ask"]("a", "four", 3000) == "text"
    assert (used(), leases("{a}:slots")) == (1234, [])
    try:
        guide["ask"]("a", "fail", 1000)
        raise AssertionError("the model's failure is the caller's")
    except KeyError:
        assert (used(), leases("{a}:slots")) == (1234 + 1004, [])
    server.delete("{a}:tokens")
    assert guide["ask"]("a", "four", 10**9) == "text", "an estimate above the limit"
    assert used() == 1234
    try:
        guide["ask"]("a", "four", 99_000)
        raise AssertionError("there are not as many left")
    except guide["Limited"] as limited:
        assert 0 < limited.args[0] <= 86_400_000


a_slot_is_renewed_and_released()
work_stops_when_renew_says_0()
work_stops_when_the_server_cannot_be_reached()
a_slot_is_none_when_all_are_taken()
tokens_are_settled()
