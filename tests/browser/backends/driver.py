"""Does what each line of its input says with server.py, and prints what came of it: python3 driver.py server.py"""

import importlib.util
import json
import sys

spec = importlib.util.spec_from_file_location("nudged", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
state, dropped = {}, []
NAMES = {"streamSeconds": "stream_seconds"}


def note(org, keys, error):
    dropped.append({"org": org, "keys": keys, "error": str(error)})


def fail(org, keys, error):
    raise RuntimeError("of the test")


def named(options, milliseconds=()):
    return {NAMES.get(name, name): value / 1000 if name in milliseconds else value for name, value in options.items()}


def new(options):
    report = fail if options.pop("fails", False) else note
    options = named(options, ("timeout", "window"))
    state["nudged"] = module.Publisher(options.pop("url"), options.pop("token", None), dropped=report, **options)


def take():
    taken = dropped[:]
    dropped.clear()
    return {"dropped": taken}


actions = {
    "new": new,
    "publish": lambda org, keys: state["nudged"].publish(org, keys),
    "enqueue": lambda org, keys: {"returned": state["nudged"].enqueue(org, keys)},
    "close": lambda ms: state["nudged"].close(ms / 1000),
    "dropped": take,
    "ticket": lambda secret, org, options={}: {"token": module.ticket(secret, org, **named(options))},
}
for line in sys.stdin:
    call = json.loads(line)
    try:
        result = actions[call.pop("action")](**call) or {}
    except Exception as error:
        members = {name: getattr(error, name, None) for name in ("status", "detail", "temporary")}
        retry_after = 1000 * getattr(error, "retry_after", 0)
        result = {"error": str(error), **members, "retryAfter": retry_after, "isRefusal": isinstance(error, module.PublishError)}
    print(json.dumps(result), flush=True)
