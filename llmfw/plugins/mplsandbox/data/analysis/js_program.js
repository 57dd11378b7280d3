// A JavaScript program's tree and its way back to TypeScript; runs inside the sandbox.
"use strict";
const fs = require("fs");

function parser() {
  for (const name of ["acorn", "internal/deps/acorn/acorn/dist/acorn"]) {
    try {
      return require(name);
    } catch {
      continue;
    }
  }
  throw new Error("no acorn: neither in the tools folder nor inside this node");
}

function tree(text) {
  const acorn = parser();
  const options = { ecmaVersion: "latest", locations: true, allowHashBang: true, allowReturnOutsideFunction: true };
  try {
    return acorn.parse(text, { ...options, sourceType: "script" });
  } catch {
    return acorn.parse(text, { ...options, sourceType: "module" });
  }
}

// Every node, parents first; without recursion, as programs may be nested deeply.
function* nodes(root) {
  const wait = [[root, null]];
  while (wait.length) {
    const [node, parent] = wait.pop();
    yield [node, parent];
    for (const key of Object.keys(node).reverse()) {
      const value = node[key];
      for (const child of Array.isArray(value) ? [...value].reverse() : [value]) {
        if (child && typeof child.type === "string" && child.loc) wait.push([child, node]);
      }
    }
  }
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// From places in main.js to lines of main.ts, by its source map; without one a line stays itself.
function original(file) {
  if (!fs.existsSync(file + ".map")) return (line) => line;
  const map = JSON.parse(fs.readFileSync(file + ".map", "utf8"));
  const lines = [];
  let source = 0, place = 0;
  for (const text of map.mappings.split(";")) {
    const marks = [];
    let column = 0;
    for (const segment of text.split(",").filter(Boolean)) {
      const fields = [];
      let value = 0, shift = 0;
      for (const letter of segment) {
        const digit = DIGITS.indexOf(letter);
        value |= (digit & 31) << shift;
        if (digit & 32) shift += 5;
        else {
          fields.push(value & 1 ? -(value >> 1) : value >> 1);
          value = shift = 0;
        }
      }
      column += fields[0];
      if (fields.length > 3) {
        source += fields[1];
        place += fields[2];
        marks.push([column, /main\.ts$/.test(map.sources[source]) ? place + 1 : 0]);
      }
    }
    lines.push(marks);
  }
  return (line, column) => {
    const marks = lines[line - 1] || [];
    const before = marks.filter((mark) => mark[0] <= column).pop() || marks[0];
    return before ? before[1] : 0;
  };
}

module.exports = { tree, nodes, original };
