// Rules about what is probably wrong; plain error and warning levels, no plugin.
const errors = [
  "constructor-super", "for-direction", "getter-return", "no-class-assign", "no-compare-neg-zero", "no-const-assign",
  "no-dupe-args", "no-dupe-class-members", "no-dupe-else-if", "no-dupe-keys", "no-duplicate-case", "no-func-assign",
  "no-import-assign", "no-invalid-regexp", "no-new-native-nonconstructor", "no-obj-calls", "no-self-assign",
  "no-setter-return", "no-this-before-super", "no-unreachable", "no-unsafe-finally", "no-unsafe-negation",
  "no-unsafe-optional-chaining", "use-isnan", "valid-typeof", "no-eval", "no-implied-eval", "no-new-func",
];
const warnings = [
  "array-callback-return", "no-async-promise-executor", "no-cond-assign", "no-constant-condition",
  "no-constant-binary-expression", "no-fallthrough", "no-loss-of-precision", "no-promise-executor-return",
  "no-self-compare", "no-sparse-arrays", "no-template-curly-in-string", "no-unmodified-loop-condition",
  "no-unused-private-class-members", "no-use-before-define", "require-atomic-updates", "no-script-url",
];
const rules = Object.fromEntries([...errors.map((rule) => [rule, 2]), ...warnings.map((rule) => [rule, 1])]);
rules["no-use-before-define"] = [1, { functions: false }];
export default [{ files: ["**/*.js"], languageOptions: { sourceType: "commonjs" }, linterOptions: { noInlineConfig: true }, rules }];
