// Calls a function of the program once and sends its value: descriptor 3 is for values, 4 gives the call.
"use strict";
const fs = require("fs"), vm = require("vm");

function plain(value, depth) {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") return Number.isFinite(value) ? value : { $float: String(value) };
  if (depth > 200) throw new TypeError("the value is nested too deeply");
  if (Array.isArray(value)) return Array.from(value, (one) => plain(one, depth + 1));
  if (value instanceof Set) return { $set: Array.from(value, (one) => plain(one, depth + 1)) };
  if (value === undefined) return null;
  if (typeof value === "object" && (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null)) {
    const made = {};
    for (const key of Object.keys(value)) made[key] = plain(value[key], depth + 1);
    return made;
  }
  throw new TypeError("a value of type " + typeof value + " can't leave the sandbox");
}

function read(fd, count) {
  const data = Buffer.alloc(count);
  let at = 0;
  while (at < count) {
    const got = fs.readSync(fd, data, at, count - at, null);
    if (got === 0) return null;
    at += got;
  }
  return data;
}

function say(value) {
  const text = Buffer.from(JSON.stringify(value)), head = Buffer.alloc(8);
  head.writeBigUInt64LE(BigInt(text.length));
  const data = Buffer.concat([head, text]);
  let at = 0;
  while (at < data.length) at += fs.writeSync(3, data, at);
}

const file = process.argv[2];
globalThis.require = require;
globalThis.module = { exports: {} };
globalThis.exports = globalThis.module.exports;
vm.runInThisContext(fs.readFileSync(file, "utf8"), { filename: file });
const head = read(4, 8);
if (head !== null) {
  const call = JSON.parse(read(4, Number(head.readBigUInt64LE())).toString("utf8"));
  const found = /^[A-Za-z_$][\w$]*$/.test(call.name)
    ? vm.runInThisContext("typeof " + call.name + " === 'function' ? " + call.name + " : undefined") : undefined;
  const target = found || globalThis.module.exports[call.name];
  if (typeof target !== "function") say({ nonce: call.nonce, absent: call.name });
  else {
    try {
      const value = target(...call.args);
      if (value && typeof value.then === "function")
        value.then((one) => say({ nonce: call.nonce, value: plain(one, 0) }),
          (error) => say({ nonce: call.nonce, raised: (error && error.name) || "Error", words: String(error).slice(0, 500) }));
      else say({ nonce: call.nonce, value: plain(value, 0) });
    } catch (error) {
      console.error(error);
      say({ nonce: call.nonce, raised: (error && error.name) || "Error", words: String(error).slice(0, 500) });
    }
  }
}
