// Which lines of a JavaScript program ran, by V8's own counts, or what they cost, by its profile.
// Runs inside the sandbox: js_lines.js coverage|profile FOLDER PROGRAM
"use strict";
const fs = require("fs"), path = require("path");
const { tree, nodes, original } = require(path.join(__dirname, "js_program.js"));
const [what, folder, file] = process.argv.slice(2);
const place = original(file);
const own = (url) => url === file || url.endsWith("/" + file);

function documents() {
  const names = fs.existsSync(folder) ? fs.readdirSync(folder).filter((name) => name.endsWith("json") || name.endsWith("cpuprofile")) : [];
  if (!names.length) throw new Error("node recorded nothing: the program was ended from outside");
  return names.slice(0, 20).map((name) => JSON.parse(fs.readFileSync(path.join(folder, name), "utf8")));
}

function coverage() {
  const ranges = [];
  for (const document of documents()) {
    const functions = document.result.filter((one) => own(one.url)).flatMap((one) => one.functions);
    ranges.push(functions.flatMap((one) => one.ranges).sort((a, b) => a.endOffset - a.startOffset - b.endOffset + b.startOffset));
  }
  const text = fs.readFileSync(file, "utf8"), hits = {}, executable = new Set();
  for (const [node] of nodes(tree(text))) {
    if (!/Statement$|^VariableDeclaration$|^ClassDeclaration$/.test(node.type)) continue;
    if (/^(Block|Empty)Statement$/.test(node.type) || node.directive !== undefined) continue;
    const line = place(node.loc.start.line, node.loc.start.column);
    if (!line) continue;
    executable.add(line);
    for (const found of ranges) {
      const inner = found.find((one) => one.startOffset <= node.start && node.start < one.endOffset);
      if (inner) hits[line] = Math.max(hits[line] || 0, inner.count);
    }
  }
  return { executable: [...executable].sort((a, b) => a - b), hits };
}

function profile() {
  const costs = {}, functions = new Map();
  for (const document of documents()) {
    const { nodes: called, samples, startTime, endTime } = document;
    const each = samples.length ? (endTime - startTime) / 1e6 / samples.length : 0;
    for (const node of called) {
      const at = node.callFrame;
      if (!own(at.url) || !node.hitCount) continue;
      const line = place(at.lineNumber + 1, Math.max(0, at.columnNumber));
      const key = at.functionName + ":" + line;
      const old = functions.get(key) || { name: at.functionName || "(top level)", line, cost: 0 };
      old.cost += node.hitCount * each;
      functions.set(key, old);
      for (const tick of node.positionTicks || []) {
        const ran = place(tick.line, 1e6);
        if (ran) costs[ran] = (costs[ran] || 0) + tick.ticks * each;
      }
    }
  }
  return { costs, functions: [...functions.values()].sort((a, b) => b.cost - a.cost).slice(0, 200) };
}

try {
  console.log(JSON.stringify(what === "coverage" ? coverage() : profile()));
} catch (error) {
  console.log(JSON.stringify({ error: String(error).slice(0, 300) }));
}
