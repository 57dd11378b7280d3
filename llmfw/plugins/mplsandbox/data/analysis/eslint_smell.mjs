// Rules about what is hard to read or keep.
const names = [
  "no-unused-vars", "no-var", "prefer-const", "eqeqeq", "no-empty", "no-else-return", "no-extra-boolean-cast",
  "no-lonely-if", "no-nested-ternary", "no-param-reassign", "no-redeclare", "no-shadow", "no-unneeded-ternary",
  "no-useless-catch", "no-useless-concat", "no-useless-escape", "no-useless-rename", "no-useless-return",
  "object-shorthand", "prefer-template", "yoda", "default-case", "no-multi-assign", "no-undef-init", "consistent-return",
];
const rules = Object.fromEntries(names.map((rule) => [rule, 1]));
Object.assign(rules, {
  complexity: [1, 15], "max-depth": [1, 5], "max-params": [1, 6], "max-lines-per-function": [1, 80],
  "max-nested-callbacks": [1, 4],
});
export default [{ files: ["**/*.js"], languageOptions: { sourceType: "commonjs" }, linterOptions: { noInlineConfig: true }, rules }];
