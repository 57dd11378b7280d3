# Calls a function of the program once and sends its value: descriptor 3 is for values, 4 gives the call.
import json, os, struct, sys


def _plain(value, depth=0):
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return (
            value
            if value == value and value not in (float("inf"), float("-inf"))
            else {"$float": repr(value)}
        )
    if depth > 200:
        raise TypeError("the value is nested too deeply")
    if kind is list:
        return [_plain(one, depth + 1) for one in value]
    if kind is tuple:
        return {"$tuple": [_plain(one, depth + 1) for one in value]}
    if kind in (set, frozenset):
        return {"$set": [_plain(one, depth + 1) for one in value]}
    if kind is bytes:
        return {"$bytes": list(value)}
    if kind is complex:
        return {"$complex": [repr(value.real), repr(value.imag)]}
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: _plain(one, depth + 1) for key, one in value.items()}
        return {"$dict": [[_plain(key, depth + 1), _plain(one, depth + 1)] for key, one in value.items()]}
    raise TypeError("a value of type %s can't leave the sandbox" % kind.__name__)


def _rich(value):
    if isinstance(value, list):
        return [_rich(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key == "$float":
            return float(inner)
        if key == "$tuple":
            return tuple(_rich(one) for one in inner)
        if key == "$set":
            return set(_rich(one) for one in inner)
        if key == "$bytes":
            return bytes(inner)
        if key == "$complex":
            return complex(float(inner[0]), float(inner[1]))
        if key == "$dict":
            return {_rich(k): _rich(one) for k, one in inner}
    return {key: _rich(one) for key, one in value.items()}


def _read(fd, count):
    data = b""
    while len(data) < count:
        part = os.read(fd, count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _hear(fd):
    (size,) = struct.unpack("<Q", _read(fd, 8))
    return json.loads(_read(fd, size))


def _say(fd, value):
    data = json.dumps(value).encode()
    data = struct.pack("<Q", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def _serve(path, answers=3, calls=4):
    scope = {"__name__": "candidate", "__file__": path}
    with open(path, encoding="utf-8") as file:
        text = file.read()
    exec(compile(text, path, "exec", dont_inherit=True), scope)
    while True:
        try:
            call = _hear(calls)
        except EOFError:
            return
        nonce = call["nonce"]
        function = scope.get(call["name"])
        if not callable(function):
            _say(answers, {"nonce": nonce, "absent": call["name"]})
            continue
        args, kwargs = _rich(call["args"]), _rich(call["kwargs"])
        try:
            value = {"value": _plain(function(*args, **kwargs))}
        except Exception as error:
            import traceback

            traceback.print_exc()
            value = {"raised": type(error).__name__, "words": str(error)[:500]}
        _say(answers, {"nonce": nonce, **value})


if __name__ == "__main__":
    _serve(sys.argv[1])
