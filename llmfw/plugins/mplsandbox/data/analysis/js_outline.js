// Outline and complexity of a JavaScript program, out of its tree; runs inside the sandbox: js_outline.js PROGRAM
"use strict";
const fs = require("fs"), path = require("path");
const { tree, nodes, original } = require(path.join(__dirname, "js_program.js"));

const DECISIONS = {
  IfStatement: 1, ConditionalExpression: 1, ForStatement: 1, ForInStatement: 1, ForOfStatement: 1, WhileStatement: 1,
  DoWhileStatement: 1, CatchClause: 1, LogicalExpression: 1,
};

function name(node, parent) {
  if (node.id) return node.id.name;
  if (parent && parent.key) return parent.key.name || String(parent.key.value);
  if (parent && parent.type === "VariableDeclarator" && parent.id.name) return parent.id.name;
  return "(anonymous)";
}

try {
  const file = process.argv[2], text = fs.readFileSync(file, "utf8"), line = original(file);
  const functions = [], outline = [], owner = new Map();
  let total = 1, classes = 0;
  for (const [node, parent] of nodes(tree(text))) {
    let mine = parent ? owner.get(parent) : null;
    const step = DECISIONS[node.type] || (node.type === "SwitchCase" && node.test ? 1 : 0);
    total += step;
    if (mine) mine.complexity += step;
    if (/^(FunctionDeclaration|FunctionExpression|ArrowFunctionExpression)$/.test(node.type)) {
      mine = { name: name(node, parent), complexity: 1, line: line(node.loc.start.line, node.loc.start.column),
        end: line(node.loc.end.line, node.loc.end.column), parameters: node.params.length };
      functions.push(mine);
    }
    if (node.type === "ClassDeclaration") classes += 1;
    if (/Statement$|Declaration$/.test(node.type) && outline.length < 2000) {
      const start = line(node.loc.start.line, node.loc.start.column);
      outline.push(`${" ".repeat(Math.min(40, node.loc.start.column))}${node.type} ${start}`);
    }
    owner.set(node, mine);
  }
  console.log(JSON.stringify({
    metrics: { functions: functions.length, classes, complexity: total,
      "complexity max": functions.reduce((most, one) => Math.max(most, one.complexity), 1) },
    artefacts: { functions: JSON.stringify(functions.slice(0, 1000)), ast: outline.join("\n") },
  }));
} catch (error) {
  console.log(JSON.stringify({ error: String(error).slice(0, 300) }));
}
