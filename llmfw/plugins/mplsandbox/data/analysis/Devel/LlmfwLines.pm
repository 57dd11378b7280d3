# Which lines of a Perl program run, how often and for how long; runs inside the sandbox: perl -d:LlmfwLines PROGRAM
package Devel::LlmfwLines;

package DB;
use strict;
use Time::HiRes ();
use Cwd ();
our (%hits, %costs, $last, $since, $report, $mine, $program);
$report = Cwd::getcwd() . "/" . ($ENV{LLMFW_REPORT} // "lines.json");
$mine = $$;

sub DB {
    my ($package, $file, $line) = caller;
    return unless $file eq $0;
    $program //= $file;
    my $now = Time::HiRes::time();
    $costs{$last} += $now - $since if defined $last;
    $hits{$line}++;
    ($last, $since) = ($line, Time::HiRes::time());
}

sub sub { no strict 'refs'; goto &{$DB::sub}; }

END {
    if ($$ == $mine) {
        $DB::single = $DB::trace = 0;
        my $name = $program // $0;
        my $now = Time::HiRes::time();
        $costs{$last} += $now - $since if defined $last;
        my $source = do { no strict 'refs'; \@{"::_<$name"} };
        my @can = grep { no warnings; defined $source->[$_] && $source->[$_] != 0 } 1 .. $#$source;
        if (open my $out, '>', $report) {
            print $out '{"executable": [', join(', ', @can), '], "hits": {',
                join(', ', map { qq("$_": $hits{$_}) } keys %hits), '}, "costs": {',
                join(', ', map { sprintf '"%d": %.9f', $_, $costs{$_} } keys %costs), '}}';
            close $out;
        }
    }
}

1;
