<?php
// Which lines of a PHP program run, by the extension pcov; runs inside the sandbox: php_lines.php REPORT PROGRAM
(function (array $words): void {
    $report = getcwd() . "/" . $words[1];
    $program = realpath($words[2]);
    register_shutdown_function(function () use ($report, $program): void {
        \pcov\stop();
        $hits = \pcov\collect(\pcov\inclusive, [$program])[$program] ?? [];
        $can = array_keys($hits);
        $ran = array_map(fn ($count) => max(0, $count), $hits);
        file_put_contents($report, json_encode(["executable" => $can, "hits" => (object) $ran]));
    });
})($argv);
$argv = array_slice($argv, 2);
$argc = count($argv);
\pcov\start();
require $argv[0];
